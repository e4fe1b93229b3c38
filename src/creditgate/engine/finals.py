"""How holds end: what settle.lua is told of each, by a caller who finalizes it or because it has expired."""

from collections.abc import Iterable

import msgspec

from creditgate.balances.holds import FINALS_MAX, Final
from creditgate.balances.store import Need
from creditgate.core.amounts import NANOS, AmountOutOfRange
from creditgate.core.catalog import Catalog, Pool
from creditgate.core.controls import property_digests
from creditgate.core.holds import Held, beyond
from creditgate.core.journal import Call
from creditgate.engine.ids import OpIds
from creditgate.engine.keys import CallerKey
from creditgate.engine.needs import needs_of
from creditgate.errors import NotFound

MOVES_MAX = FINALS_MAX * 64  # of rows in one script: well below what `unpack` takes in Lua
EXPIRE = "expire"  # the verb of a hold that ended by itself


def final_of(
    held: Held,
    final_nanos: int,
    *,
    verb: str,
    op_id: str,
    catalog: Catalog,
    properties: str | None = None,
    occurred_at: int | None = None,
    key: CallerKey | None = None,
) -> Final:
    """Return how a hold is settled at so many units. It is an event unless that is what was held.

    Raises AmountOutOfRange if what was used beyond the hold costs too much.
    """
    hold = held.hold
    more = beyond(hold.value_nanos, final_nanos)
    difference = final_nanos - hold.value_nanos
    call = Call(
        verb=verb,
        op_id=op_id,
        catalog_version=catalog.version,
        key=key.digest if key else "",
        fingerprint=key.fingerprint if key else "",
        feature_id=hold.feature_id,
        entity_id=hold.entity_id or "",
        value_nanos=difference if difference else None,
        occurred_at=occurred_at,
        properties=hold.properties_text if properties is None else properties,
    )
    needs = needs_of(_pools(catalog, hold.feature_id), more, hold.entity_id)
    digests = property_digests(msgspec.json.decode(call.properties))
    return Final(held.hold_id, hold.op_id, final_nanos, call, digests, needs)


def finals_of_expired(
    expired: Iterable[Held], catalog: Catalog, op_ids: OpIds, *, rows_count: int
) -> list[Final]:
    """Return how holds are settled that have expired: at the progress that was reported of them.

    Of a customer with many rows fewer at a time, since each hold may move all of them.
    """
    finals, most = [], min(FINALS_MAX, MOVES_MAX // max(1, rows_count))
    for held in list(expired)[: max(1, most)]:
        at = held.hold.expires_at
        try:
            used = held.hold.used_nanos
            final = final_of(held, used, verb=EXPIRE, op_id=op_ids.next(), catalog=catalog, occurred_at=at)
        except AmountOutOfRange:
            final = as_held(held, catalog, op_ids)
        finals.append(final)
    return finals


def as_held(held: Held, catalog: Catalog, op_ids: OpIds) -> Final:
    """Return how a hold is settled that can be settled in no other way: nothing moves, so it cannot fail."""
    return final_of(held, held.hold.value_nanos, verb=EXPIRE, op_id=op_ids.next(), catalog=catalog)


def nothing_of(hold_id: str, *, verb: str, op_id: str, key: CallerKey | None) -> Final:
    """Return a final that settles nothing, since no hold has this op id: it only asks about its key."""
    call = Call(
        verb=verb,
        op_id=op_id,
        catalog_version=0,
        key=key.digest if key else "",
        fingerprint=key.fingerprint if key else "",
    )
    return Final(hold_id, "-", 0, call, (), [Need(Pool("-", NANOS), 0)])


def _pools(catalog: Catalog, feature_id: str) -> tuple[Pool, ...]:
    """A feature may have left the catalog while units of it were held."""
    try:
        return catalog.pools(feature_id)
    except NotFound:
        return (Pool(feature_id, NANOS),)
