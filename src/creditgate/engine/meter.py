"""check and track: the two questions that everything else is here for.

A call is resolved to pools (the feature's own rows, and the credit systems that price it) with exact needs, decided by
one script, and answered from its one reply.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from creditgate.balances.keys import Keys, decoded
from creditgate.balances.store import BalanceStore, Need, Reply
from creditgate.core.amounts import AmountOutOfRange, format_amount
from creditgate.core.catalog import Catalog, Feature, FeatureType, Pool
from creditgate.core.controls import GATE_PREFIX, property_digests
from creditgate.core.decisions import Decision, Mode, Moved, Status
from creditgate.core.holds import HOLD, Held, decode_hold
from creditgate.core.journal import GONE, Call, Entry, StreamId
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.history import History
from creditgate.engine.ids import OpIds
from creditgate.engine.keys import CallerKey, key_reused
from creditgate.engine.needs import needs_of
from creditgate.engine.writer import FORWARD_ROUNDS_MAX, CustomerWriter
from creditgate.errors import InvalidRequest, NotFound, Undecided
from creditgate.telemetry.metrics import Metrics


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One use of a feature, by its id or by the name of an event.

    `verb` is `track`, `check` for a check that sends an event, or `hold`; `properties` is a JSON object as text;
    `occurred_at` is the caller's time in Unix ms, for queries only. The journal keeps those of a batch, so a new field
    needs a default.
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


Send = Callable[[int, Call, Sequence[str], Sequence[Need]], Awaitable[Reply]]
"""How a call is sent: given `not_after`, the call, digests of its properties, and what it needs of each pool."""


def _at_will(not_after: int) -> int:
    return not_after


class Meter:
    """Answers for all customers of one environment."""

    def __init__(
        self,
        store: BalanceStore,
        keys: Keys,
        attempts: Attempts,
        writer: CustomerWriter,
        catalogs: Catalogs,
        history: History,
        op_ids: OpIds,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._attempts = attempts
        self._writer = writer
        self._catalogs = catalogs
        self._history = history
        self._op_ids = op_ids
        self._metrics = metrics or Metrics()

    async def check(
        self, *, customer_id: str, feature_id: str, required_nanos: int, properties: str = "{}"
    ) -> Decision:
        """Say whether the customer can afford so many units now; takes nothing. `properties` is JSON, as in Usage.

        Raises NotFound `feature_not_found` or `customer_not_found`, AmountOutOfRange, Undecided.
        """
        return await self._metrics.decided(
            "check", feature_id, self._check(customer_id, feature_id, required_nanos, _digests(properties))
        )

    async def _check(
        self, customer_id: str, feature_id: str, required_nanos: int, properties: list[str]
    ) -> Decision:
        catalog = await self._catalogs.having(lambda catalog: catalog.feature(feature_id))
        feature = catalog.feature(feature_id)
        needs = needs_of(catalog.pools(feature_id), required_nanos)
        for _ in range(FORWARD_ROUNDS_MAX):
            reply = await self._attempts.ask(
                lambda: self._store.check(customer_id=customer_id, properties=properties, pools=needs)
            )
            if reply.status is not Status.DUE:
                _raise_if_absent(reply, customer_id)
                return _checked(feature, needs, reply)
            await self._writer.forward(customer_id)
        raise Undecided("What fell due for this customer could not be brought up to date")

    async def track(
        self, usage: Usage, *, op_id: str | None = None, within: Callable[[int], int] = _at_will
    ) -> Decision:
        """Take what was used, or give back a negative value. In mode reject all or nothing: `allowed` says which.

        With an `op_id` the caller vouches that the call was not sent before under it; `within` bounds until when the
        call may take effect.

        Raises NotFound `feature_not_found` or `customer_not_found`, InvalidRequest, AmountOutOfRange, KeyReused,
        Undecided.
        """

        async def send(not_after: int, call: Call, properties: Sequence[str], needs: Sequence[Need]) -> Reply:
            return await self._store.track(
                not_after=within(not_after),
                customer_id=usage.customer_id,
                call=call,
                mode=usage.mode,
                properties=properties,
                pools=needs,
            )

        return await self.take(usage, send, op_id=op_id)

    async def take(self, usage: Usage, send: Send, *, op_id: str | None = None) -> Decision:
        """Take what was used by another script than track's. Raises as `track` does, and what `send` raises."""
        work = self._take(usage, send, op_id or self._op_ids.next())
        return await self._metrics.decided(usage.verb, usage.feature_id, work)

    async def _take(self, usage: Usage, send: Send, op_id: str) -> Decision:
        catalog, feature = await self.resolve(usage)
        if usage.verb == "check" and feature.type is FeatureType.BOOLEAN:
            raise InvalidRequest(f"Feature {feature.id} is on or off; it cannot be used up with send_event")
        needs = needs_of(catalog.pools(feature.id), usage.value_nanos)
        call = _call(usage, op_id, feature, catalog.version)
        properties = _digests(usage.properties)
        for _ in range(FORWARD_ROUNDS_MAX):
            reply = await self._attempts.write(
                self._keys.partition_of(usage.customer_id),
                call.op_id,
                lambda not_after: send(not_after, call, properties, needs),
            )
            if isinstance(reply, Applied):
                return await self._answer_again(usage, feature, needs, reply.stream_id, is_replay=False)
            if reply.status is not Status.DUE:
                return await self._tracked(usage, feature, needs, reply)
            await self._writer.forward(usage.customer_id)
        raise Undecided("What fell due for this customer could not be brought up to date")

    async def _tracked(self, usage: Usage, feature: Feature, needs: list[Need], reply: Reply) -> Decision:
        _raise_if_absent(reply, usage.customer_id)
        if reply.status is Status.KEY_REUSED:
            raise key_reused(usage.key)
        if reply.status is Status.OUT_OF_RANGE:
            raise AmountOutOfRange("value: the balance would leave the range of amounts")
        is_replay = reply.status is Status.REPLAYED
        if is_replay and reply.stream_id is not None:
            reply = await self._as_first(usage.customer_id, reply.stream_id, reply)
        return _decision(
            feature, needs, reply, allowed=reply.status is not Status.REFUSED, is_replay=is_replay
        )

    async def _answer_again(
        self, usage: Usage, feature: Feature, needs: list[Need], stream_id: StreamId, *, is_replay: bool
    ) -> Decision:
        """Answer for a call that took effect though its reply was lost: what it moved, and the balances as they are."""
        reply = await self._attempts.ask(
            lambda: self._store.check(customer_id=usage.customer_id, properties=(), pools=needs)
        )
        reply = await self._as_first(usage.customer_id, stream_id, reply)
        return _decision(feature, needs, reply, allowed=True, is_replay=is_replay)

    async def _as_first(self, customer_id: str, stream_id: StreamId, reply: Reply) -> Reply:
        """Return the reply with what the call moved and held when it took effect."""
        entry = await self._history.entry(self._keys.partition_of(customer_id), stream_id)
        return reply._replace(moved=moved_by(entry), held=held_by(entry)) if entry else reply

    async def resolve(self, usage: Usage) -> tuple[Catalog, Feature]:
        """Return the feature that is used, and the catalog that has it; raises NotFound and InvalidRequest."""
        name = usage.event_name
        if usage.feature_id is not None:
            feature_id = usage.feature_id
            catalog = await self._catalogs.having(lambda catalog: catalog.feature(feature_id))
            return catalog, catalog.feature(feature_id)
        catalog = await self._catalogs.having(lambda catalog: _features_of_event(catalog, name or ""))
        features = _features_of_event(catalog, name or "")
        if len(features) > 1:
            raise InvalidRequest(
                f"event_name: {name} counts for several features, which is not supported yet"
            )
        return catalog, features[0]


def refusal(decision: Decision, usage: Usage) -> InvalidRequest:
    """Return the error that tells a track which was refused."""
    amount = format_amount(usage.value_nanos)
    return InvalidRequest(
        f"Insufficient balance to deduct {amount} from feature {decision.feature_id}",
        code="insufficient_balance",
    )


def _call(usage: Usage, op_id: str, feature: Feature, catalog_version: int) -> Call:
    return Call(
        verb=usage.verb,
        op_id=op_id,
        catalog_version=catalog_version,
        key=usage.key.digest if usage.key else "",
        fingerprint=usage.key.fingerprint if usage.key else "",
        feature_id=feature.id,
        value_nanos=usage.value_nanos,
        occurred_at=usage.occurred_at,
        event_name=usage.event_name or "",
        properties=usage.properties,
    )


def _digests(properties: str) -> list[str]:
    return property_digests(msgspec.json.decode(properties)) if properties != "{}" else []


def _features_of_event(catalog: Catalog, event_name: str) -> tuple[Feature, ...]:
    features = catalog.features_of_event(event_name)
    if not features:
        raise NotFound(f"No features found for event name: {event_name}", code="invalid_request")
    return features


def moved_by(entry: Entry) -> tuple[Moved, ...]:
    """Return what rows gave and got in an entry."""
    return tuple(
        Moved(item.row_id, item.delta_nanos)
        for item in entry.items
        if item.row_id is not None
        and item.delta_nanos is not None
        and not item.row_id.startswith(GATE_PREFIX)
    )


def held_by(entry: Entry) -> Held | None:
    """Return the hold that an entry put, None if there is none."""
    for item in entry.items:
        if item.document_type == HOLD and item.document_id and item.document not in (None, GONE):
            return Held(decoded(item.document_id), decode_hold(item.document))
    return None


def _raise_if_absent(reply: Reply, customer_id: str) -> None:
    if reply.status is Status.ABSENT:
        raise NotFound(f"Customer {customer_id} not found", code="customer_not_found")
    if reply.status is Status.UPGRADE:
        raise Undecided("The record of this customer has a layout that this version does not know")


def _checked(feature: Feature, needs: list[Need], reply: Reply) -> Decision:
    allowed = reply.status is Status.OK
    if feature.type is FeatureType.BOOLEAN:
        allowed = any(flag.feature_id == feature.id for flag in reply.terms.flags)
    chosen = needs[reply.pool - 1] if reply.pool else None
    return _answer(feature, needs, chosen, reply, allowed=allowed, is_replay=False)


def _decision(
    feature: Feature,
    needs: list[Need],
    reply: Reply,
    *,
    allowed: bool,
    is_replay: bool,
) -> Decision:
    """The pool that answers is the first that gave; where none did, the last of those that the customer has."""
    gave = {row.feature_id for row in reply.terms.rows for part in reply.moved if part.row_id == row.id}
    owned = {row.feature_id for row in reply.terms.rows}
    chosen = next((need for need in needs if need.pool.feature_id in gave), None)
    if chosen is None:
        chosen = next((need for need in reversed(needs) if need.pool.feature_id in owned), None)
    return _answer(feature, needs, chosen, reply, allowed=allowed, is_replay=is_replay)


def _answer(
    feature: Feature,
    needs: list[Need],
    chosen: Need | None,
    reply: Reply,
    *,
    allowed: bool,
    is_replay: bool,
) -> Decision:
    required = chosen or needs[min(1, len(needs) - 1)]
    pools: tuple[Pool, ...] = tuple(need.pool for need in needs)
    return Decision(
        allowed=allowed,
        feature_id=feature.id,
        pools=pools,
        pool=chosen.pool if chosen else None,
        required_nanos=required.nanos,
        terms=reply.terms,
        balances=reply.balances,
        moved=reply.moved,
        is_replay=is_replay,
        held=reply.held,
    )
