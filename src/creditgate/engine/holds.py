"""Holds: units that are taken before they are used, and put right afterwards. `lock` and `finalize` on the wire."""

from collections.abc import Sequence

from creditgate.balances.holds import Final
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore, Reply, Use
from creditgate.core.amounts import AmountOutOfRange
from creditgate.core.catalog import Feature, FeatureType
from creditgate.core.decisions import Decision, Status
from creditgate.core.holds import HOLD_LIMITS, Held
from creditgate.core.journal import Call
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.claims import Claim, LockTaken
from creditgate.engine.finals import final_of, nothing_of
from creditgate.engine.ids import OpIds, mint
from creditgate.engine.keys import CallerKey, key_reused
from creditgate.engine.meter import Meter
from creditgate.engine.usage import Usage
from creditgate.engine.writer import FORWARD_ROUNDS_MAX, CustomerWriter
from creditgate.errors import (
    Conflict,
    CreditgateError,
    InvalidInputs,
    InvalidRequest,
    NotFound,
    Unavailable,
    Undecided,
)
from creditgate.telemetry.metrics import Metrics

_FINALIZE = "balances.finalize"
_PROGRESS = "balances.progress"


class Holds:
    """The holds of all customers of one environment."""

    def __init__(
        self,
        store: BalanceStore,
        keys: Keys,
        attempts: Attempts,
        writer: CustomerWriter,
        catalogs: Catalogs,
        meter: Meter,
        op_ids: OpIds,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._attempts = attempts
        self._writer = writer
        self._catalogs = catalogs
        self._meter = meter
        self._op_ids = op_ids
        self._metrics = metrics or Metrics()

    async def hold(self, usage: Usage, *, hold_id: str | None, expires_at: int | None) -> Decision:
        """Hold what a track would take, until `expires_at` or for an hour; `allowed` says whether it is held.

        Without an id one is made, which the decision names. Raises as `Meter.track` does, Conflict
        `lock_already_exists` or `too_many_holds`, InvalidInputs for a time in the past or more than a day ahead.
        """
        _check_can_be_held(await self._meter.resolve(usage))
        hold_id = hold_id or mint("lock")
        claim = Claim(self._store, self._attempts, hold_id, usage.customer_id, self._op_ids.next())
        await claim.take()

        async def send(not_after: int, uses: Sequence[Use], properties: Sequence[str]) -> Reply:
            reply = await self._store.hold(
                not_after=not_after,
                customer_id=usage.customer_id,
                call=uses[0].call,
                mode=usage.mode,
                hold_id=hold_id,
                expires_at=expires_at,
                limits=HOLD_LIMITS,
                properties=properties,
                pools=uses[0].needs,
            )
            _raise_if_not_held(reply)
            return reply

        try:
            decision = await self._meter.take(usage, send)
        except (LockTaken, Undecided, Unavailable):  # there is a hold of that id, or there may be
            raise
        except CreditgateError:
            await claim.give_back()
            raise
        if decision.allowed and (decision.held is None or decision.held.hold_id == hold_id):
            await claim.keep()
        else:
            await claim.give_back()
        return decision

    async def finalize(
        self,
        hold_id: str,
        final_nanos: int | None,
        *,
        properties: str | None = None,
        key: CallerKey | None = None,
    ) -> bool:
        """Settle a hold at so many units: 0 releases it, None keeps what was held. Returns whether it was a replay.

        Raises InvalidRequest if there is no such hold (any more), Conflict if somebody else has settled it just now,
        AmountOutOfRange, KeyReused, Undecided.
        """
        customer_id = await self._owner(hold_id)
        for _ in range(FORWARD_ROUNDS_MAX):
            held = await self._open(customer_id, hold_id)
            if held is None and key is None:
                raise _not_found(hold_id)
            final = await self._final(held, hold_id, final_nanos, properties, key)
            status = await self._settle(customer_id, final)
            match status:
                case Status.OK | Status.REPLAYED:
                    return status is Status.REPLAYED
                case Status.KEY_REUSED:
                    raise key_reused(key)
                case Status.OUT_OF_RANGE:
                    raise AmountOutOfRange("override_value: the balance would leave the range of amounts")
                case Status.MOVED_ON if held is not None:
                    message = f"Lock {hold_id} is being finalized by another request"
                    raise Conflict(message, code="invalid_request")
                case Status.DUE:
                    await self._writer.forward(customer_id)
                case _:
                    raise _not_found(hold_id)
        raise Undecided("What fell due for this customer could not be brought up to date")

    async def progress(self, hold_id: str, used_nanos: int) -> Held:
        """Remember that so many units were used so far, the most that was ever said; returns the hold.

        If it expires, it is settled at them. Raises InvalidRequest if there is no such hold, Undecided.
        """
        customer_id = await self._owner(hold_id)
        call = Call(verb=_PROGRESS, op_id=self._op_ids.next(), catalog_version=self._catalogs.current.version)
        for _ in range(FORWARD_ROUNDS_MAX):
            reply = await self._attempts.write(
                self._keys.partition_of(customer_id),
                call.op_id,
                lambda not_after: self._store.progress(
                    not_after=not_after, customer_id=customer_id, call=call, hold_id=hold_id, used=used_nanos
                ),
            )
            held = await self._open(customer_id, hold_id) if isinstance(reply, Applied) else reply.held
            if held is not None:
                return held
            if isinstance(reply, Applied) or reply.status not in (Status.DUE, Status.REFUSED):
                raise _not_found(hold_id)
            if reply.status is Status.REFUSED:
                raise InvalidRequest(f"Lock {hold_id} gave credit in advance; nothing can be used of it")
            await self._writer.forward(customer_id)
        raise Undecided("What fell due for this customer could not be brought up to date")

    async def _owner(self, hold_id: str) -> str:
        pointer = await self._attempts.ask(lambda: self._store.pointer(hold_id=hold_id))
        if pointer is None:
            raise _not_found(hold_id)
        return pointer.customer_id

    async def _open(self, customer_id: str, hold_id: str) -> Held | None:
        hold = await self._attempts.ask(
            lambda: self._store.open_hold(customer_id=customer_id, hold_id=hold_id)
        )
        return Held(hold_id, hold) if hold is not None else None

    async def _final(
        self,
        held: Held | None,
        hold_id: str,
        final_nanos: int | None,
        properties: str | None,
        key: CallerKey | None,
    ) -> Final:
        """Return what is sent; where the hold is gone, it only asks whether the key has settled it before."""
        op_id = self._op_ids.next()
        if held is None:
            return nothing_of(hold_id, verb=_FINALIZE, op_id=op_id, key=key)
        feature_id = held.hold.feature_id
        try:
            catalog = await self._catalogs.having(lambda catalog: catalog.feature(feature_id))
        except NotFound:  # it has left the catalog since
            catalog = self._catalogs.current
        wanted = held.hold.value_nanos if final_nanos is None else final_nanos
        return final_of(
            held, wanted, verb=_FINALIZE, op_id=op_id, catalog=catalog, properties=properties, key=key
        )

    async def _settle(self, customer_id: str, final: Final) -> Status:
        reply = await self._attempts.write(
            self._keys.partition_of(customer_id),
            final.call.op_id,
            lambda not_after: self._store.settle(
                not_after=not_after, customer_id=customer_id, expected_sequence=None, finals=[final]
            ),
        )
        if isinstance(reply, Applied):
            return Status.OK
        if reply.status is Status.OK:
            outcome = "confirmed" if final.final_nanos else "released"
            self._metrics.settled(outcome, 1, reply.terms, reply.moved)
        if reply.status is Status.UPGRADE:
            raise Undecided("The record of this customer has a layout that this version does not know")
        return reply.status


def _check_can_be_held(features: Sequence[Feature]) -> None:
    if len(features) > 1:
        raise InvalidRequest("event_name: counts for several features, which cannot be locked together")
    feature = features[0]
    if feature.type is FeatureType.BOOLEAN:
        raise InvalidRequest(f"Feature {feature.id} is on or off; it cannot be locked")
    if not feature.consumable:
        raise InvalidRequest(f"Feature {feature.id} is not consumable; it cannot be locked")


def _raise_if_not_held(reply: Reply) -> None:
    if reply.status is Status.EXISTS:
        raise LockTaken()
    if reply.status is Status.MISTIMED:
        raise InvalidInputs("lock.expires_at: must be in the future, at most 24 hours ahead")
    if reply.status is Status.TOO_MANY:
        message = f"A customer can have at most {HOLD_LIMITS.holds_max} open locks"
        raise Conflict(message, code="too_many_holds")


def _not_found(hold_id: str) -> InvalidRequest:
    return InvalidRequest(f"Lock not found for ID: {hold_id}")
