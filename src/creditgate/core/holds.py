"""A hold: units that were taken for later, and what is needed to put that right once it is known how many were used.

A hold is settled once: kept as it was held, or changed to what was used; released is used 0. One that nobody settles
expires, and is settled at the progress that was reported of it, so released if there was none.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from creditgate.core.entities import split_pool

HOLD = "hold"  # the type of the journal's documents about holds

HOURS_MS = 3_600_000


class Limits(NamedTuple):
    """How long a hold lasts if nothing is said, how far ahead it may expire, and how many a customer may have open."""

    lasts_ms: int
    lasts_ms_max: int
    holds_max: int


HOLD_LIMITS = Limits(lasts_ms=HOURS_MS, lasts_ms_max=24 * HOURS_MS, holds_max=1_000)


class Leg(msgspec.Struct, frozen=True, array_like=True):
    """What one row gave (negative) or got, in nanos of its own unit, at this cost and in this period of the row."""

    row_id: str
    feature_id: str
    cost_nanos: int
    delta_nanos: int
    period: str


class GateLeg(msgspec.Struct, frozen=True, array_like=True):
    """What a usage limit counted of a hold: so much less may be used, in this period of the limit."""

    gate_id: str
    feature_id: str
    delta_nanos: int
    period: str


class Hold(msgspec.Struct, frozen=True):
    """An open hold, as lua/lib/receipt.lua writes it. `value_nanos` and `used_nanos` are units of the feature.

    `pool` says of which feature, and for whom (see `entities.py`).

    `op_id` tells it from any other hold that had or will have its id; `mode` is how use beyond it is taken. If it
    expires, it is settled at `used_nanos`, the progress that was reported.
    """

    pool: str = msgspec.field(name="feature_id")
    op_id: str
    mode: Literal["cap", "overflow"]
    expires_at: int
    value_nanos: int
    used_nanos: int
    legs: tuple[Leg, ...]
    gates: tuple[GateLeg, ...]
    properties: msgspec.Raw

    @property
    def feature_id(self) -> str:
        return split_pool(self.pool)[0]

    @property
    def entity_id(self) -> str | None:
        return split_pool(self.pool)[1]

    @property
    def properties_text(self) -> str:
        return bytes(self.properties).decode()


class Held(NamedTuple):
    """An open hold and the id that the caller knows it by."""

    hold_id: str
    hold: Hold


decode_hold = msgspec.json.Decoder(Hold).decode


def beyond(held_nanos: int, final_nanos: int) -> int:
    """Return what was used beyond a hold, to be taken (or given back) anew: all of it, if the sign is another."""
    if held_nanos * final_nanos < 0:
        return final_nanos
    return 0 if abs(final_nanos) < abs(held_nanos) else final_nanos - held_nanos


def rows_held(holds: Mapping[str, Hold]) -> frozenset[str]:
    """Return the rows to which an open hold may have to give something back."""
    return frozenset(leg.row_id for hold in holds.values() for leg in hold.legs)


def due_with(holds: Mapping[str, Hold], due: int | None) -> int | None:
    """Return the earlier of an instant and the moment at which the first of these holds expires."""
    instants = [due, *(hold.expires_at for hold in holds.values())]
    return min((instant for instant in instants if instant is not None), default=None)


def expired_by(holds: Mapping[str, Hold], instant: int) -> list[Held]:
    """Return the holds that have expired by an instant, the first to expire first."""
    expired = [Held(hold_id, hold) for hold_id, hold in holds.items() if hold.expires_at <= instant]
    return sorted(expired, key=lambda held: (held.hold.expires_at, held.hold_id))
