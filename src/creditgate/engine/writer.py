"""Changing a customer: read the record, step it forward if something is due, work the change out, apply it at once.

The change holds only for the record that was read. If that has moved on meanwhile, it is read and worked out again.
What fell due is stepped over in the order of time, however long nobody was there: at one instant, holds expire before
plans end and rows start again.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from creditgate.balances.clock import RedisClock
from creditgate.balances.holds import Final
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore, Written
from creditgate.core.amounts import AmountOutOfRange
from creditgate.core.catalog import Catalog
from creditgate.core.changes import Change, next_due, profile_change
from creditgate.core.customers import Record
from creditgate.core.decisions import Status
from creditgate.core.forward import forward_change, up_to_next_plan
from creditgate.core.holds import Held, expired_by
from creditgate.core.journal import Call
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.finals import as_held, finals_of_expired
from creditgate.engine.ids import OpIds, mint
from creditgate.engine.keys import NEVER, CallerKey, key_reused
from creditgate.engine.stepping import in_task
from creditgate.errors import NotFound, Undecided
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

FORWARD_ROUNDS_MAX = 12  # how often a call is asked again because something fell due meanwhile
# Steps in a row, each up to the next end or start of a plan, or to the next holds that expire; the next call goes on.
STEPS_MAX = 200
CHANGE_ROUNDS_MAX = 32  # rounds lost to other calls for the same customer before we give up
CLOCK_SKEW_MAX_MS = 60_000  # between Redis's clock and ours, while customers are stepped forward

log = logger(__name__)


class Outcome(NamedTuple):
    """The record that the change was worked out from; `is_replay` says that the caller's key had done it before."""

    record: Record
    is_replay: bool


class CustomerWriter:
    """Every change of a customer but `track` goes through here."""

    def __init__(
        self,
        store: BalanceStore,
        keys: Keys,
        clock: RedisClock,
        attempts: Attempts,
        catalogs: Catalogs,
        op_ids: OpIds,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._attempts = attempts
        self._catalogs = catalogs
        self._op_ids = op_ids
        self._metrics = metrics or Metrics()

    async def read(self, customer_id: str) -> Record | None:
        """Return the customer's record with nothing overdue in it, None if there is no such customer."""
        for _ in range(STEPS_MAX + 1):
            record = await self._attempts.ask(
                lambda: self._store.read(customer_id=customer_id), none_is_absent=True
            )
            if record is None or not record.is_due:
                return record
            await self._step(record)
        raise Undecided("What fell due for this customer could not be brought up to date")

    async def forward(self, customer_id: str) -> None:
        """Step the customer over what fell due; nothing happens if nothing is due, or somebody else did it."""
        await in_task()
        await self.read(customer_id)

    async def change(
        self,
        customer_id: str,
        work_out: Callable[[Record], Change | None],
        *,
        verb: str,
        catalog_version: int = 0,
        key: CallerKey | None = None,
        clock: int | None = None,
    ) -> Outcome:
        """Apply what `work_out` makes of the record; None changes nothing. `clock` pins the customer's clock.

        With a key, a call that changes nothing is remembered too, so that its retry changes nothing either.
        Raises NotFound `customer_not_found`, KeyReused, Undecided, and whatever `work_out` raises.
        """
        for _ in range(CHANGE_ROUNDS_MAX):
            record = await self.read(customer_id)
            if record is None:
                raise _not_found(customer_id)
            change = work_out(record)
            if change is None and key is None:
                return Outcome(record, is_replay=False)
            change = change or profile_change(record, record.customer)
            sequence = record.sequence if change.is_exact else None
            status = await self._apply(
                customer_id, change, record.uid, record.shape, sequence, verb, catalog_version, key, clock
            )
            if status in (Status.OK, Status.REPLAYED):
                return Outcome(record, is_replay=status is Status.REPLAYED)
        raise Undecided("The customer is being changed by too many others at once; nothing was changed")

    async def create(
        self, customer_id: str, change: Change, *, verb: str = "create", catalog_version: int
    ) -> bool:
        """Create the customer; False if somebody else was first."""
        return (
            await self._apply(customer_id, change, mint("uid"), 0, None, verb, catalog_version, None, None)
            is Status.OK
        )

    async def delete(self, customer_id: str, *, verb: str, key: CallerKey | None) -> bool:
        """Remove the customer, once what fell due is done; returns whether the caller's key had done it before.

        Raises NotFound `customer_not_found`, KeyReused, Undecided.
        """
        for _ in range(FORWARD_ROUNDS_MAX + 1):
            status = await self._delete(customer_id, self._call(verb, 0, key), key)
            if status in (Status.OK, Status.REPLAYED):
                return status is Status.REPLAYED
            if status is Status.ABSENT:
                raise _not_found(customer_id)
            await self.forward(customer_id)
        raise Undecided(
            "What fell due for this customer could not be brought up to date; nothing was deleted"
        )

    async def is_replay(self, customer_id: str, verb: str, key: CallerKey | None) -> bool:
        """Say whether the key was used for this very call; raises KeyReused if it was used for another one.

        For calls that would otherwise be refused because they have been done.
        """
        if key is None:
            return False
        status = await self._apply(customer_id, Change(due=None), "-", NEVER, None, verb, 0, key, None)
        return status is Status.REPLAYED

    async def _apply(
        self,
        customer_id: str,
        change: Change,
        uid: str,
        shape: int,
        sequence: int | None,
        verb: str,
        catalog_version: int,
        key: CallerKey | None,
        clock: int | None,
    ) -> Status:
        call = self._call(verb, catalog_version, key)
        written = await self._attempts.write(
            self._keys.partition_of(customer_id),
            call.op_id,
            lambda not_after: self._store.change(
                not_after=not_after,
                customer_id=customer_id,
                call=call,
                uid=uid,
                expected_shape=shape,
                expected_sequence=sequence,
                clock=clock,
                change=change,
            ),
        )
        return _status_of(written, key)

    async def _delete(self, customer_id: str, call: Call, key: CallerKey | None) -> Status:
        written = await self._attempts.write(
            self._keys.partition_of(customer_id),
            call.op_id,
            lambda not_after: self._store.delete(not_after=not_after, customer_id=customer_id, call=call),
        )
        return _status_of(written, key)

    async def _step(self, record: Record) -> None:
        """Take the first step of what fell due: the holds that expired before anything else, or all up to the next."""
        if record.clock is None:
            await self._check_clocks()
        due = next_due(record.customer, record.terms)
        expired = expired_by(record.holds, record.now)
        first = [held for held in expired if due is None or held.hold.expires_at <= due]
        if first:
            await self._expire(record, first)
        elif due is None or due > record.now:
            await self._forward(record, self._catalogs.current, Change(due=due))  # it was that of a hold
        else:
            until = expired[0].hold.expires_at - 1 if expired else record.now
            record = up_to_next_plan(replace(record, now=until))
            catalog = await self._catalog_for(record)
            await self._forward(record, catalog, forward_change(record, catalog, mint))

    async def _forward(self, record: Record, catalog: Catalog, change: Change) -> None:
        customer_id = record.customer.id
        call = self._call("forward", catalog.version, None)
        written = await self._attempts.write(
            self._keys.partition_of(customer_id),
            call.op_id,
            lambda not_after: self._store.forward(
                not_after=not_after,
                customer_id=customer_id,
                call=call,
                uid=record.uid,
                expected_sequence=record.sequence,
                change=change,
            ),
        )
        self._metrics.forward_steps += isinstance(written, Applied) or written.status is Status.OK

    async def _expire(self, record: Record, expired: Sequence[Held]) -> None:
        """Settle holds that have expired. One that would leave the range of amounts stays charged as it was held."""
        catalog = self._catalogs.current
        rows_count = len(record.terms.held_ids)
        finals = finals_of_expired(expired, catalog, self._op_ids, rows_count=rows_count)
        for some in (finals, finals[:1], [as_held(expired[0], catalog, self._op_ids)]):
            if await self._settle(record, some) is not Status.OUT_OF_RANGE:
                return

    async def _settle(self, record: Record, finals: Sequence[Final]) -> Status:
        customer_id = record.customer.id
        reply = await self._attempts.write(
            self._keys.partition_of(customer_id),
            finals[0].call.op_id,
            lambda not_after: self._store.settle(
                not_after=not_after,
                customer_id=customer_id,
                expected_sequence=record.sequence,
                finals=finals,
            ),
        )
        if isinstance(reply, Applied):
            return Status.OK
        if reply.status is Status.OK:
            self._metrics.settled("expired", len(finals), reply.terms, reply.moved)
        return reply.status

    async def _catalog_for(self, record: Record) -> Catalog:
        """Return the catalog to step by; where a plan ends, what may come in its place is marked as given first."""
        ended = {s.group for s in record.customer.subscriptions if s.has_ended_by(record.now)}
        starting = [s for s in record.customer.scheduled if s.starts_at <= record.now]
        catalog = self._catalogs.current
        if starting:
            catalog = await self._catalogs.having(
                lambda c: [c.plan(s.plan_id, s.plan_version) for s in starting]
            )
        back = [plan.id for plan in catalog.auto_enabled() if plan.group in ended and not plan.add_on]
        return await self._catalogs.giving(plan_ids=back) if back else catalog

    async def _check_clocks(self) -> None:
        """A clock that jumped must not give everybody a month."""
        if abs(self._clock.skew_ms) > CLOCK_SKEW_MAX_MS:
            log.error("clocks_disagree", redis_minus_ours_ms=self._clock.skew_ms)
            raise Undecided(
                "The clocks of Redis and of this machine disagree; nothing that fell due is stepped"
            )

    def _call(self, verb: str, catalog_version: int, key: CallerKey | None) -> Call:
        return Call(
            verb=verb,
            op_id=self._op_ids.next(),
            catalog_version=catalog_version,
            key=key.digest if key else "",
            fingerprint=key.fingerprint if key else "",
        )


def _status_of(written: Written | Applied, key: CallerKey | None) -> Status:
    if isinstance(written, Applied):
        return Status.OK
    if written.status is Status.KEY_REUSED:
        raise key_reused(key)
    if written.status is Status.OUT_OF_RANGE:
        raise AmountOutOfRange("The balance would leave the range of amounts")
    return written.status


def _not_found(customer_id: str) -> NotFound:
    return NotFound(f"Customer {customer_id} not found", code="customer_not_found")
