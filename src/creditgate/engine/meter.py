"""check and track: the two questions that everything else is here for.

A call is resolved to pools (the feature's own rows, and the credit systems that price it) with exact needs, decided by
one script, and answered from its one reply. An event may count for several features: each is a use with its own pools,
and one script takes them all.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from creditgate.balances.calls import Needs
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore, Reply, Use
from creditgate.core.amounts import AmountOutOfRange, format_amount
from creditgate.core.catalog import Catalog, Feature
from creditgate.core.decisions import Decision, Status
from creditgate.core.journal import Entry, StreamId
from creditgate.engine.at_once import Asked, AtOnce
from creditgate.engine.attempts import Applied, Attempts, First
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.decisions import checked, decision_of, each_pool, held_by, moved_by
from creditgate.engine.history import History
from creditgate.engine.ids import OpIds
from creditgate.engine.keys import key_reused
from creditgate.engine.meanings import Asking, Taking, features_used
from creditgate.engine.usage import Sent, Usage, UsageUndecided
from creditgate.engine.writer import FORWARD_ROUNDS_MAX, CustomerWriter
from creditgate.errors import InsufficientBalance, NotFound, Unavailable, Undecided
from creditgate.telemetry.metrics import Metrics

Send = Callable[[int, Sequence[Use], Sequence[str]], Awaitable[Reply]]
"""How a call is sent: given `not_after`, what it uses (one feature, or several of an event), digests of properties."""


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
        self.at_once = AtOnce(store, attempts, catalogs, op_ids, self._metrics)

    async def check(self, usage: Usage, asked: Asked[Asking] | None = None) -> Decision:
        """Say whether a customer or one of its entities can afford a use of a feature now; takes nothing.

        `asked`: it was sent, and goes on from there. Raises NotFound `feature_not_found`, `customer_not_found` or
        `entity_not_found`, AmountOutOfRange, Undecided.
        """
        began = perf_counter() if asked is None else asked.begun.call.began
        first = None if asked is None else First(asked.start, began, self._store.check_begun(asked.begun))
        try:
            asking = await self._asking(usage) if asked is None else asked.means
            reply = await self._ask(usage.customer_id, asking.properties, asking.needs, first)
            _raise_if_absent(reply, usage.customer_id, usage.entity_id)
            decision = checked(asking.feature, asking.needs, reply)
            self._metrics.decided("check", decision, perf_counter() - began)
            return decision
        except Exception as error:
            self._metrics.not_decided("check", usage.feature_id, perf_counter() - began, error)
            raise

    async def _ask(
        self, customer_id: str, properties: Sequence[str], pools: Needs, first: First[Reply] | None = None
    ) -> Reply:
        """Return what check.lua says of the customer, who is stepped forward for it; raises Undecided."""
        for _ in range(FORWARD_ROUNDS_MAX):
            reply = await self._attempts.ask(
                lambda: self._store.check(customer_id=customer_id, properties=properties, pools=pools),
                first=first,
            )
            if reply.status is not Status.DUE:
                return reply
            first = None
            await self._writer.forward(customer_id)
        raise _not_up_to_date()

    def track(
        self,
        usage: Usage,
        *,
        op_id: str | None = None,
        within: Callable[[int], int] = _at_will,
        asked: Asked[Taking] | None = None,
    ) -> Coroutine[Any, Any, Decision]:
        """Take what was used, or give back a negative value. In mode reject all or nothing: `allowed` says which.

        With an `op_id` the caller vouches that the call was not sent before under it; `within` bounds until when the
        call may take effect. `asked`: it was sent, and goes on from there.

        Raises NotFound `feature_not_found`, `customer_not_found` or `entity_not_found`, InvalidRequest,
        AmountOutOfRange, KeyReused, Undecided.
        """

        def send(not_after: int, uses: Sequence[Use], properties: Sequence[str]) -> Awaitable[Reply]:
            if len(uses) > 1:
                return self._store.track_event(
                    not_after=within(not_after),
                    customer_id=usage.customer_id,
                    mode=usage.mode,
                    properties=properties,
                    uses=uses,
                )
            return self._store.track(
                not_after=within(not_after),
                customer_id=usage.customer_id,
                call=uses[0].call,
                mode=usage.mode,
                properties=properties,
                pools=uses[0].needs,
            )

        return self.take(usage, send, op_id=op_id, asked=asked)

    async def take(
        self, usage: Usage, send: Send, *, op_id: str | None = None, asked: Asked[Taking] | None = None
    ) -> Decision:
        """Take what was used by another script than track's. Raises as `track` does, and what `send` raises."""
        first: First[Reply] | None = None
        if asked is None:
            began = perf_counter()
            op_id = op_id or self._op_ids.next()
            earliest = latest = 0
        else:
            began, op_id = asked.begun.call.began, asked.begun.call.op_id
            earliest = latest = asked.start.not_after
            first = First(asked.start, began, self._store.track_begun(asked.begun))
        is_known = is_taken = False
        partition = self._keys.partition_of(usage.customer_id)

        def send_once(not_after: int) -> Awaitable[Reply]:
            nonlocal earliest, latest
            earliest, latest = earliest or not_after, not_after
            return send(not_after, uses, properties)

        try:
            if asked is None:
                taking = await self._taking(usage)
            else:
                taking = asked.means if usage.key is None else asked.means.keyed(usage.key)
            properties = taking.properties
            uses = [Use(use.call.of(op_id), use.needs) for use in taking.uses]
            is_known = True
            decision = None
            for _ in range(FORWARD_ROUNDS_MAX):
                reply = await self._attempts.write(partition, op_id, send_once, first)
                first = None
                is_taken = not isinstance(reply, Applied) and reply.status is Status.REPLAYED
                if isinstance(reply, Applied):  # should Redis lose it now, its op id tells the spool
                    decision = await self._answer_again(usage, uses, reply.stream_id)
                elif reply.status is Status.OK:
                    decision = decision_of(usage.verb, uses, reply, allowed=True, is_replay=False)
                elif reply.status is not Status.DUE:
                    decision = await self._tracked(usage, uses, reply)
                if decision is not None:
                    self._metrics.decided(usage.verb, decision, perf_counter() - began)
                    return decision
                await self._writer.forward(usage.customer_id)
            raise _not_up_to_date()
        except Exception as error:
            self._metrics.not_decided(usage.verb, usage.feature_id, perf_counter() - began, error)
            if is_known and isinstance(error, Undecided | Unavailable):
                sent = Sent(op_id, usage, earliest, latest, is_taken)
                raise UsageUndecided(error.message, sent) from error
            raise

    async def _tracked(self, usage: Usage, uses: list[Use], reply: Reply) -> Decision:
        _raise_if_absent(reply, usage.customer_id, usage.entity_id)
        if reply.status is Status.KEY_REUSED:
            raise key_reused(usage.key)
        if reply.status is Status.OUT_OF_RANGE:
            raise AmountOutOfRange("value: the balance would leave the range of amounts")
        is_replay = reply.status is Status.REPLAYED
        if is_replay and reply.stream_id is not None:
            key = usage.key.digest if usage.key else ""
            reply = await self._as_first(
                usage.customer_id, reply.stream_id, reply, lambda entry: entry.op_id_of(key)
            )
        allowed = reply.status is not Status.REFUSED
        return decision_of(usage.verb, uses, reply, allowed=allowed, is_replay=is_replay)

    async def _answer_again(self, usage: Usage, uses: list[Use], stream_id: StreamId) -> Decision:
        """Answer for a call that took effect though its reply was lost: what it moved, and the balances as they are."""
        op_id = uses[0].call.op_id
        reply = await self._ask(usage.customer_id, (), each_pool(uses))
        reply = await self._as_first(usage.customer_id, stream_id, reply, lambda _: op_id)
        return decision_of(usage.verb, uses, reply, allowed=True, is_replay=False)

    async def _as_first(
        self, customer_id: str, stream_id: StreamId, reply: Reply, op_id_in: Callable[[Entry], str | None]
    ) -> Reply:
        """Return the reply with what the call moved and held when it took effect; others may be in its entry."""
        entry = await self._history.entry(self._keys.partition_of(customer_id), stream_id)
        op_id = op_id_in(entry) if entry else None
        if entry is None or op_id is None:
            return reply
        items = list(entry.items_of(op_id))
        return msgspec.structs.replace(reply, moved=moved_by(items), held=held_by(items))

    async def resolve(self, usage: Usage) -> tuple[Feature, ...]:
        """Return the features that are used, by a catalog that has them; raises NotFound and InvalidRequest."""
        return features_used(usage, await self._catalog_for(usage))

    async def _asking(self, usage: Usage) -> Asking:
        return Asking.of(usage, await self._catalog_for(usage))

    async def _taking(self, usage: Usage) -> Taking:
        return Taking.of(usage, await self._catalog_for(usage))

    async def _catalog_for(self, usage: Usage) -> Catalog:
        """Return a catalog that has what is used, as it was last read or read again; raises as `features_used`."""
        return await self._catalogs.having(partial(features_used, usage))


def refusal(decision: Decision, usage: Usage) -> InsufficientBalance:
    """Return the error that tells a track which was refused."""
    amount = format_amount(usage.value_nanos)
    return InsufficientBalance(f"Insufficient balance to deduct {amount} from feature {decision.feature_id}")


def _not_up_to_date() -> Undecided:
    return Undecided("What fell due for this customer could not be brought up to date")


def _raise_if_absent(reply: Reply, customer_id: str, entity_id: str | None) -> None:
    if reply.status is Status.ABSENT:
        raise NotFound(f"Customer {customer_id} not found", code="customer_not_found")
    if reply.status is Status.NO_ENTITY:
        raise NotFound(f"Entity {entity_id} not found", code="entity_not_found")
    if reply.status is Status.UPGRADE:
        raise Undecided("The record of this customer has a layout that this version does not know")
