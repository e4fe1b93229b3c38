"""Made-up requests for check, track and batches of them: good ones, and oddities of clients, proxies and attackers.

Each says whether it is plain enough for the fast lane. They are templates: `@KEY`, `@HOST` and `@LANE` are filled in.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from creditgate.api.calls import BODY_BYTES_MAX

CUSTOMERS = 6
Headers = list[tuple[bytes, bytes]]
BATCH = b"/v1/balances.batch"
HOT_PATHS = (
    b"/v1/balances.check",
    b"/v1/balances.track",
    b"/v1/v1/balances.check",
    b"/v1/v1/balances.track",
    BATCH,
    b"/v1/check",
    b"/v1/track",
    b"/v1/v1/check",
    b"/v1/v1/track",
)
GOOD_BODIES = (
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages"}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":3}',
    b'{"customer_id":"c@N_@LANE","feature_id":"premium_messages","value":0.5,"properties":{"model":"x"}}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":-1}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","required_balance":7}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","required_balance":2,"send_event":true}',
    b'{"customer_id":"c@N_@LANE","feature_id":"usd_credits","value":0.01,"overage_behavior":"reject"}',
    b'{"customer_id":"c@N_@LANE","feature_id":"premium_messages","required_balance":1000000}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","lock":{"lock_id":"l@N_@LANE"}}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","lock":{"lock_id":"m@N_@LANE"},"value":2}',
    b'{"customer_id":"c@N_@LANE","feature_id":"premium_messages","value":1000000,"overage_behavior":"reject"}',
)
BAD_BODIES = (
    b"{",
    b"[]",
    b"null",
    b"5",
    b"{}",
    b"\xff\xfe",
    b'{"customer_id":5}',
    b'{"customer_id":"c@N_@LANE"}',
    b'{"customer_id":"","feature_id":"basic_messages"}',
    b'{"customer_id":"nobody_@LANE","feature_id":"basic_messages"}',
    b'{"customer_id":"c@N_@LANE","feature_id":"no_such_feature"}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":"5"}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":NaN}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":1e99}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":1e-30}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","value":99999999999999999999}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","properties":[]}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","idempotency_key":""}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","properties":' + b'{"a":' * 200,
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages"} {"again":1}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages"}\r\nPOST /v1/track HTTP/1.1\r\n\r\n',
    b'{"customer_id":"\\ud800","feature_id":"basic_messages"}',
    b'{"customer_id":"c@N_@LANE","feature_id":"basic_messages","properties":{"a":"' + b"x" * 60_000 + b'"}}',
)


class OddRequest(NamedTuple):
    """Bytes to send, and what happens to them: the fast lane takes them, the parser refuses them, they are the last."""

    bytes: bytes
    is_hot: bool
    is_refused: bool
    closes: bool


def _body(dice: random.Random) -> bytes:
    body = dice.choice(GOOD_BODIES if dice.random() < 0.75 else BAD_BODIES)
    return body.replace(b"@N", str(dice.randrange(CUSTOMERS)).encode())


def _batch(dice: random.Random) -> bytes:
    """Return an array of up to six bodies, none of them large; most say whether they check or track."""
    bodies = [body for body in (_body(dice) for _ in range(dice.randint(1, 6))) if len(body) < 1_000]
    verb = b'{"verb":"%b",' % dice.choice((b"check", b"track", b"track", b"grant"))
    return b"[%b]" % b",".join([body.replace(b"{", verb, 1) for body in bodies])


class _Draft:
    """A request under construction: a good one, until something odd is done to it."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.method, self.path, self.version = b"POST", dice.choice(HOT_PATHS), b"HTTP/1.1"
        self.body = _batch(dice) if self.path == BATCH else _body(dice)
        self.headers: Headers = [
            (b"Host", b"@HOST"),
            (b"Authorization", b"Bearer @KEY"),
            (b"Content-Type", b"application/json"),
            (b"User-Agent", b"made-up/1.0"),
        ]
        self.length: bytes | None = None
        self.sent: bytes | None = None  # the body as it is sent, where that is not the body
        self.is_hot, self.is_refused, self.closes = True, False, False

    def header(self, name: bytes, *values: bytes) -> None:
        """Send a header so often, instead of what was sent before."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        self.headers += [(name, value) for value in values]

    def made(self) -> OddRequest:
        """Return it as bytes."""
        self.dice.shuffle(self.headers)
        length = b"%d" % self.size(self.body) if self.length is None else self.length
        if length:
            self.headers.append((b"Content-Length", length))
        lines = [b"%b: %b\r\n" % pair for pair in self.headers]
        head = b"%b %b %b\r\n%b\r\n" % (self.method, self.path, self.version, b"".join(lines))
        return OddRequest(
            head + (self.body if self.sent is None else self.sent), self.is_hot, self.is_refused, self.closes
        )

    @staticmethod
    def size(body: bytes) -> int:
        return len(body.replace(b"@LANE", b"....."))  # as long as the lanes' names


Oddity = Callable[[_Draft], None]


def _headers(
    name: bytes, *values: bytes, hot: bool = False, refused: bool = False, closes: bool = False
) -> Oddity:
    def do(draft: _Draft) -> None:
        draft.header(name, *values)
        draft.is_hot = draft.is_hot and hot
        draft.is_refused |= refused
        draft.closes |= closes

    return do


def _line(
    *, method: bytes = b"POST", path: bytes | None = None, refused: bool = False, hot: bool = False
) -> Oddity:
    def do(draft: _Draft) -> None:
        draft.method, draft.is_hot, draft.is_refused = method, draft.is_hot and hot, refused
        draft.path = draft.path if path is None else path

    return do


def _version(version: bytes, *, refused: bool = False) -> Oddity:
    def do(draft: _Draft) -> None:
        draft.version, draft.is_hot, draft.is_refused, draft.closes = version, False, refused, True

    return do


def _query(draft: _Draft) -> None:
    draft.path, draft.is_hot = draft.path + b"?a=1", False


def _escaped(draft: _Draft) -> None:
    draft.path = draft.path.replace(b"c", b"%63")  # both lanes unquote it


def _chunked(draft: _Draft) -> None:
    draft.header(b"Transfer-Encoding", b"chunked")
    draft.length, draft.is_hot = b"", False
    chunks = (draft.body[:1], draft.body[1:])
    draft.sent = b"".join(b"%x\r\n%b\r\n" % (draft.size(chunk), chunk) for chunk in chunks if chunk)
    draft.sent += b"0\r\n\r\n"


def _chunked_and_length(draft: _Draft) -> None:
    draft.header(b"Transfer-Encoding", b"chunked")
    draft.is_hot, draft.is_refused = False, True


def _two_lengths(draft: _Draft) -> None:
    draft.header(b"content-length", b"5")
    draft.is_hot, draft.is_refused = False, True


def _too_large(draft: _Draft) -> None:
    draft.body = b'{"customer_id":"' + b"x" * BODY_BYTES_MAX + b'"}'
    draft.path = draft.path.replace(BATCH, b"/v1/balances.check")  # a batch may be larger
    draft.is_hot = False


def _no_body(draft: _Draft) -> None:
    draft.body, draft.is_hot = b"", False


def _no_length(draft: _Draft) -> None:
    draft.body, draft.length, draft.is_hot = b"", b"", False


def _odd_length(text: bytes) -> Oddity:
    def do(draft: _Draft) -> None:
        draft.length, draft.is_hot, draft.is_refused = text, False, True

    return do


def _padded_length(draft: _Draft) -> None:
    draft.length, draft.is_hot = b"%08d" % draft.size(draft.body), False


def _same_key_again(draft: _Draft) -> None:
    draft.header(b"Idempotency-Key", b"again-%d" % draft.dice.randrange(4))


def _from_before(version: bytes) -> Oddity:
    """An old client of the legacy routes: it is answered in its own shape, and whoever is not there is made."""

    def do(draft: _Draft) -> None:
        draft.path = draft.dice.choice((b"/v1/check", b"/v1/track"))
        draft.header(b"X-Api-Version", version)
        if draft.dice.random() < 0.3:
            name = b"new%d" % draft.dice.randrange(10**6)
            draft.body = b'{"customer_id":"%b_@LANE","feature_id":"basic_messages"}' % name

    return do


ODDITIES: Sequence[Oddity] = (
    _from_before(b"2.0"),
    _from_before(b"1.2"),
    _from_before(b"0.2"),
    _query,
    _escaped,
    _chunked,
    _chunked_and_length,
    _two_lengths,
    _too_large,
    _no_body,
    _no_length,
    _odd_length(b"-1"),
    _odd_length(b"+5"),
    _odd_length(b"0x10"),
    _odd_length(b"5, 5"),
    _odd_length(b"99999999999999999999999"),
    _padded_length,
    _same_key_again,
    _same_key_again,
    _line(method=b"PUT"),
    _line(method=b"GET"),
    _line(method=b"BREW", refused=True),
    _line(path=b"/v1/balances.checks"),
    _line(path=b"/v1/check/"),
    _line(path=b"/v1/check%0A"),
    _line(path=b"//v1/check"),
    _line(path=b"/v1/features.list"),
    _line(path=b"http://evil.example/v1/check", hot=True),  # the Host header alone names us
    _version(b"HTTP/1.0"),
    _version(b"HTTP/3.7", refused=True),
    _headers(b"Authorization"),
    _headers(b"Authorization", b"Bearer cg_sk_test_wrong"),
    _headers(b"Authorization", b"Bearer am_sk_test_wrong"),
    _headers(b"Authorization", b"Bearer "),
    _headers(b"Authorization", b"bearer @KEY"),
    _headers(b"Authorization", b"Bearer  @KEY"),
    _headers(b"Authorization", b"Bearer @KEY", b"Bearer @KEY"),
    _headers(b"Authorization", b"Bearer \xff\xfe"),
    _headers(b"AUTHORIZATION", b"Bearer @KEY", hot=True),
    _headers(b"Content-Type"),
    _headers(b"Content-Type", b"text/plain"),
    _headers(b"Content-Type", b"application/json-patch"),
    _headers(b"Content-Type", b"application/json", b"text/plain"),
    _headers(b"Content-Type", b"Application/JSON; charset=utf-8", hot=True),
    _headers(b"Content-Encoding", b"gzip"),
    _headers(b"Host"),
    _headers(b"Host", b"evil.example"),
    _headers(b"Host", b"@HOST", b"@HOST"),
    _headers(b"Host", b"LOCALHOST", hot=True),
    _headers(b"Origin", b"http://evil.example"),
    _headers(b"Origin", b"http://@HOST"),
    _headers(b"Sec-Fetch-Site", b"cross-site"),
    _headers(b"Sec-Fetch-Mode", b"cors", hot=True),
    _headers(b"X-Api-Version", b"2.1", hot=True),
    _headers(b"X-Api-Version", b"2.3.0", hot=True),
    _headers(b"X-Api-Version", b"v1"),
    _headers(b"X-Api-Version", b"2.3", b"2.3"),
    _headers(b"Idempotency-Key", b"one", b"two"),
    _headers(b"Idempotency-Key", b"", hot=True),
    _headers(b"Idempotency-Key", b"\xc3\xa4", hot=True),
    _headers(b"Idempotency-Key", b"x" * 300, hot=True),
    _headers(b"Connection", b"keep-alive", hot=True),
    _headers(b"Connection", b"close", hot=True, closes=True),
    _headers(b"Connection", b"Close, x", closes=True),
    _headers(b"Connection", b"upgrade, keep-alive"),
    _headers(b"Expect", b"100-continue"),
    _headers(b"Expect", b"the unexpected"),
    _headers(b"Transfer-Encoding", b"gzip", refused=True),
    _headers(b"Traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", hot=True),
    _headers(b"Forwarded", b"for=1.2.3.4;host=evil.example;proto=https", hot=True),
    _headers(b"X-Forwarded-Host", b"evil.example", hot=True),
    _headers(b"X-Long", b"x" * 100_000, hot=True),
    _headers(b"X-Odd", b"a\x00b", refused=True),
    _headers(b"X Odd", b"a", refused=True),
    _headers(b"X-Odd", b"a\r\n folded", refused=True),
    _headers(b"X-Odd", b"a\nContent-Length: 3", refused=True),
    _headers(b"Content_Length", b"3", hot=True),
    _headers(b"X-Many", *[b"1"] * 200),
)


def made_up(seed: int) -> OddRequest:
    """Return one request: two of five are good, the others have an oddity or two."""
    dice = random.Random(seed)
    draft = _Draft(dice)
    odd = dice.random()
    if odd > 0.4:
        dice.choice(ODDITIES)(draft)
    if odd > 0.95 and draft.is_hot:
        dice.choice(ODDITIES)(draft)
    return draft.made()


def with_oddity(oddity: Oddity, seed: int) -> OddRequest:
    """Return one request with this oddity."""
    draft = _Draft(random.Random(seed))
    oddity(draft)
    return draft.made()
