"""Reading customers from Autumn, or from anything that speaks its API: `customers.list`, page by page.

What is read is put into our words one customer at a time, so one that cannot be read stops no other.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import stamina

from creditgate import __version__
from creditgate.core.arrivals import Arrival
from creditgate.errors import CreditgateError, StartupError, Unavailable
from creditgate.sources.autumn_wire import arrival_of

PAGE_CUSTOMERS = 50  # as many as their own clients ask for
TIMEOUT_S = 30.0
ATTEMPTS = 6
WAIT_MAX_S = 30.0  # also where the server asks for more
SAID_CHARACTERS_MAX = 200  # of what the server says in an error
# Theirs is 2.5.0 today; a server that somebody runs from the public source may end at 2.3.0.
API_VERSIONS = ("2.5.0", "2.3.0")

_RETRYING = stamina.AsyncRetryingCaller(attempts=ATTEMPTS, timeout=None, wait_max=WAIT_MAX_S)


class _Page(msgspec.Struct):
    customers: list[msgspec.Raw] = msgspec.field(name="list")
    next_cursor: str | None


class _Problem(msgspec.Struct):
    message: str = ""
    code: str = ""


async def read_customers(url: str, key: str) -> AsyncIterator[list[Arrival]]:
    """Yield the customers, page by page.

    Raises StartupError if the source refuses the key or does not speak this API, Unavailable if it does not answer.
    """
    async with httpx.AsyncClient(base_url=_base(url), timeout=TIMEOUT_S, headers=_headers(key)) as client:
        cursor, seen = "", set[str]()
        while True:
            page = await _page(client, cursor)
            yield [arrival_of(bytes(raw)) for raw in page.customers]
            if not page.next_cursor:
                return
            cursor = page.next_cursor
            if cursor in seen:
                raise Unavailable("The source gives the same page again and again")
            seen.add(cursor)


async def _page(client: httpx.AsyncClient, cursor: str) -> _Page:
    body = {"start_cursor": cursor, "limit": PAGE_CUSTOMERS}
    try:
        answer = await _RETRYING(_wait, _post, client, body)
        return msgspec.json.decode(answer.content, type=_Page)
    except httpx.HTTPStatusError as error:
        problem = _problem(error.response)
        if problem.code == "invalid_api_version" and client.headers["x-api-version"] != API_VERSIONS[-1]:
            client.headers["x-api-version"] = API_VERSIONS[-1]
            return await _page(client, cursor)
        raise _refused(error.response.status_code, problem) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise StartupError("--url: not a URL; say https://HOST") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"The source does not answer: {error!r}") from error
    except msgspec.DecodeError as error:
        raise StartupError(f"--url: what answers is no customers.list: {error}") from error


async def _post(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return (await client.post("/v1/customers.list", json=body)).raise_for_status()


def _wait(error: Exception) -> bool | float:
    """Say whether to try again, and when if the server says so."""
    if not isinstance(error, httpx.HTTPStatusError):
        return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
    if error.response.status_code != 429 and error.response.status_code < 500:
        return False
    said = error.response.headers.get("retry-after", "")
    return min(float(said), WAIT_MAX_S) if said.isdecimal() else True


def _refused(status: int, problem: _Problem) -> CreditgateError:
    if status in (401, 403):  # not in its own words, which repeat a part of the key
        return StartupError("--key: the source does not accept it")
    if status == 429 or status >= 500:
        return Unavailable(f"The source answers {status}, again and again")
    said = problem.message[:SAID_CHARACTERS_MAX] or "no customers.list is there"
    return StartupError(f"--url: the source answers {status}: {said}")


def _problem(answer: httpx.Response) -> _Problem:
    try:
        return msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.DecodeError:
        return _Problem()


def _base(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _headers(key: str) -> dict[str, Any]:
    return {
        "Authorization": f"Bearer {key}",
        "x-api-version": API_VERSIONS[0],
        "User-Agent": f"creditgate/{__version__}",
    }
