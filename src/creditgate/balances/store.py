"""The current balances: one method for each script, each one atomic step on one customer's record.

Methods take values and return values. A call whose reply did not arrive raises `Unknown`: it may or may not have taken
effect, and `engine/attempts.py` finds out. Nothing here is ever sent twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import WatchError

from creditgate.balances.batches import BatchCalls
from creditgate.balances.calls import (
    DataLost,
    Need,
    Needs,
    NotSent,
    Reply,
    Unknown,
    Written,
    text_of,
    written_in,
)
from creditgate.balances.holds import HoldCalls
from creditgate.balances.keys import KEY_BUCKET_TTL_MS, decoded, encoded
from creditgate.balances.scripts import Argument, Script
from creditgate.balances.terms import terms_of
from creditgate.balances.usage import UsageCalls, Use
from creditgate.core.burn import order_fields
from creditgate.core.changes import Change, next_due
from creditgate.core.customers import Customer, Record, Terms
from creditgate.core.decisions import Status
from creditgate.core.holds import Hold, decode_hold, due_with
from creditgate.core.journal import Call, StreamId, encode_call
from creditgate.errors import Unavailable

__all__ = ["BalanceStore", "DataLost", "Need", "Needs", "NotSent", "Reply", "Unknown", "Use", "Written"]


class KeptKey(NamedTuple):
    """A caller's key as a bucket keeps it: whose, its digests, and where its first call stands in the journal."""

    customer_id: str | None
    uid: str
    key: str
    fingerprint: str
    stream_id: StreamId


class Tenure(NamedTuple):
    """What became of asking for a lease: is it ours, and was it before? `time` is Redis's, in ms."""

    is_ours: bool
    was_ours: bool
    time: int


class BalanceStore(UsageCalls, HoldCalls, BatchCalls):
    """All scripts of one server and prefix."""

    _read = Script("read")
    _change = Script("change")
    _forward = Script("forward")
    _delete = Script("delete")
    _put = Script("put")
    _restore = Script("restore")

    async def read(self, *, customer_id: str) -> Record | None:
        """Return the whole record, None if there is no such customer; one that `is_due` has to be stepped forward."""
        raw = await self._run(self._read, [self._keys.record(customer_id)], [])
        if raw[0] == Status.ABSENT:
            return None
        if len(raw) == 2:
            raise Unavailable(
                f"The record of this customer has a layout that this version does not know ({raw[0]})"
            )
        fields = {text_of(raw[i]): raw[i + 1] for i in range(4, len(raw), 2)}
        return Record(
            now=raw[1],
            sequence=raw[2],
            shape=int(fields["shape"]),
            uid=text_of(fields["uid"]),
            clock=int(fields["clock"]) if fields["clock"] else None,
            is_due=raw[0] == Status.DUE,
            customer=msgspec.json.decode(fields["doc"], type=Customer),
            terms=terms_of(fields["terms"]),
            balances={name[2:]: int(value) for name, value in fields.items() if name.startswith("b:")},
            holds={
                decoded(name[2:]): decode_hold(value)
                for name, value in fields.items()
                if name.startswith("h:")
            },
        )

    async def change(
        self,
        *,
        not_after: int,
        customer_id: str,
        call: Call,
        uid: str,
        expected_shape: int,
        expected_sequence: int | None = None,
        clock: int | None,
        change: Change,
    ) -> Written:
        """Apply a change that was worked out from a read of this shape (0: the customer must be new).

        With a sequence number, nothing at all may have happened since.
        """
        keys = [
            self._keys.record(customer_id),
            self._keys.journal_of(customer_id),
            self._due_of(customer_id),
            *self._buckets(customer_id, call),
        ]
        head: list[Argument] = [not_after, customer_id, encode_call(call), call.key, call.fingerprint]
        head += [uid, expected_shape, "" if expected_sequence is None else expected_sequence]
        head.append(clock if clock is not None else "")
        return written_in(await self._run(self._change, keys, [*head, *_change_arguments(change)]))

    async def forward(
        self,
        *,
        not_after: int,
        customer_id: str,
        call: Call,
        uid: str,
        expected_sequence: int,
        change: Change,
    ) -> Written:
        """Apply the steps that fell due, worked out from a read with this sequence number."""
        keys = [
            self._keys.record(customer_id),
            self._keys.journal_of(customer_id),
            self._due_of(customer_id),
        ]
        head: list[Argument] = [not_after, customer_id, encode_call(call), uid, expected_sequence]
        return written_in(await self._run(self._forward, keys, [*head, *_change_arguments(change)]))

    async def delete(self, *, not_after: int, customer_id: str, call: Call) -> Written:
        """Close every row of a customer and remove the record; the journal keeps the history."""
        keys = [
            self._keys.record(customer_id),
            self._keys.journal_of(customer_id),
            self._due_of(customer_id),
            *self._buckets(customer_id, call),
        ]
        arguments: list[Argument] = [not_after, customer_id, encode_call(call), call.key, call.fingerprint]
        return written_in(await self._run(self._delete, keys, arguments))

    async def put(
        self,
        *,
        not_after: int,
        call: Call,
        document_type: str,
        document_id: str,
        expected_version: int,
        document: bytes,
    ) -> Written:
        """Put one document of the system if its type still has this version."""
        keys = [self._keys.documents(document_type), self._keys.journal("sys")]
        keys += self._keys.system_key_buckets(self._clock.now_ms()) if call.key else []
        head: list[Argument] = [not_after, encode_call(call), call.key, call.fingerprint]
        return written_in(
            await self._run(self._put, keys, [*head, document_type, document_id, expected_version, document])
        )

    async def restore(
        self,
        *,
        stood_at: StreamId,
        customer_id: str,
        uid: str,
        sequence: int,
        clock: int | None,
        customer: Customer | None,
        terms: Terms,
        holds: Mapping[str, Hold],
        balances: Mapping[str, int],
    ) -> Written:
        """Put a record back as SQL has it, unless Redis has it as new or newer, or its stream is past `stood_at`.

        `customer` is None for one who was deleted: then there is no record.
        """
        partition = self._keys.partition_of(customer_id)
        keys = [self._keys.record(customer_id), self._keys.journal(partition), self._keys.due(partition)]
        orders = order_fields(terms, [entity.id for entity in customer.entities] if customer else ())
        due = due_with(holds, next_due(customer, terms)) if customer is not None else None
        arguments: list[Argument] = [str(stood_at), customer_id, uid, sequence]
        arguments += [
            clock if clock is not None else "",
            msgspec.json.encode(customer) if customer is not None else "",
            msgspec.json.encode(terms),
            due if due is not None else "",
        ]
        arguments += [len(orders), len(holds), *_flat(orders)]
        for hold_id, hold in holds.items():
            arguments += [encoded(hold_id), msgspec.json.encode(hold)]
        arguments += _flat(balances)
        return written_in(await self._run(self._restore, keys, arguments))

    async def restore_documents(self, document_type: str, version: int, documents: dict[Any, str]) -> None:
        """Put all documents of a type back as SQL has them, unless Redis has that version or a newer one."""
        key = self._keys.documents(document_type)
        async with self._redis.pipeline(transaction=True) as together:
            while True:
                await together.watch(key)
                if int(await together.hget(key, "version") or 0) >= version:
                    return
                together.multi()  # type: ignore[no-untyped-call]
                together.hset(key, mapping={**dict(documents), "version": str(version)})
                with suppress(WatchError):  # another process puts them back too, so look again
                    await together.execute()
                    return

    async def restore_keys(self, uses: Iterable[KeptKey]) -> None:
        """Remember callers' keys of one partition again, the oldest first, for as long as they still hold."""
        now = self._clock.now_ms()
        async with self._redis.pipeline(transaction=False) as together:
            for use in uses:
                customer_id = use.customer_id
                buckets = (
                    self._keys.key_buckets(customer_id, now)
                    if customer_id is not None
                    else self._keys.system_key_buckets(now)
                )
                together.hset(buckets[0], use.key, f"{use.fingerprint} {use.stream_id} {use.uid}")
                together.pexpire(buckets[0], KEY_BUCKET_TTL_MS)
            await together.execute()

    async def lease(self, *, name: str, holder: str, ttl_ms: int, instead_of: str = "") -> Tenure:
        """Take or renew a lease for so long, or give it back (0); it is not ours if somebody else has it."""
        raw = await self._run(self._lease, [self._keys.lease(name)], [holder, ttl_ms, instead_of])
        return Tenure(raw[0] == Status.OK, raw[2] == 1, raw[1])

    async def documents(self, document_type: str) -> tuple[int, dict[str, bytes]]:
        """Return the version of a type of document, and all documents of it by id."""
        raw = await self._asked("documents", self._redis.hgetall(self._keys.documents(document_type)))
        fields = {text_of(name): value for name, value in raw.items()}
        return int(fields.pop("version", 0)), fields

    async def documents_version(self, document_type: str) -> int:
        """Return the version of a type of document, 0 if there is none yet."""
        raw = await self._asked("version", self._redis.hget(self._keys.documents(document_type), "version"))
        return int(raw or 0)

    async def announce(self, *, worker: str, version: int, until_ms: int) -> None:
        """Keep which version of the catalog a worker answers with, and until when it counts as alive."""
        await self._asked("announce", self._redis.hset(self._keys.workers(), worker, f"{version} {until_ms}"))

    async def workers(self) -> dict[str, tuple[int, int]]:
        """Return the version and the end of each worker that ever announced itself and was not forgotten."""
        raw = await self._asked("workers", self._redis.hgetall(self._keys.workers()))
        found = {text_of(worker): value.split() for worker, value in raw.items()}
        return {worker: (int(version), int(until)) for worker, (version, until) in found.items()}

    async def forget_workers(self, workers: Sequence[str]) -> None:
        """Remove heartbeats."""
        await self._asked("forget_workers", self._redis.hdel(self._keys.workers(), *workers))

    async def due_customers(self, partition: str, now_ms: int, limit: int) -> list[str]:
        """Return customers of a partition for whom something has fallen due, the longest overdue first."""
        members = await self._asked(
            "due", self._redis.zrange(self._keys.due(partition), 0, now_ms, byscore=True, offset=0, num=limit)
        )
        return [text_of(member).split(" ", 1)[1] for member in members]


def _change_arguments(change: Change) -> list[Argument]:
    arguments: list[Argument] = [
        msgspec.json.encode(change.customer) if change.customer is not None else "",
        msgspec.json.encode(change.terms) if change.terms is not None else "",
        change.due if change.due is not None else "",
        len(change.orders),
        len(change.steps),
    ]
    for feature_id, order in change.orders.items():
        arguments += [feature_id, order]
    for step in change.steps:
        arguments += [step.action, step.row_id, step.amount_nanos]
    return arguments


def _flat(pairs: Mapping[str, str] | Mapping[str, int]) -> Iterable[Argument]:
    return chain.from_iterable(pairs.items())
