"""Plain checks and tracks, sent with no coroutine to wait; most are answered straight from the reply.

This is the first attempt of a call, which mostly is the only one. Any other outcome is for `Meter` to go on from, which
knows what a lost reply, or one that came too late, means. What is asked for again and again is packed once, and where
the reply says what it said then, but for amounts, so is the answer.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from creditgate.balances.calls import Begun
from creditgate.balances.hot_connection import HotConnection
from creditgate.balances.prepared import Prepared, PreparedCall
from creditgate.balances.store import BalanceStore
from creditgate.balances.usage import TERMS, amounts_in
from creditgate.core.decisions import Decision
from creditgate.engine.attempts import Attempts, Start
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.ids import OpIds
from creditgate.engine.meanings import Asking, Repeated, Taking
from creditgate.engine.stepping import Done
from creditgate.engine.usage import Usage
from creditgate.errors import CreditgateError, Unavailable
from creditgate.telemetry.metrics import Histogram, Metrics

M = TypeVar("M", Taking, Asking)

TERMS_KEPT_MAX = (
    2048  # bytes of a customer's terms, eight rows or so: an answer is kept with all that they say
)


class Asked(msgspec.Struct, Generic[M], frozen=True):
    """A use that was sent before anybody waits for its answer, and what it was sent for, but for a caller's key."""

    means: M
    start: Start
    begun: Begun


class Asker(Protocol[M]):
    """Who asks for a use, perhaps again and again, and ends each time with `done`. `means` is for us to keep.

    `unkeyed`: who asks for the same without a caller's key, if the use has one.
    """

    usage: Usage
    means: M | None

    @property
    def unkeyed(self) -> "Asker[M] | None": ...

    def decided(self, decision: Decision, done: Done[Any]) -> None:
        """Answer with this decision."""

    def told(
        self, repeated: Repeated, amounts: Sequence[int], deltas: Sequence[int], done: Done[Any]
    ) -> None:
        """Answer as before, with these amounts: of rows, and behind them what rows gave (negative) or got."""

    def further(self, asked: Asked[M], done: Done[Any]) -> None:
        """Answer whatever has become of what was sent."""


class UseCall(PreparedCall, Generic[M], gc=False):
    """A use on its way that nobody awaits: what comes of it is for who asked.

    The garbage collector does not look in here. An error keeps the frames that it went through, and with them the call;
    so the call lets go of `done`, which may lead to the error.
    """

    means: M
    start: Start
    asker: Asker[M]
    done: Done[Any]
    metrics: Metrics

    def take(self, reply: Any) -> None:
        means = self.means
        try:
            repeated, said = means.repeated, means.said_in(reply)
            if said is None:
                self._go_on(reply, None)
            elif repeated is not None and repeated.said == said:
                amounts = amounts_in(reply)
                deltas = amounts[len(repeated.row_ids) :]
                self.metrics.decided_again(repeated.took, perf_counter() - self.began, repeated.gave, deltas)
                self.asker.told(repeated, amounts, deltas, self.done)
            else:
                self._decide(means, reply, said)
        except Exception as error:  # whoever asked is answered, whatever the reply is
            self._let_go()(None, error)

    def fail(self, error: Exception) -> None:
        self._go_on(None, error)

    def _decide(self, means: M, reply: Sequence[Any], said: tuple[Any, ...]) -> None:
        decision = means.decision(reply)
        took = self.metrics.decided_at_once(
            self.asker.usage.verb, decision, perf_counter() - self.began, self.prepared.script.name
        )
        if means.is_repeated and len(reply[TERMS]) <= TERMS_KEPT_MAX:
            means.repeated = _repeated(said, decision, took)
        self.asker.decided(decision, self.done)

    def _go_on(self, raw: Any, error: Exception | None) -> None:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if error is None:
            reply.set_result(raw)
        else:
            reply.set_exception(error)
        done = self._let_go()
        try:
            self.asker.further(Asked(self.means, self.start, Begun(self, reply)), done)
        except Exception as failure:
            done(None, failure)

    def _let_go(self) -> Done[Any]:
        done, self.done = self.done, _nobody
        return done


def _nobody(_result: Any, _error: BaseException | None) -> None:
    """Stand where `done` was."""


class AtOnce:
    """What `Meter` offers to who does not wait in a coroutine."""

    def __init__(
        self, store: BalanceStore, attempts: Attempts, catalogs: Catalogs, op_ids: OpIds, metrics: Metrics
    ) -> None:
        self._store = store
        self._hot = store.hot
        self._attempts = attempts
        self._catalogs = catalogs
        self._op_ids = op_ids
        self._metrics = metrics

    def check(self, asker: Asker[Asking], done: Done[Any]) -> bool:
        """Send a check, whose answer goes to who asks; False, and nothing sent, if only `Meter.check` can send it."""
        hot = self._hot
        if hot is None:  # to a cluster
            return False
        means = self._known(asker) or self._asking(asker)
        if means is None or means.prepared is None:
            return False
        return self._send(hot, asker, means, means.prepared, "", done)

    def track(self, asker: Asker[Taking], done: Done[Any]) -> bool:
        """As `check`, of a track of one feature."""
        hot = self._hot
        if hot is None:  # to a cluster
            return False
        unkeyed, key = asker.unkeyed or asker, asker.usage.key
        means = self._known(unkeyed) or self._taking(unkeyed)
        if means is None or means.prepared is None:
            return False
        prepared: Prepared = means.prepared
        if key is not None:
            prepared = self._store.with_key(means.prepared, key.digest, key.fingerprint)
        return self._send(hot, asker, means, prepared, self._op_ids.next(), done)

    def part(self, customer_id: str) -> None:
        """Let what is sent next for a customer go with nothing that was sent before it."""
        if self._hot is not None:
            self._hot.part(self._store.record_of(customer_id))

    def _known(self, asker: Asker[M]) -> M | None:
        means = asker.means
        if means is None or means.catalog is not self._catalogs.current or means.prepared is None:
            return None
        if not means.is_repeated:
            means.is_repeated = True
            means.prepared.pack()
        return means

    def _asking(self, asker: Asker[Asking]) -> Asking | None:
        usage = asker.usage
        try:
            means = Asking.of(usage, self._catalogs.current)
        except CreditgateError:  # by another catalog it may mean something
            return None
        means.prepared = self._store.prepared_check(
            customer_id=usage.customer_id, properties=means.properties, pools=means.needs
        )
        asker.means = means
        return means

    def _taking(self, asker: Asker[Taking]) -> Taking | None:
        usage = asker.usage
        try:
            means = Taking.of(usage, self._catalogs.current)
        except CreditgateError:
            return None
        if len(means.uses) > 1:
            return None
        use = means.uses[0]
        means.prepared = self._store.prepared_track(
            customer_id=usage.customer_id,
            call=use.call,
            mode=usage.mode,
            properties=means.properties,
            pools=use.needs,
        )
        asker.means = means
        return means

    def _send(
        self,
        hot: HotConnection,
        asker: Asker[M],
        means: M,
        prepared: Prepared,
        op_id: str,
        done: Done[Any],
    ) -> bool:
        start = self._attempts.start()
        if start is None:
            return False
        call = UseCall(
            b"",
            0.0,
            None,
            prepared,
            start.not_after,
            op_id,
            perf_counter(),
            means,
            start,
            asker,
            done,
            self._metrics,
        )
        try:
            hot.send(call, prepared.record)
        except Unavailable:
            return False
        return True


def _repeated(said: tuple[Any, ...], decision: Decision, took: Histogram) -> Repeated | None:
    """Return what to remember of an answer; None if it adds up what a row gave twice, so that no other is like it."""
    rows, moved_ids = decision.terms.by_id, {part.row_id for part in decision.moved}
    if len(said[-1]) != len(decision.balances) + len(moved_ids) or not moved_ids <= rows.keys():
        return None
    gave = tuple([rows[part.row_id].feature_id for part in decision.moved])
    return Repeated(said, decision, took, tuple(decision.balances), gave)
