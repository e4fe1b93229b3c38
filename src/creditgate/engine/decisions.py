"""What a script's reply means for the caller: the decision, and what of it the journal still knows."""

from collections import Counter
from collections.abc import Iterable, Sequence

from creditgate.balances.keys import decoded
from creditgate.balances.store import Need, Needs, Reply, Use
from creditgate.core.catalog import Feature, FeatureType
from creditgate.core.controls import GATE_PREFIX
from creditgate.core.customers import Terms
from creditgate.core.decisions import Decision, Moved, Status
from creditgate.core.holds import HOLD, Held, decode_hold
from creditgate.core.journal import GONE, Item


def checked(feature: Feature, needs: Needs, reply: Reply) -> Decision:
    """Return the decision of a check."""
    allowed = reply.status is Status.OK
    if feature.type is FeatureType.BOOLEAN:
        allowed = reply.terms.flag(feature.id, needs[0].entity_id) is not None
    chosen = needs[reply.pool - 1] if reply.pool else None
    return _answer((feature.id,), needs, chosen, reply, allowed=allowed, is_replay=False)


def decision_of(verb: str, uses: Sequence[Use], reply: Reply, *, allowed: bool, is_replay: bool) -> Decision:
    """Return the decision of what took or gave back."""
    if len(uses) == 1:
        use = uses[0]
        chosen = _answering(verb, use.needs, reply)
        return _answer((use.call.feature_id,), use.needs, chosen, reply, allowed=allowed, is_replay=is_replay)
    feature_ids = tuple(use.call.feature_id for use in uses)
    return _answer(feature_ids, each_pool(uses), None, reply, allowed=allowed, is_replay=is_replay)


def _answering(verb: str, needs: Needs, reply: Reply) -> Need | None:
    """Return what is needed of the pool that answers for a use, None where the customer has none.

    It is the first that gave; but where a check took from the own feature and from credits, the credits, since the own
    feature could not pay for it. Where none gave, it is the one that would have had to.
    """
    entity_id = needs[0].entity_id
    owners = _owners(reply.terms, entity_id)
    if len(reply.moved) == 1:
        gave_id = owners.get(reply.moved[0].row_id)
        for need in needs:
            if need.pool.feature_id == gave_id:
                return need
    gave = {owners[part.row_id] for part in reply.moved if part.row_id in owners}
    givers = [need for need in needs if need.pool.feature_id in gave]
    if verb != "track" and len(givers) > 1 and givers[0] is needs[0]:
        return givers[1]
    if givers:
        return givers[0]
    owned = [need for need in needs if need.pool.feature_id in owners.values()]
    if needs[0].nanos > 0 and len(owned) > 1 and owned[0] is needs[0]:
        return owned[1]
    return owned[0] if owned else None


def _owners(terms: Terms, entity_id: str | None) -> dict[str, str]:
    """Return the feature of each row that calls for this entity draw on."""
    owners: dict[str, str] | None = terms.derived.get((_owners, entity_id))
    if owners is None:
        owners = {row.id: row.feature_id for row in terms.rows if row.gives_to(entity_id)}
        terms.derive((_owners, entity_id), owners)
    return owners


def each_pool(uses: Iterable[Use]) -> Needs:
    """Return every pool once; what is needed of one that is there for several features is that of the first."""
    found: dict[str, Need] = {}
    for use in uses:
        for need in use.needs:
            found.setdefault(need.pool.feature_id, need)
    return Needs(found.values())


def _each_row(moved: tuple[Moved, ...]) -> tuple[Moved, ...]:
    """Return every row that moved once, with all that it gave or got."""
    if len(moved) < 2:
        return moved
    sums: Counter[str] = Counter()
    for part in moved:
        sums[part.row_id] += part.delta_nanos
    return tuple(Moved(row_id, delta_nanos) for row_id, delta_nanos in sums.items())


def _answer(
    feature_ids: tuple[str, ...],
    needs: Needs,
    chosen: Need | None,
    reply: Reply,
    *,
    allowed: bool,
    is_replay: bool,
) -> Decision:
    required = chosen or needs[min(1, len(needs) - 1)]
    return Decision(
        allowed=allowed,
        feature_id=feature_ids[0],
        pools=needs.pools,
        pool=chosen.pool if chosen else None,
        required_nanos=required.nanos,
        terms=reply.terms,
        balances=reply.balances,
        moved=_each_row(reply.moved),
        is_replay=is_replay,
        held=reply.held,
        also=feature_ids[1:],
        entity_id=needs[0].entity_id,
    )


def moved_by(items: Iterable[Item]) -> tuple[Moved, ...]:
    """Return what rows gave and got in items of an entry, each time they did."""
    return tuple(
        Moved(item.row_id, item.delta_nanos)
        for item in items
        if item.row_id is not None
        and item.delta_nanos is not None
        and not item.row_id.startswith(GATE_PREFIX)
    )


def held_by(items: Iterable[Item]) -> Held | None:
    """Return the hold that is put in items of an entry, None if there is none."""
    for item in items:
        if item.document_type == HOLD and item.document_id and item.document not in (None, GONE):
            return Held(decoded(item.document_id), decode_hold(item.document))
    return None
