"""Where a webhook may go: to the public internet, never into our own network unless the operator allows it.

A name can point at another address the next time it is asked (DNS rebinding). So the addresses are looked at when a
webhook is made, and again before each delivery, which then connects to the very address that was looked at.
"""

import asyncio
import ipaddress
import socket

import httpx

from creditgate.errors import InvalidInputs, InvalidRequest

URL_CHARACTERS_MAX = 2048
RESOLVE_TIMEOUT_S = 3.0
ADDRESSES_MAX = 3  # of one name, that are tried

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Public by number, but a cloud's own: Azure answers a machine's questions about itself here.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# They lead to an IPv4 address that a gateway picks out of them; nobody's webhook is there.
_TUNNELS = tuple(map(ipaddress.ip_network, ("::/96", "2001::/32", "2002::/16", "64:ff9b:1::/48")))


class Unresolved(InvalidRequest):
    """The name has no address now."""


class Destinations:
    """The rule about addresses; `allow_private` lifts it."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private

    async def check(self, url: str) -> None:
        """Raise InvalidInputs for what is no URL of http(s), InvalidRequest for one that leads where it may not.

        A name that is not known yet is let through: each delivery looks again.
        """
        try:
            await self.addresses(parsed(url))
        except Unresolved:
            return

    async def addresses(self, url: httpx.URL) -> list[str]:
        """Return the addresses to connect to; Unresolved if there are none, InvalidRequest if one is not allowed."""
        found = await _resolve(url)
        if not self._allow_private:
            for address in found:
                if not is_public(address):
                    raise InvalidRequest(
                        f"url: {url.host} leads to {address}, which is not on the public internet;"
                        " the operator can allow it with --allow-private-webhooks"
                    )
        return [str(address) for address in found[:ADDRESSES_MAX]]


def parsed(url: str) -> httpx.URL:
    """Return a URL of http or https with a host and without a password; InvalidInputs for anything else."""
    if len(url) > URL_CHARACTERS_MAX:
        raise InvalidInputs(f"url: must have at most {URL_CHARACTERS_MAX} characters")
    if not url.isascii() or not url.isprintable() or any(char in url for char in ' \\"<>^`{|}'):
        raise InvalidInputs("url: must be written as a URL, without blanks or control characters")
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise InvalidInputs("url: must be a URL such as https://example.com/hooks") from None
    is_port = found.port is None or 0 < found.port < 65_536
    if found.scheme not in ("http", "https") or not found.host or not is_port:
        raise InvalidInputs("url: must be a URL such as https://example.com/hooks")
    if found.userinfo:
        raise InvalidInputs("url: must not contain a user or password; deliveries are signed")
    return found


def is_public(address: Address) -> bool:
    """Say whether an address is one of the public internet, also one of IPv4 that is written as IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.is_site_local or any(address in tunnel for tunnel in _TUNNELS):
            return False
    is_special = address.is_multicast or address.is_reserved or address in _METADATA
    return address.is_global and not is_special


async def _resolve(url: httpx.URL) -> list[Address]:
    """Return every address of a host. The resolver also reads `2130706433` and `0x7f.1`, as whoever connects would."""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            answers = await asyncio.get_running_loop().getaddrinfo(
                url.raw_host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
    except (OSError, UnicodeError, TimeoutError) as error:
        raise Unresolved(f"url: {url.host} has no address now") from error
    found = [ipaddress.ip_address(answer[4][0]) for answer in answers]
    return list(dict.fromkeys(found))
