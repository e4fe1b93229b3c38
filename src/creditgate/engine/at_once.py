"""Plain checks and tracks that were asked before: sent with no coroutine to wait, and answered as they were where the
reply says what it said then, but for amounts.

This is the first attempt of a call, which mostly is the only one. Any other outcome is for `Meter` to go on from, which
knows what a lost reply, or one that came too late, means.
"""

import asyncio
from time import perf_counter

from creditgate.balances.prepared import Prepared
from creditgate.balances.store import BalanceStore
from creditgate.balances.usage import amounts_in, said_in
from creditgate.core.decisions import Decision
from creditgate.engine.attempts import Attempts
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.ids import OpIds
from creditgate.engine.usage import Asked, Asking, M, Repeated, Taking, Usage
from creditgate.telemetry.metrics import Metrics


class AtOnce:
    """What `Meter` offers to who does not wait in a coroutine."""

    def __init__(
        self, store: BalanceStore, attempts: Attempts, catalogs: Catalogs, op_ids: OpIds, metrics: Metrics
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._catalogs = catalogs
        self._op_ids = op_ids
        self._metrics = metrics

    def begin_check(self, usage: Usage) -> Asked[Asking] | None:
        """Send a check whose answer is asked for later, by `told` or `check`; None if only `check` can send it."""
        asking: Asking | None = usage.derived.get("asking")
        if asking is None or asking.catalog is not self._catalogs.current:
            return None
        if asking.prepared is None:
            asking.prepared = self._store.prepared_check(
                customer_id=usage.customer_id, properties=asking.properties, pools=asking.needs
            )
        return self._begin(usage, asking, asking.prepared, "")

    def begin_track(self, usage: Usage) -> Asked[Taking] | None:
        """As `begin_check`, of a track of one feature without a caller's key."""
        taking: Taking | None = usage.derived.get("taking")
        if taking is None or taking.catalog is not self._catalogs.current or len(taking.uses) > 1:
            return None
        if taking.prepared is None:
            taking.prepared = self._store.prepared_track(
                customer_id=usage.customer_id,
                call=taking.uses[0].call,
                mode=usage.mode,
                properties=taking.properties,
                pools=taking.uses[0].needs,
            )
        return self._begin(usage, taking, taking.prepared, self._op_ids.next())

    def _begin(self, usage: Usage, means: M, prepared: Prepared, op_id: str) -> Asked[M] | None:
        start = self._attempts.start()
        if start is None:
            return None
        call = self._store.begin(prepared, start.not_after, op_id)
        return None if call is None else Asked(usage, means, start, call)

    def told(self, asked: Asked[M]) -> tuple[Repeated, list[int]] | None:
        """Return what the use was answered before to a reply that said the same, and the amounts of this reply.

        None for any other outcome, which is for `check` or `track` to go on from.
        """
        repeated, call = asked.means.repeated, asked.call
        try:
            raw = call.reply.result()
        except (Exception, asyncio.CancelledError):
            return None
        if repeated is None or said_in(raw, takes=call.op_id != "") != repeated.said:
            return None
        amounts = amounts_in(raw)
        moved = zip(repeated.gave, amounts[len(repeated.row_ids) :], strict=True)
        self._metrics.decided_again(asked.usage.verb, repeated.decision, perf_counter() - call.began, moved)
        return repeated, amounts


def remember(asked: Asked[M], decision: Decision) -> None:
    """Remember what the use was answered, if its next reply may say the same."""
    try:
        raw = asked.call.reply.result()
    except (Exception, asyncio.CancelledError):
        return
    said, rows = said_in(raw, takes=asked.call.op_id != ""), decision.terms.by_id
    moved_ids = {part.row_id for part in decision.moved}
    if (
        said is None
        or len(said[-1]) != len(decision.balances) + len(moved_ids)
        or not moved_ids <= rows.keys()
    ):
        return  # it was another reply, or the answer adds up what a row gave twice
    gave = tuple([rows[part.row_id].feature_id for part in decision.moved])
    asked.means.repeated = Repeated(said, decision, tuple(decision.balances), gave)
