"""Telling webhooks: alerts of the outbox become deliveries, and each is tried until it succeeds or is given up.

One process at a time does it, by lease; correctness rests on the rows, so two at once deliver something twice at worst,
with the same id. Each endpoint is served by itself, one delivery after the other, oldest first: a slow one holds up
nobody else, and what failed waits for its time while the next go on.
"""

import asyncio
import json
import random
from collections.abc import Sequence

import msgspec
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.keys import Keys, encoded
from creditgate.core.customers import Terms
from creditgate.core.entities import split_pool
from creditgate.core.webhooks import EventType, Webhook, limit_reached, usage_alert_triggered
from creditgate.engine.courier import Courier, Refused
from creditgate.engine.endpoints import Endpoints
from creditgate.engine.lease import Lease
from creditgate.errors import CreditgateError
from creditgate.ledger.outbox import Alert, Delivery, ItemId, Letter
from creditgate.ledger.store import Ledger
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

WEBHOOK_LEASE_MS = 5_000
TICK_S = 0.25  # how long an event waits at most, once it is in SQL
ALERTS_PAGE = 200  # handed on in one transaction
DELIVERIES_PAGE = 20  # of one endpoint, read at once
RETRIES_S = (5, 60, 300, 1_800, 7_200, 18_000, 36_000)  # after the first attempt: eight in all, over 17 hours
JITTER = 0.1  # of a wait, so that many that failed at once do not come back at once
DEAD_KEPT_MS = 30 * 24 * 3_600_000
TIDY_TICK_S = 60.0  # how long what waits for a deleted endpoint, and old dead letters, stay
STOP_WAIT_S = 3.0  # for attempts under way; one that is cut off is made again at the next start

log = logger(__name__)


class WebhookDelivery:
    """Delivers to all webhooks of one environment."""

    def __init__(
        self,
        keys: Keys,
        clock: RedisClock,
        ledger: Ledger,
        endpoints: Endpoints,
        courier: Courier,
        lease: Lease,
        metrics: Metrics | None = None,
        retries_s: Sequence[float] = RETRIES_S,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._ledger = ledger
        self._outbox = ledger.outbox
        self._endpoints = endpoints
        self._courier = courier
        self._lease = lease
        self._metrics = metrics or Metrics()
        self._retries_s = retries_s
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._webhooks: dict[str, Webhook] = {}
        self._is_ours = False
        self._tidy_at = 0.0
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Deliver until `stop`; what is under way then has STOP_WAIT_S to end."""
        while not self._stopping.is_set():
            self._is_ours = await self._lease.hold()
            if self._is_ours:
                try:
                    await self.tick()
                except (CreditgateError, RedisError, OSError) as error:
                    log.warning("webhooks_not_served", reason=str(error))
            await self._sleep(TICK_S)
        await self._end()
        await self._lease.release()

    def stop(self) -> None:
        """Ask `run` to finish."""
        self._stopping.set()

    async def tick(self) -> None:
        """Hand on what is in the outbox, and begin to serve each endpoint for which something is due."""
        self._is_ours = True
        await self._tidy()
        while alerts := await asyncio.to_thread(self._outbox.alerts, limit=ALERTS_PAGE):
            await self._refresh()
            await asyncio.to_thread(self._hand_on, alerts)
        await self._refresh()
        self._serving = {uid: task for uid, task in self._serving.items() if not task.done()}
        idle = [uid for uid in self._webhooks if uid not in self._serving]
        for uid in await asyncio.to_thread(self._outbox.busy_endpoints, idle, self._clock.now_ms()):
            self._serving[uid] = asyncio.create_task(self._serve(uid))

    async def idle(self) -> None:
        """Return when no endpoint is being served."""
        await asyncio.gather(*self._serving.values())

    def _hand_on(self, alerts: Sequence[Alert]) -> None:
        self._outbox.hand_on({alert.id: self._letter(alert) for alert in alerts})

    def _letter(self, alert: Alert) -> Letter:
        """Put an alert into words for every endpoint that wants it."""
        told = json.loads(alert.text)
        if "limit_type" in told:
            event_type = EventType.LIMIT_REACHED
            body = limit_reached(alert.customer_id, *split_pool(told["feature_id"]), told["limit_type"])
        else:
            _, entity_id = split_pool(told["feature_id"])
            event_type, body = EventType.USAGE_ALERT_TRIGGERED, self._alert_body(alert, entity_id)
        wanted_by = [w.uid for w in self._webhooks.values() if w.wants(event_type)] if body else []
        return Letter(event_type, body, wanted_by)

    def _alert_body(self, alert: Alert, entity_id: str | None) -> str:
        """Look the alert up in the terms that the call was made under; '' if they do not name it."""
        partition = self._keys.partition_of(alert.customer_id)
        text = self._ledger.document_at(partition, alert.customer_id, "terms", alert.id.stream_id)
        terms = msgspec.json.decode(text, type=Terms) if text is not None else Terms()
        limits = terms.entities.get(entity_id) if entity_id is not None else terms
        for defined in limits.alerts if limits else ():
            if defined.id == alert.alert_id:
                return usage_alert_triggered(alert.customer_id, entity_id, defined)
        log.error("usage_alert_without_terms", alert=alert.alert_id, entry=message_id(alert.id))
        return ""

    async def _serve(self, uid: str) -> None:
        """Make every delivery to an endpoint that is due."""
        try:
            while due := await asyncio.to_thread(
                self._outbox.due, uid, self._clock.now_ms(), limit=DELIVERIES_PAGE
            ):
                for delivery in due:
                    if self._stopping.is_set() or not self._is_ours:
                        return
                    await self._try(delivery)
        except (CreditgateError, OSError) as error:
            log.warning("webhook_not_served", webhook=self._webhooks[uid].id, reason=str(error))

    async def _try(self, delivery: Delivery) -> None:
        webhook = self._webhooks.get(delivery.endpoint)
        if webhook is None or webhook.disabled:  # since this page was read
            await asyncio.to_thread(self._outbox.delivered, delivery)
            return
        try:
            await self._courier.deliver(webhook, message_id(delivery.id), delivery.body.encode())
        except Refused as refused:
            await self._failed(webhook, delivery, refused.message)
        else:
            await asyncio.to_thread(self._outbox.delivered, delivery)
            self._metrics.webhook_attempts["delivered"] += 1

    async def _failed(self, webhook: Webhook, delivery: Delivery, reason: str) -> None:
        now, next_at = self._clock.now_ms(), None
        if delivery.attempts < len(self._retries_s):
            wait_s = self._retries_s[delivery.attempts] * (1 + JITTER * random.random())  # noqa: S311
            next_at = now + round(wait_s * 1000)
        counted = await asyncio.to_thread(
            self._outbox.failed, delivery, reason=reason, now_ms=now, next_at=next_at
        )
        if not counted:
            return
        self._metrics.webhook_attempts["failed" if next_at else "dead"] += 1
        tell = log.warning if next_at else log.error
        tell(
            "webhook_failed" if next_at else "webhook_dead_letter",
            webhook=webhook.id,
            message=message_id(delivery.id),
            attempt=delivery.attempts + 1,
            reason=reason,
        )

    async def _refresh(self) -> None:
        self._webhooks = {webhook.uid: webhook for webhook in await self._endpoints.list()}

    async def _tidy(self) -> None:
        """Drop what waits for endpoints that are gone or disabled, and dead letters that are old."""
        now = asyncio.get_running_loop().time()
        if now < self._tidy_at:
            return
        self._tidy_at = now + TIDY_TICK_S
        # The rows first: an endpoint that has one is in what is read after it, unless it was deleted.
        found = await asyncio.to_thread(self._outbox.endpoints)
        await self._refresh()
        gone = {uid for uid in found if uid not in self._webhooks or self._webhooks[uid].disabled}
        if gone:
            await asyncio.to_thread(self._outbox.forget, gone)
        await asyncio.to_thread(self._outbox.forget_dead, self._clock.now_ms() - DEAD_KEPT_MS)

    async def _end(self) -> None:
        tasks = list(self._serving.values())
        if tasks:
            _, running = await asyncio.wait(tasks, timeout=STOP_WAIT_S)
            for task in running:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def message_id(item_id: ItemId) -> str:
    """Return the id of a message: made of the item that it tells of, so the same at every attempt and for everyone."""
    return f"msg_{encoded(item_id.partition)}-{item_id.stream_id}-{item_id.item}"
