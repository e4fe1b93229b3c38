"""What a call crossed is told to every webhook that wants it: at least once, in order, signed, and to nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from structlog.testing import capture_logs

from creditgate import background, openings
from creditgate.core.amounts import NANOS
from creditgate.core.controls import BillingControls, UsageAlert
from creditgate.core.decisions import Mode
from creditgate.core.journal import Call
from creditgate.core.webhooks import EventType, Webhook
from creditgate.engine.courier import Courier
from creditgate.engine.customers import Profile
from creditgate.engine.destinations import Destinations
from creditgate.engine.endpoints import WEBHOOKS_MAX, Wanted
from creditgate.engine.lease import Lease
from creditgate.engine.usage import Usage
from creditgate.engine.verify import Verifier
from creditgate.engine.webhooks import WebhookDelivery
from creditgate.errors import Conflict, NotFound
from creditgate.ledger.outbox import Backlog
from creditgate.settings import Settings
from tests.engine.receiver import Receiver, answer

LOW = UsageAlert("usd_credits", 80 * NANOS, "usage_percentage", name="almost gone")
SOON_S, LATER_S = 0.0, 3600.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A sidecar whose webhooks may go to loopback."""
    return msgspec.structs.replace(settings, allow_private_webhooks=True)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that says 204."""
    async with Receiver().running() as running:
        yield running


async def made(cases: openings.UseCases, receiver: Receiver, name: str = "hook", **fields: object) -> Webhook:
    """A webhook that goes to the receiver."""
    await cases.endpoints.create(Wanted(name, receiver.url, fields))
    return await cases.endpoints.get(name)


async def cross(cases: openings.UseCases, customer_id: str = "ann") -> None:
    """Use up a new customer's credits, and bring that to SQL."""
    await use_up(cases, customer_id)
    while await cases.flusher.flush_once():
        pass


async def use_up(cases: openings.UseCases, customer_id: str) -> None:
    """Use up all of a new customer's credits, 3 and then the rest, so that an alert and the limit are crossed."""
    await cases.customers.get_or_create(customer_id, Profile(controls=BillingControls(usage_alerts=(LOW,))))
    for units in (420, 80):
        await cases.meter.track(Usage("track", customer_id, "basic_messages", None, units * NANOS, Mode.CAP))


def delivery(
    cases: openings.UseCases, stores: openings.Stores, *retries_s: float, timeout_s: float = 5.0
) -> WebhookDelivery:
    """Another process that delivers, with waits of its own."""
    courier = Courier(Destinations(allow_private=True), timeout_s=timeout_s)
    return WebhookDelivery(
        stores.keys,
        cases.clock,
        stores.ledger,
        cases.endpoints,
        courier,
        Lease(cases.webhooks._lease._store, "webhooks", ttl_ms=1_000),
        cases.metrics,
        retries_s,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fails after a while."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is others who make it true
            await asyncio.sleep(0.01)


async def delivered(work: WebhookDelivery) -> None:
    """One tick and all that comes of it."""
    await work.tick()
    await work.idle()


async def test_each_event_is_told_once_in_order_and_signed(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """A team hears of the alert and then of the limit, with what it needs to act, and can prove who said so."""
    hook = await made(cases, receiver)
    await cross(cases)
    await delivered(cases.webhooks)
    await delivered(cases.webhooks)
    alert = {"name": "almost gone", "threshold": 80, "threshold_type": "usage_percentage"}
    assert [message.verified(hook.secret) for message in receiver.messages] == [
        {
            "type": "balances.usage_alert_triggered",
            "data": {"customer_id": "ann", "feature_id": "usd_credits", "usage_alert": alert},
        },
        {
            "type": "balances.limit_reached",
            "data": {"customer_id": "ann", "feature_id": "usd_credits", "limit_type": "included"},
        },
    ]
    for message in receiver.messages:
        assert message.target == "/hooks?a=1"
        assert message.headers["host"] == f"127.0.0.1:{receiver.port}"
        for name in ("id", "timestamp", "signature"):
            assert message.headers[f"svix-{name}"] == message.headers[f"webhook-{name}"]
    assert len({message.id for message in receiver.messages}) == 2
    assert stores.ledger.outbox.backlog() == Backlog(0, 0)


async def test_an_alert_is_told_as_it_was_then(cases: openings.UseCases, receiver: Receiver) -> None:
    """An alert of a customer who is deleted before it was sent is still told, in its own words."""
    await made(cases, receiver, events=(EventType.USAGE_ALERT_TRIGGERED,))
    await use_up(cases, "ann")
    call = Call("customers.delete", "deletes-ann", 0)
    not_after = cases.clock.now_ms() + 60_000
    await cases.webhooks._lease._store.delete(not_after=not_after, customer_id="ann", call=call)
    while await cases.flusher.flush_once():
        pass
    await delivered(cases.webhooks)
    assert [m.told["data"]["usage_alert"]["name"] for m in receiver.messages] == ["almost gone"]


async def test_a_crash_between_delivery_and_commit_repeats_the_same_id(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies before it has noted a delivery makes it again, and the receiver can tell."""
    await made(cases, receiver, events=(EventType.LIMIT_REACHED,))
    await cross(cases)
    dying = delivery(cases, stores)

    def dies(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(stores.ledger.outbox, "delivered", dies)
        await delivered(dying)
    await delivered(delivery(cases, stores))
    first, second = receiver.messages
    assert (first.id, first.body) == (second.id, second.body)


async def test_a_500_is_tried_again_with_the_same_id(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """A receiver that was down for a moment misses nothing."""
    receiver.answer = lambda before: answer(200 if before else 500)
    await made(cases, receiver, events=(EventType.LIMIT_REACHED,))
    await cross(cases)
    work = delivery(cases, stores, SOON_S)
    await delivered(work)
    await delivered(work)
    assert len({message.id for message in receiver.messages}) == 1
    assert len(receiver.messages) == 2
    assert cases.metrics.webhook_attempts == {"failed": 1, "delivered": 1}
    assert stores.ledger.outbox.backlog() == Backlog(0, 0)


async def test_the_next_attempt_survives_a_restart(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """A sidecar that is restarted all the time does not hammer a receiver that is down."""
    receiver.answer = lambda _: answer(503)
    await made(cases, receiver, events=(EventType.LIMIT_REACHED,))
    await cross(cases)
    for _ in range(3):
        await delivered(delivery(cases, stores, LATER_S))
    assert len(receiver.messages) == 1
    assert stores.ledger.outbox.backlog() == Backlog(waiting=1, dead=0)


async def test_what_always_fails_becomes_a_dead_letter(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """After the last attempt nothing is sent any more, and the operator can see it."""
    receiver.answer = lambda _: answer(400)
    await made(cases, receiver, events=(EventType.LIMIT_REACHED,))
    await cross(cases)
    work = delivery(cases, stores, SOON_S, SOON_S)
    with capture_logs() as logs:
        for _ in range(5):
            await delivered(work)
    assert len(receiver.messages) == 3
    assert cases.metrics.webhook_attempts == {"failed": 2, "dead": 1}
    assert stores.ledger.outbox.backlog() == Backlog(waiting=0, dead=1)
    assert [entry["event"] for entry in logs].count("webhook_dead_letter") == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver, status: int
) -> None:
    """A receiver cannot send us to an address inside the network."""
    async with Receiver().running() as inside:
        receiver.answer = lambda _: answer(status, f"Location: {inside.url}")
        await made(cases, receiver, events=(EventType.LIMIT_REACHED,))
        await cross(cases)
        await delivered(delivery(cases, stores, LATER_S))
        assert len(receiver.messages) == 1
        assert inside.messages == []
    assert stores.ledger.outbox.backlog().waiting == 1


async def test_a_slow_endpoint_does_not_hold_up_others(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """One receiver that never answers costs the others nothing, and is given up after its time."""
    async with Receiver().running() as slow:
        slow.answer = lambda _: None
        await made(cases, slow, "slow", events=(EventType.LIMIT_REACHED,))
        await made(cases, receiver, "quick")
        await cross(cases)
        work = delivery(cases, stores, LATER_S, timeout_s=0.5)
        await work.tick()
        await until(lambda: len(receiver.messages) == 2 and len(slow.messages) == 1)
        assert stores.ledger.outbox.backlog().waiting >= 1
        await work.idle()
    assert cases.metrics.webhook_attempts["failed"] == 1


async def test_disabled_and_deleted_webhooks_are_told_nothing(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """Who was taken off the list hears nothing more, not even what was waiting; nor does a new one of the same name."""
    receiver.answer = lambda _: answer(500)
    uids = [
        (await made(cases, receiver, name, events=(EventType.LIMIT_REACHED,))).uid
        for name in ("disabled", "deleted")
    ]
    await cross(cases)
    await delivered(delivery(cases, stores, 0.5))
    assert len(receiver.messages) == 2
    await cases.endpoints.update("disabled", {"disabled": True})
    await cases.endpoints.delete("deleted")
    await made(cases, receiver, "deleted")
    await until(lambda: stores.ledger.outbox.busy_endpoints(uids, cases.clock.now_ms()) == uids)
    await delivered(delivery(cases, stores, SOON_S))
    assert len(receiver.messages) == 2
    assert stores.ledger.outbox.backlog() == Backlog(0, 0)


async def test_a_webhook_hears_only_what_it_asked_for(cases: openings.UseCases, receiver: Receiver) -> None:
    """A pager that wants limits is not called for every alert."""
    await made(cases, receiver, events=(EventType.LIMIT_REACHED,))
    await cross(cases)
    await delivered(cases.webhooks)
    assert [message.told["type"] for message in receiver.messages] == ["balances.limit_reached"]


async def test_two_processes_at_once_lose_nothing(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """A second sidecar, or one that lost its lease without noticing, makes repetitions at worst."""
    await made(cases, receiver)
    for customer_id in ("ann", "bob", "cid"):
        await cross(cases, customer_id)
    await asyncio.gather(*(delivered(delivery(cases, stores)) for _ in range(3)))
    assert len({message.id for message in receiver.messages}) == 6
    assert stores.ledger.outbox.backlog() == Backlog(0, 0)


async def test_the_background_work_delivers(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """Nobody has to ask: what a call crossed arrives by itself."""
    await made(cases, receiver)
    async with background.background_work(cases, stores.redis):
        await use_up(cases, "ann")
        await until(lambda: len(receiver.messages) == 2)


async def test_webhooks_survive_the_loss_of_redis(
    cases: openings.UseCases, stores: openings.Stores, receiver: Receiver
) -> None:
    """After a FLUSHALL the webhooks are there with their secrets, and `verify` compares them with the journal."""
    hook = await made(cases, receiver)
    await cases.flusher.flush_once()
    await stores.redis.flushall()
    await cases.reconciler.watch()
    assert await cases.endpoints.get("hook") == hook
    proof = await _verifier(cases, stores).verify()
    assert proof.holds, proof.differences
    await stores.redis.hset(stores.keys.documents("webhook"), "-", "[]")
    proof = await _verifier(cases, stores).verify()
    assert proof.differences == ("document webhook -: Redis and the journal differ",)


async def test_the_number_of_webhooks_is_bounded(cases: openings.UseCases, receiver: Receiver) -> None:
    """A loop that makes webhooks ends, however many callers run it; a name is used once."""
    wanted = [Wanted(f"hook-{number}", receiver.url, {}) for number in range(WEBHOOKS_MAX)]
    for one in wanted:
        await cases.endpoints.create(one)
    with pytest.raises(Conflict, match="already exists"):
        await cases.endpoints.create(wanted[0])
    with pytest.raises(Conflict, match="20 webhooks"):
        await cases.endpoints.create(Wanted("one-more", receiver.url, {}))
    await cases.endpoints.delete("hook-3")
    with pytest.raises(NotFound):
        await cases.endpoints.get("hook-3")
    await cases.endpoints.create(Wanted("one-more", receiver.url, {}))


def _verifier(cases: openings.UseCases, stores: openings.Stores) -> Verifier:
    webhooks = cases.webhooks
    return Verifier(stores.redis, stores.keys, webhooks._lease._store, cases.history._stream, stores.ledger)
