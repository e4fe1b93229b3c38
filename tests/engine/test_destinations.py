"""Where webhooks may go: a URL of a caller must not open our own network to it (SSRF)."""

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from creditgate.core.webhooks import Webhook
from creditgate.engine.courier import Courier, Refused
from creditgate.engine.destinations import URL_CHARACTERS_MAX, Destinations, is_public
from creditgate.errors import InvalidInputs, InvalidRequest
from tests.engine.receiver import Receiver

INSIDE = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.2.1", "198.18.0.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "2130706433", "0x7f000001", "0x7f.1", "127.1", "0"),
    *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("[64:ff9b::169.254.169.254]", "[2002:7f00:1::]", "[2001::1]", "[2001:db8::1]", "localhost"),
)
PUBLIC = ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")
MALFORMED = (
    *("", "example.com", "//example.com/", "/hooks", "http://", "https:///hooks", "http:example.com"),
    *("ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)"),
    *("http://user:pass@example.com/", "http://user@example.com/", "http://exa mple.com/"),
    *(
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1/",
        "http://0177.0.0.1/",
    ),
    *("http://example.com/\r\nX: y", "http://example.com/\x00", "http://ex\u00e4mple.com/", "http://a\\@b/"),
    "http://example.com/" + "a" * URL_CHARACTERS_MAX,
)


@pytest.mark.parametrize("host", INSIDE)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_inside_is_refused(host: str, scheme: str) -> None:
    """However an address of our own network is written, a webhook cannot be pointed at it."""
    with pytest.raises(InvalidRequest, match="not on the public internet"):
        await Destinations().check(f"{scheme}://{host}:8080/hooks")
    await Destinations(allow_private=True).check(f"{scheme}://{host}:8080/hooks")


@pytest.mark.parametrize("text", PUBLIC)
def test_the_public_internet_is_allowed(text: str) -> None:
    """The rule does not refuse what it is for."""
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("url", MALFORMED)
async def test_what_is_no_url_is_refused(url: str) -> None:
    """Another scheme, a password, a line break or nonsense is refused, also where private addresses are allowed."""
    with pytest.raises(InvalidInputs, match="url: "):
        await Destinations(allow_private=True).check(url)


async def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address among a name's public ones is enough."""
    _resolver(monkeypatch, ["93.184.216.34", "10.0.0.7"])
    with pytest.raises(InvalidRequest, match=r"leads to 10\.0\.0\.7"):
        await Destinations().check("https://example.com/hooks")


async def test_a_name_without_an_address_may_be_set_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook can be made before its DNS is; each delivery looks again."""
    _resolver(monkeypatch, [])
    await Destinations().check("https://example.com/hooks")
    courier = Courier(Destinations())
    with pytest.raises(Refused, match="has no address"):
        await courier.deliver(_webhook("https://example.com/hooks"), "msg_1", b"{}")


async def test_a_name_that_moves_inside_later_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name was public when the webhook was made, and is loopback when something is delivered."""
    async with Receiver().running() as inside:
        webhook = _webhook(f"http://rebound.example.com:{inside.port}/")
        _resolver(monkeypatch, ["93.184.216.34"])
        await Destinations().check(webhook.url)
        _resolver(monkeypatch, ["127.0.0.1"])
        courier = Courier(Destinations())
        with pytest.raises(Refused, match=r"leads to 127\.0\.0\.1"):
            await courier.deliver(webhook, "msg_1", b"{}")
        assert inside.messages == []


async def test_the_address_that_was_looked_at_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is asked for once, so no second answer can lead elsewhere; the receiver still sees the name."""
    async with Receiver().running() as receiver:
        asked = _resolver(monkeypatch, ["127.0.0.1"])
        courier = Courier(Destinations(allow_private=True))
        await courier.deliver(_webhook(f"http://hooks.example.com:{receiver.port}/x"), "msg_1", b"{}")
        assert [message.headers["host"] for message in receiver.messages] == [
            f"hooks.example.com:{receiver.port}"
        ]
        assert [name for name in asked if name == "hooks.example.com"] == ["hooks.example.com"]


async def test_the_next_address_is_tried_where_nobody_listens() -> None:
    """A host with a broken IPv6 is reached over IPv4."""
    async with Receiver().running() as receiver:

        class Both(Destinations):
            async def addresses(self, url: Any) -> list[str]:
                return ["::1", "127.0.0.1"]

        courier = Courier(Both(allow_private=True))
        await courier.deliver(_webhook(receiver.url), "msg_1", b"{}")
        assert len(receiver.messages) == 1


def _webhook(url: str) -> Webhook:
    return Webhook("hook", "whk_1", url, "whsec_MDEyMzQ1Njc4OWFiY2RlZg==", 0, 0)


def _resolver(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    """Let every name but those of numbers have these addresses; returns the names that were asked for."""
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = type(loop).getaddrinfo

    async def found(self: Any, host: Any, port: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        asked.append(name)
        if name.replace(".", "").isdigit() or ":" in name:
            return await real(self, host, port, **options)
        if not addresses:
            raise socket.gaierror("no such name")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(type(loop), "getaddrinfo", found)
    return asked
