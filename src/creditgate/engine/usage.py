"""One use of a feature, as the engine is asked for it, and what is worked out once for all times that it is."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from creditgate.balances.calls import Begun, Needs
from creditgate.balances.prepared import Prepared
from creditgate.balances.usage import Use
from creditgate.core.catalog import Catalog, Feature
from creditgate.core.decisions import Decision, Mode
from creditgate.engine.attempts import Start
from creditgate.engine.keys import CallerKey
from creditgate.errors import Undecided
from creditgate.telemetry.metrics import Histogram


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """One use of a feature by its id, or of all that count an event by its name.

    `verb` is `track`, `check` for a check that sends an event, or `hold`; `properties` is a JSON object as text;
    `occurred_at` is the caller's time in Unix ms, for queries only; without an `entity_id` it is for the customer. The
    journal keeps those of a batch, so a new field needs a default.

    Callers use the same again and again, so what follows from a use and a catalog alone is worked out once.
    """

    verb: str
    customer_id: str
    feature_id: str | None
    event_name: str | None
    value_nanos: int
    mode: Mode
    properties: str = "{}"
    occurred_at: int | None = None
    key: CallerKey | None = None
    entity_id: str | None = None

    @cached_property
    def derived(self) -> dict[str, Any]:
        """What was worked out from this use, by what it is."""
        return {}


class Meaning(msgspec.Struct):
    """What a use means by a catalog, and what came of it when it was asked for before.

    `prepared` is the command that asks, `repeated` what it was answered.
    """

    prepared: Prepared | None = None
    repeated: "Repeated | None" = None


class Taking(Meaning, kw_only=True):
    """Each feature that is used, with what it needs; the call has no op id yet.

    The first carries the caller's key. `properties` are the digests of the use's own.
    """

    catalog: Catalog
    uses: tuple[Use, ...]
    properties: Sequence[str]
    partition: str


class Asking(Meaning, kw_only=True):
    """What a question means by a catalog."""

    catalog: Catalog
    feature: Feature
    needs: Needs
    properties: Sequence[str]


class Sent(NamedTuple):
    """A use that was sent, or was to be, and the first and last `not_after` that it was sent with; 0: never."""

    op_id: str
    usage: Usage
    first_not_after: int
    last_not_after: int


class UsageUndecided(Undecided):
    """It is not known whether this use took effect; if it did not, it will not after its last `not_after`."""

    def __init__(self, message: str, sent: Sent) -> None:
        super().__init__(message)
        self.sent = sent


M = TypeVar("M", Taking, Asking)


class Asked(msgspec.Struct, Generic[M], frozen=True):
    """A use that was sent before anybody waits for its answer: the first attempt, which mostly is the only one.

    `means` is what it was sent for.
    """

    usage: Usage
    means: M
    start: Start
    begun: Begun


class Repeated(msgspec.Struct):
    """What a use was answered once, for all replies that say the same but for amounts (`balances.usage.said_in`).

    `row_ids` are the rows whose amounts replies have first, `gave` the features of those whose changes come then.
    `took` counts how long such decisions took. `form` is for who puts the answer into words.
    """

    said: tuple[Any, ...]
    decision: Decision
    took: Histogram
    row_ids: tuple[str, ...]
    gave: tuple[str, ...]
    form: Any = None
