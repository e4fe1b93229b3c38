"""Who is let in: versions, hosts and origins, as pure functions of headers."""

import pytest
from starlette.datastructures import Headers

from creditgate.api.door import HostCheck, check_origin, check_version, read_version
from creditgate.api.problems import TurnedAway


async def _nothing(*_: object) -> None:
    """An application that is never called."""


@pytest.mark.parametrize(
    "version",
    ["2.1", "2.1.0", "2.3.0", "2.4.0", "2.5.0", "2.10", "3", "2026-03-17", "2026-03-18", "2026-05-13.clover"],
)
def test_versions_we_speak(version: str) -> None:
    """Every SDK from API 2.1 on gets in, also those that are newer than this sidecar."""
    check_version(Headers({"x-api-version": version}))


def test_no_version_is_the_newest() -> None:
    """A curl line without the header works."""
    check_version(Headers({}))


@pytest.mark.parametrize(
    "version",
    ["2", "2.0", "2.0.0", "1.2", "0.2", "1.4", "beta", "2026-03-16", "2025-05-05", "2025-02-01.clover"],
)
def test_versions_with_other_answers(version: str) -> None:
    """An old SDK is told to update, instead of reading an answer that it misunderstands."""
    with pytest.raises(TurnedAway, match=r"the oldest is 2\.1") as refused:
        check_version(Headers({"x-api-version": version}))
    assert (refused.value.status, refused.value.code) == (400, "invalid_api_version")


@pytest.mark.parametrize(
    ("version", "read"),
    [
        ("2.5.0", (2, 5)),
        ("2", (2, 0)),
        ("beta", (1, 4)),
        ("1.2", (1, 2)),
        ("2026-05-13", (2, 3)),
        ("2026-03-16", (2, 0)),
        ("2026-03-15", (1, 2)),
        ("2025-04-17.clover", (1, 1)),
        ("2025-04-16", (0, 2)),
        ("2025-02-01", (0, 1)),
        ("1970-01-01", (0, 1)),
    ],
)
def test_versions_that_the_older_routes_speak(version: str, read: tuple[int, int]) -> None:
    """The older routes answer in the shape of a version, so a date must mean the version of that day."""
    assert read_version(Headers({"x-api-version": version})) == read


@pytest.mark.parametrize("version", ["", "v2.3", "2.x", "2.3.0.1", "٢.٣", "2026-02-30", "2.1\t", "latest"])
def test_what_is_no_version(version: str) -> None:
    """A header that nobody could have meant is refused in Autumn's words."""
    headers = Headers(raw=[(b"x-api-version", version.encode("utf-8"))])
    for read in (check_version, read_version):
        with pytest.raises(TurnedAway, match="is not a valid API version"):
            read(headers)


@pytest.mark.parametrize(
    ("hosts", "is_allowed"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1:8787"], True),
        (["LOCALHOST:80"], True),
        (["[::1]"], True),
        (["[::1]:8787"], True),
        (["::1"], False),
        (["evil.example"], False),
        (["localhost.evil.example"], False),
        (["evil.example:127.0.0.1"], False),
        (["localhost", "localhost"], False),
        ([""], False),
        ([], False),
    ],
)
def test_hosts(hosts: list[str], is_allowed: bool) -> None:
    """A name that an attacker points at our address is still not our name."""
    check = HostCheck(_nothing, ["127.0.0.1", "localhost", "[::1]"], "sandbox")
    assert check.names_us(hosts) is is_allowed


def test_any_host() -> None:
    """Behind a proxy that checks for itself, `*` lets every name in."""
    assert HostCheck(_nothing, ["*"], "sandbox").names_us(["api.example"])


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8787"},
        {"host": "localhost:8787", "origin": "http://localhost:8787"},
        {"host": "localhost:8787", "origin": "http://localhost:8787", "sec-fetch-site": "same-origin"},
        {"host": "localhost:8787", "sec-fetch-mode": "cors"},
        {"host": "pay.example", "origin": "https://pay.example"},
    ],
)
def test_programs_and_our_own_page(headers: dict[str, str]) -> None:
    """Programs send no origin (node sends sec-fetch-mode alone), and our own page sends our own."""
    check_origin(Headers(headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"origin": "http://localhost:8787.evil.example"},
        {"origin": "http://localhost:8787", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_foreign_pages(headers: dict[str, str]) -> None:
    """A page in the developer's browser cannot reach the sidecar, not even one on another local port."""
    with pytest.raises(TurnedAway) as refused:
        check_origin(Headers({"host": "localhost:8787"} | headers))
    assert (refused.value.status, refused.value.code) == (403, "cross_site_request")
