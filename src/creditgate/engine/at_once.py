"""Plain checks and tracks that were asked before: sent with no coroutine to wait, and answered as they were where the
reply says what it said then, but for amounts.

This is the first attempt of a call, which mostly is the only one. Any other outcome is for `Meter` to go on from, which
knows what a lost reply, or one that came too late, means.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Generic, Protocol

from creditgate.balances.calls import Begun
from creditgate.balances.prepared import Prepared, PreparedCall
from creditgate.balances.store import BalanceStore
from creditgate.balances.usage import amounts_in, said_in
from creditgate.core.decisions import Decision
from creditgate.engine.attempts import Attempts, Start
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.ids import OpIds
from creditgate.engine.stepping import Done
from creditgate.engine.usage import Asked, Asking, M, Repeated, Taking, Usage
from creditgate.errors import Unavailable
from creditgate.telemetry.metrics import Metrics


class Asker(Protocol[M]):
    """Who asks for the same use again and again, and ends each time with `done`."""

    def told(
        self, repeated: Repeated, amounts: Sequence[int], deltas: Sequence[int], done: Done[Any]
    ) -> None:
        """Answer as before, with these amounts: of rows, and behind them what rows gave (negative) or got."""

    def further(self, asked: Asked[M], done: Done[Any]) -> None:
        """Answer whatever has become of what was sent."""


class UseCall(PreparedCall, Generic[M], gc=False):
    """A use on its way that nobody awaits: what comes of it is for who asked."""

    usage: Usage
    means: M
    start: Start
    asker: Asker[M]
    done: Done[Any]
    metrics: Metrics

    def take(self, reply: Any) -> None:
        try:
            repeated = self.means.repeated
            if repeated is None or said_in(reply, takes=self.op_id != "") != repeated.said:
                self._go_on(reply, None)
                return
            amounts = amounts_in(reply)
            deltas = amounts[len(repeated.row_ids) :]
            self.metrics.decided_again(repeated.took, perf_counter() - self.began, repeated.gave, deltas)
            self.asker.told(repeated, amounts, deltas, self.done)
        except Exception as error:  # whoever asked is answered, whatever the reply is
            self.done(None, error)

    def fail(self, error: Exception) -> None:
        self._go_on(None, error)

    def _go_on(self, raw: Any, error: Exception | None) -> None:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if error is None:
            reply.set_result(raw)
        else:
            reply.set_exception(error)
        self.asker.further(Asked(self.usage, self.means, self.start, Begun(self, reply)), self.done)


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

    def check(self, usage: Usage, asker: Asker[Asking], done: Done[Any]) -> bool:
        """Send a check, whose answer goes to who asks; False, and nothing sent, if only `Meter.check` can send it."""
        asking: Asking | None = usage.derived.get("asking")
        if asking is None or asking.catalog is not self._catalogs.current:
            return False
        prepared = asking.prepared
        if prepared is None:
            prepared = asking.prepared = self._store.prepared_check(
                customer_id=usage.customer_id, properties=asking.properties, pools=asking.needs
            )
        return self._send(usage, asking, prepared, "", asker, done)

    def track(self, usage: Usage, asker: Asker[Taking], done: Done[Any]) -> bool:
        """As `check`, of a track of one feature without a caller's key."""
        taking: Taking | None = usage.derived.get("taking")
        if taking is None or taking.catalog is not self._catalogs.current or len(taking.uses) > 1:
            return False
        prepared = taking.prepared
        if prepared is None:
            prepared = taking.prepared = self._store.prepared_track(
                customer_id=usage.customer_id,
                call=taking.uses[0].call,
                mode=usage.mode,
                properties=taking.properties,
                pools=taking.uses[0].needs,
            )
        return self._send(usage, taking, prepared, self._op_ids.next(), asker, done)

    def _send(
        self, usage: Usage, means: M, prepared: Prepared, op_id: str, asker: Asker[M], done: Done[Any]
    ) -> bool:
        hot, start = self._hot, self._attempts.start()
        if hot is None or start is None:
            return False
        not_after = start.not_after
        call = UseCall(
            prepared.packed(not_after, op_id),
            0.0,
            None,
            prepared,
            not_after,
            op_id,
            perf_counter(),
            usage,
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

    def remember(self, asked: Asked[M], decision: Decision) -> None:
        """Remember what a use was answered, if its next reply may say the same."""
        reply, takes = asked.begun.reply, asked.begun.call.op_id != ""
        raw = None if reply.exception() is not None else reply.result()
        said = None if raw is None else said_in(raw, takes=takes)
        rows, moved_ids = decision.terms.by_id, {part.row_id for part in decision.moved}
        if (
            said is None
            or len(said[-1]) != len(decision.balances) + len(moved_ids)
            or not moved_ids <= rows.keys()
        ):
            return  # it was another reply, or the answer adds up what a row gave twice
        gave = tuple([rows[part.row_id].feature_id for part in decision.moved])
        took = self._metrics.taking(asked.usage.verb, decision)
        asked.means.repeated = Repeated(said, decision, took, tuple(decision.balances), gave)
