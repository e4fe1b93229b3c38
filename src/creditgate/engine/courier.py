"""One attempt to deliver one message: to an address that is allowed, signed, within a time, following nobody's lead."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from functools import cache

import httpx

from creditgate import __version__
from creditgate.core.webhooks import Webhook, signature
from creditgate.engine.destinations import Destinations, parsed
from creditgate.errors import CreditgateError

ATTEMPT_TIMEOUT_S = 10.0  # of one attempt in all; a receiver answers first and works afterwards
CONNECT_TIMEOUT_S = 3.0  # to one address, so that a second one of the name fits


class Refused(CreditgateError):
    """The message did not arrive, for the reason that the message of this error tells."""

    code = "webhook_refused"


class Courier:
    """Delivers messages over HTTP. The body of an answer is never read, a redirect is a failure."""

    def __init__(self, destinations: Destinations, *, timeout_s: float = ATTEMPT_TIMEOUT_S) -> None:
        self._destinations = destinations
        self._timeout_s = timeout_s

    async def deliver(self, webhook: Webhook, message_id: str, body: bytes) -> None:
        """Return once the receiver has answered 2xx; raises Refused for everything else."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._post(webhook, message_id, body)
        except TimeoutError:
            raise Refused(f"no answer within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise Refused(f"{type(error).__name__}: {error}") from error
        except CreditgateError as error:
            raise Refused(error.message) from error
        if not 200 <= status < 300:
            raise Refused(f"answered {status}")

    async def _post(self, webhook: Webhook, message_id: str, body: bytes) -> int:
        """Send it to the first address of the host that takes a connection; returns the status."""
        url = parsed(webhook.url)
        addresses = await self._destinations.addresses(url)
        headers = {"host": url.netloc.decode("ascii"), **_headers(webhook.secret, message_id, body)}
        async with await self._client() as client:
            for address in addresses:
                try:
                    return await _post_to(
                        client, url.copy_with(host=address), url.raw_host.decode("ascii"), headers, body
                    )
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if address == addresses[-1]:
                        raise
        raise AssertionError("a name that resolves has an address")

    async def _client(self) -> httpx.AsyncClient:
        """Return a client of this message's own: a connection made for a name must not carry what goes to another.

        It takes no proxy from the environment, which would look the name up itself.
        """
        return httpx.AsyncClient(
            trust_env=False,
            verify=await asyncio.to_thread(_authorities),
            follow_redirects=False,
            timeout=httpx.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S),
        )


@cache
def _authorities() -> ssl.SSLContext:
    """Return whose certificates are trusted. To read them takes 30 ms: once, and not for a start without webhooks."""
    return httpx.create_ssl_context(trust_env=False)


async def _post_to(
    client: httpx.AsyncClient, url: httpx.URL, name: str, headers: Mapping[str, str], body: bytes
) -> int:
    """The certificate must be that of the name, though the connection is made to the address."""
    sent = client.stream("POST", url, content=body, headers=headers, extensions={"sni_hostname": name})
    async with sent as response:
        return response.status_code


def _headers(secret: str, message_id: str, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks, and the same under the names that Svix's libraries look for."""
    now = int(time.time())
    values = {"id": message_id, "timestamp": str(now), "signature": signature(secret, message_id, now, body)}
    return {
        "content-type": "application/json",
        "user-agent": f"creditgate/{__version__}",
        **{f"webhook-{name}": value for name, value in values.items()},
        **{f"svix-{name}": value for name, value in values.items()},
    }
