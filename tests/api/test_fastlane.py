"""The fast lane answers what the Starlette lane answers, byte for byte, and never mixes one request with another."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from creditgate.api.fastdoor import FastDoor
from creditgate.api.fastlane import FastLane, fast_lane
from creditgate.telemetry.metrics import Metrics
from tests.api.lanes import WITHOUT_FAST_LANE, Lane, frozen, posted
from tests.api.odd_requests import CUSTOMERS, ODDITIES, OddRequest, made_up, with_oddity
from tests.sidecar_process import SidecarProcess, wait_until

CONVERSATIONS = 120
REQUESTS_IN_ONE = 8
ANSWER_SECONDS_MAX = 5.0  # an SDK's patience


@pytest.fixture(scope="module")
def fast(demo: SidecarProcess) -> Lane:
    return _with_customers(Lane(demo, "lane1"))


@pytest.fixture(scope="module")
def plain(demo: SidecarProcess) -> Iterator[Lane]:
    sidecar = demo.join(main=WITHOUT_FAST_LANE)
    try:
        yield _with_customers(Lane(sidecar, "lane2"))
    finally:
        sidecar.close()


def _with_customers(lane: Lane) -> Lane:
    for number in range(CUSTOMERS):
        lane.sidecar.ask("customers.get_or_create", {"customer_id": f"c{number}_{lane.name}"})
    return lane


def test_each_oddity_alone(fast: Lane, plain: Lane) -> None:
    """Each header, length and spelling is answered as without the fast lane, and goes the way that was meant for it."""
    for seed, oddity in enumerate(ODDITIES):
        request = with_oddity(oddity, seed)
        before = fast.fast_requests()
        assert _said(fast, [request]) == _said(plain, [request]), request
        assert fast.fast_requests() - before == request.is_hot, request
    assert plain.fast_requests() == 0


@pytest.mark.parametrize("part", range(4))
def test_conversations(fast: Lane, plain: Lane, part: int) -> None:
    """Whatever a client pipelines, split wherever it is, the answers come in order and are those of Starlette."""
    dice = random.Random(part)
    before, hot, count = fast.fast_requests(), 0, 0
    for number in range(CONVERSATIONS):
        requests = _conversation(dice, 10_000 * part + 100 * number)
        cuts = dice.choice((0, 0, 1, 2, 5))
        assert _said(fast, requests, cuts) == _said(plain, requests, cuts), requests
        hot += sum(request.is_hot for request in requests)
        count += len(requests)
    assert count > 3 * CONVERSATIONS
    assert fast.fast_requests() - before == hot
    assert plain.fast_requests() == 0


def test_replays(fast: Lane, plain: Lane) -> None:
    """What tells a replay from a first answer stands in a header, and both lanes send it."""
    body = b'{"customer_id":"c0_@LANE","feature_id":"basic_messages","value":0.25}'
    text = posted("/v1/balances.track", body, headers=b"Idempotency-Key: replayed\r\n")
    answers = [lane.says([lane.requests(text, text)]) for lane in (fast, plain)]
    assert answers[0] == answers[1]
    assert answers[0].count(b"\r\nidempotent-replayed: true\r\n") == 1


def test_keys_that_come_one_after_the_other(fast: Lane, plain: Lane) -> None:
    """A head that is known but for its key is answered as if it had been read, whatever stands around the key."""
    body = b'{"customer_id":"c1_@LANE","feature_id":"basic_messages","value":0.25}'
    keys = [b"k%d" % (number % 5) for number in range(12)]
    keys += [
        b"",
        b" ",
        b"two words",
        b"folded\r\n line",
        b"\t",
        b"x" * 300,
        b"k1\r\nidempotency-key: k2",
        b"k1",
    ]
    lines = [b"idempotency-key: %b\r\n" % key for key in keys]
    lines += [b"x-more: a\r\n fold\r\n", b"x-more: a\r\nidempotency-key: k1\r\n fold\r\n"]
    texts = [posted("/v1/balances.track", body, headers=line) for line in lines]
    answers = []
    for lane in (fast, plain):
        pieces = [[lane.requests(text)] for text in texts]
        answers.append([lane.says([*piece, *piece]) for piece in pieces])
    assert answers[0] == answers[1]
    assert b"".join(answers[0]).count(b"\r\nidempotent-replayed: true\r\n") > len(keys)


def test_a_large_batch(fast: Lane, plain: Lane) -> None:
    """One that uvicorn does not read at once is for Starlette from the start: waiting for it would be in vain."""
    item = b'{"verb":"check","customer_id":"c0_@LANE","feature_id":"basic_messages","properties":{"x":"%b"}}'
    for size, is_hot in ((1_000, True), (4_000, False)):
        text = posted("/v1/balances.batch", b"[%b]" % b",".join([item % (b"x" * size)] * 20))
        before = fast.fast_requests()
        assert fast.says([fast.requests(text)]) == plain.says([plain.requests(text)])
        assert fast.fast_requests() - before == is_hot


def test_what_cannot_be_decided(fast: Lane, plain: Lane) -> None:
    """While Redis is away, both lanes say so in the same words, within the deadline, and spare the SDKs a 5xx."""
    body = b'{"customer_id":"c0_@LANE","feature_id":"basic_messages"}'
    with ThreadPoolExecutor() as threads, frozen(fast.sidecar.valkey_pid):
        for path in ("/v1/balances.check", "/v1/balances.track", "/v1/check", "/v1/track"):
            text = posted(path, body)
            before = time.monotonic()
            answers = list(
                threads.map(lambda lane, text=text: lane.says([lane.requests(text)]), (fast, plain))
            )
            assert time.monotonic() - before < ANSWER_SECONDS_MAX
            assert answers[0] == answers[1]
            assert answers[0].startswith(b"HTTP/1.1 202")
    wait_until(lambda: fast.sidecar.call("plans.list").status_code == 200, what="Redis is back")


def test_a_uvicorn_that_we_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane stands on what is private to uvicorn: with another one inside, all requests go through Starlette."""
    door = FastDoor({}, Mock(), names_us=Mock(), env="sandbox")
    assert issubclass(fast_lane(door, Metrics()), FastLane)
    monkeypatch.setattr("uvicorn.__version__", "0.55.0")
    assert fast_lane(door, Metrics()) is HttpToolsProtocol


def _conversation(dice: random.Random, seed: int) -> list[OddRequest]:
    """Return requests of one connection, up to one that closes it.

    What the parser refuses is answered before what was asked ahead of it and is not answered yet, so it stands alone.
    """
    requests: list[OddRequest] = []
    for number in range(dice.randint(1, REQUESTS_IN_ONE)):
        request = made_up(seed + number)
        if request.is_refused and requests:
            continue
        requests.append(request)
        if request.is_refused or request.closes:
            break
    return requests


def _said(lane: Lane, requests: list[OddRequest], cuts: int = 0) -> bytes:
    text = lane.requests(*(request.bytes for request in requests))
    dice = random.Random(len(requests))
    places = sorted(int(dice.random() * len(text)) for _ in range(cuts))
    return lane.says([text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)])
