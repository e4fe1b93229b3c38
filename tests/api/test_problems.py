"""When something behind the API fails: what an application is told, with an engine that fails on purpose."""

from typing import Any
from unittest.mock import AsyncMock, Mock

import httpx
import pytest

from creditgate.api.app import ApiSettings, create_app
from creditgate.core.catalog import Catalog, CatalogDocument, Pool
from creditgate.core.customers import Terms
from creditgate.core.decisions import Decision
from creditgate.engine.spool import SpoolFull
from creditgate.errors import CreditgateError, InvalidRequest, KeyReused, Unavailable, Undecided
from creditgate.ledger.database import LedgerUnavailable

CHECK = {"customer_id": "ann", "feature_id": "messages", "required_balance": 2.5}
FAILURES = (
    Undecided("Redis did not answer"),
    Unavailable("Redis is down"),
    LedgerUnavailable("the database is locked"),
    CreditgateError("a bug"),
    RuntimeError("a bug that names sk_live_SECRET"),
    RecursionError("deep"),
    AssertionError("track.lua refused its arguments"),
)
OTHER_VERBS = {
    "customers.get": {"customer_id": "ann"},
    "customers.get_or_create": {"customer_id": "ann"},
    "customers.advance_test_clock": {"customer_id": "ann", "frozen_time": 1},
    "balances.finalize": {"lock_id": "l1", "action": "release"},
    "balances.progress": {"lock_id": "l1", "used": 1},
    "balances.create": {"customer_id": "ann", "feature_id": "messages", "included_grant": 1},
    "billing.attach": {"customer_id": "ann", "plan_id": "pro"},
    "events.list": {},
    "features.get": {"feature_id": "messages"},
    "plans.get": {"plan_id": "pro"},
    "attach": {"customer_id": "ann", "product_id": "pro"},
    "customers": {"id": "ann"},
}


class Part:
    """A part of the engine of which every call does the same: raise an error, or answer with a value."""

    def __init__(self, outcome: Any = None) -> None:
        self.outcome = outcome
        self.current = Catalog(1, CatalogDocument())

    def __getattr__(self, _name: str) -> Any:
        async def call(*_args: Any, **_kwargs: Any) -> Any:
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return self.outcome

        return call


async def _ready() -> dict[str, str]:
    return {"redis": "ok", "sql": "does not answer"}


async def _numbers(accept: str) -> tuple[bytes, str]:
    return b"creditgate_up 1\n", f"text/plain; for={accept}"


def _client(outcome: Any, *, access: Any = "admin", idempotency: Any = "replay") -> httpx.AsyncClient:
    part: Any = Part(outcome)
    door: Any = Part(access)
    app = create_app(
        meter=part,
        holds=part,
        batches=part,
        customers=part,
        entities=part,
        customer_list=part,
        catalogs=part,
        billing=part,
        access=door,
        tokens=part,
        history=part,
        spans=part,
        aggregates=part,
        statements=part,
        endpoints=part,
        outage=Mock(allows=Mock(return_value=False), keeps=AsyncMock(return_value=False)),
        ready=_ready,
        numbers=_numbers,
        settings=ApiSettings(env="live", idempotency=idempotency),
    )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://localhost",
        headers={"Authorization": "Bearer cg_sk_live_x"},
    )


async def _call(outcome: Any, verb: str, body: Any, **more: Any) -> httpx.Response:
    headers = more.pop("headers", None)
    async with _client(outcome, **more) as client:
        return await client.post(f"/v1/{verb}", json=body, headers=headers)


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("more", [{}, {"send_event": True}, {"lock": {"lock_id": "l1"}}], ids=str)
@pytest.mark.parametrize("verb", ["balances.check", "check", "entitled"])
async def test_an_undecided_check_is_no_access(failure: Exception, verb: str, more: dict[str, Any]) -> None:
    """Whatever breaks behind a check, the SDK reads "not allowed" and never its own fail-open answer."""
    answer = await _call(failure, verb, CHECK | more)
    assert answer.status_code == 202
    assert answer.headers["X-Creditgate-Decision"] == "fallback"
    assert answer.json() == {
        "allowed": False,
        "customer_id": "ann",
        "required_balance": 2.5,
        "balance": None,
        "flag": None,
        "code": "undecided",
    }


@pytest.mark.parametrize("version", ["2.0", "1.2", "0.2"])
async def test_an_undecided_check_of_a_customer_described_beside_it(version: str) -> None:
    """An older application, too, reads "not allowed" for the customer that it asked about."""
    body = CHECK | {"customer_data": {"name": "Ann"}}
    failure = Undecided("Redis did not answer")
    answer = await _call(failure, "check", body, headers={"x-api-version": version})
    assert (answer.status_code, answer.json()["allowed"]) == (202, False)
    assert (answer.json()["customer_id"], answer.json()["code"]) == ("ann", "undecided")


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("verb", ["balances.track", "track", "events"])
async def test_an_undecided_track_is_told_to_come_again(failure: Exception, verb: str) -> None:
    """An SDK would drop the usage of a track that got a 5xx; a 429 it raises, with the time to wait."""
    answer = await _call(failure, verb, {"customer_id": "ann", "feature_id": "messages"})
    assert (answer.status_code, answer.json()["code"]) == (429, "undecided")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["X-Should-Retry"] == "false"  # by a client itself, which has no key to do it with
    assert "SECRET" not in answer.text


async def test_a_full_spool_refuses_a_track() -> None:
    """What could not even be kept is the one 5xx of a track: nothing of it will ever take effect."""
    answer = await _call(
        SpoolFull("full"), "balances.track", {"customer_id": "ann", "feature_id": "messages"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert (await _call(SpoolFull("full"), "balances.check", CHECK)).json()["allowed"] is False


@pytest.mark.parametrize("verb", ["balances.check", "balances.track"])
async def test_not_knowing_the_keys_is_no_5xx_either(verb: str) -> None:
    """Where even the key cannot be looked up, check and track still do not turn into free access."""
    answer = await _call(None, verb, CHECK, access=Undecided("Redis did not answer"))
    assert answer.status_code == {"balances.check": 202, "balances.track": 429}[verb]
    assert answer.json().get("allowed") is not True


@pytest.mark.parametrize("verb", OTHER_VERBS)
async def test_other_routes_say_retry(verb: str) -> None:
    """A route that nobody mistakes for a permission answers 503 and when to come again."""
    answer = await _call(LedgerUnavailable("the database is locked"), verb, OTHER_VERBS[verb])
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("verb", OTHER_VERBS)
async def test_a_bug_is_a_500_that_tells_nothing(verb: str) -> None:
    """The text of an unexpected error stays in the log: it may name what is none of the caller's business."""
    answer = await _call(RuntimeError("sk_live_SECRET"), verb, OTHER_VERBS[verb])
    assert (answer.status_code, answer.json()["code"], answer.json()["env"]) == (
        500,
        "internal_error",
        "live",
    )
    assert "SECRET" not in answer.text


@pytest.mark.parametrize("verb", ["balances.check", "balances.track"])
async def test_a_reused_key_is_422(verb: str) -> None:
    """The same key for another call is the application's mistake, and it is told so."""
    answer = await _call(
        KeyReused("used"), verb, CHECK | {"send_event": True}, headers={"Idempotency-Key": "k"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("outcome", [KeyReused("used"), None], ids=["with other parameters", "the same call"])
@pytest.mark.parametrize(
    ("in_header", "shown"), [(True, "k1"), (False, "track:k1")], ids=["in the header", "in the body"]
)
async def test_autumn_refuses_any_repeated_key(outcome: Any, in_header: bool, shown: str) -> None:
    """With `idempotency = "autumn"` a key that came before is 409 in Autumn's words, whatever it was for."""
    body = {"customer_id": "ann", "feature_id": "messages"} | ({} if in_header else {"idempotency_key": "k1"})
    headers = {"Idempotency-Key": "k1"} if in_header else None
    answer = await _call(
        outcome or _replayed(), "balances.track", body, headers=headers, idempotency="autumn"
    )
    assert answer.status_code == 409
    assert answer.json() == {
        "message": f"Another request with idempotency key {shown} has already been received",
        "code": "duplicate_idempotency_key",
        "env": "live",
    }


@pytest.mark.parametrize("verb", ["balances.check", "balances.track"])
async def test_a_replay_says_so(verb: str) -> None:
    """By default a repeated key gets the first answer again, marked in a header."""
    answer = await _call(_replayed(), verb, CHECK | {"send_event": True}, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (200, "true")


async def test_the_future_is_refused_where_time_is_real() -> None:
    """A live event cannot be dated ahead, where it would stay the newest for ever."""
    body = {"customer_id": "ann", "feature_id": "messages", "timestamp": 4_000_000_000_000}
    answer = await _call(_replayed(), "balances.track", body)
    assert (answer.status_code, answer.json()["message"]) == (400, "timestamp: cannot be in the future")


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_checkout_that_fails(failure: Exception, method: str) -> None:
    """Somebody who pays while Redis is away reads that trying again is safe, on a page and not as JSON."""
    async with _client(failure) as client:
        page = await client.request(method, "/checkout/token")
    assert page.status_code in (500, 503)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "never paid twice" in page.text
    assert "SECRET" not in page.text


async def test_a_checkout_that_has_expired() -> None:
    """An old link says so in words and is gone, rather than wrong."""
    async with _client(InvalidRequest("This checkout has expired", code="checkout_expired")) as client:
        pages = [await client.get("/checkout/token"), await client.post("/checkout/token")]
    assert [page.status_code for page in pages] == [410, 410]
    assert all("This checkout has expired" in page.text for page in pages)


async def test_health() -> None:
    """Alive is about the process; ready names the part that is not, without a key."""
    async with _client(None) as client:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert ready.status_code == 503
    assert ready.json() == {"status": "unavailable", "parts": {"redis": "ok", "sql": "does not answer"}}


def _replayed() -> Decision:
    pools = (Pool("messages", 10**9),)
    return Decision(
        allowed=True,
        feature_id="messages",
        pools=pools,
        pool=None,
        required_nanos=10**9,
        terms=Terms(),
        balances={},
        is_replay=True,
    )
