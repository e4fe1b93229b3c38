"""`creditgate key`: make, list, rotate and revoke API keys, beside a running sidecar or with nothing running."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from creditgate.commands.place import DEFAULT_PLACE, DEFAULT_SEALED, DataPlace, SealedPlace
from creditgate.core.scopes import KeyScope
from creditgate.settings import Settings
from creditgate.terminal import fail, run, unix_ms

if TYPE_CHECKING:
    from creditgate.engine.access import ApiKey, NewKey

key_app = cyclopts.App(name="key", help="Make, list, rotate and revoke API keys.")

KeyId = Annotated[
    str, Parameter(help="The id, or enough of its beginning, as `creditgate key list` tells it.")
]

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@key_app.command
def create(
    *,
    name: Annotated[str, Parameter(help="What it is for, as the list shows it.")],
    scope: Annotated[
        KeyScope,
        Parameter(
            help="gate: check, track and hold; ingest: track alone; read: change nothing; admin: everything."
        ),
    ],
    expires: Annotated[
        datetime | None, Parameter(help="Until when it is let in, such as 2027-01-31 (UTC).")
    ] = None,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Make a key. Its secret is shown this once."""
    settings = place.settings()
    _show(run(_create(settings, name, scope, unix_ms(expires) if expires else None)))


@key_app.command(name="list")
def list_keys(
    *,
    place: DataPlace = DEFAULT_PLACE,
) -> None:
    """List every key that there ever was: id, scope, last four characters, when it was made, its state, its name."""
    settings = place.settings()
    now_ms = unix_ms(datetime.now(UTC))
    for key_id, key in run(_list(settings)):
        print(key_line(key_id, key, now_ms))


@key_app.command
def revoke(
    key_id: KeyId,
    *,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Let a key end: a second later no sidecar lets it in any more."""
    settings = place.settings()
    key = run(_revoke(settings, key_id))
    print(f"revoked {key.name} ({key.scope}, …{key.last_four})")


@key_app.command
def rotate(
    key_id: KeyId,
    *,
    overlap: Annotated[
        str, Parameter(help="How long the old one goes on, such as 30m, 24h or 7d; 0 ends it now.")
    ] = "24h",
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Make a key with the name and scope of another, which goes on for a while. The new secret is shown this once."""
    settings = place.settings()
    overlap_ms = duration_ms(overlap)
    if overlap_ms is None:
        fail(f"--overlap: {overlap} is no time; say 30m, 24h or 7d.")
    _show(run(_rotate(settings, key_id, overlap_ms)))


def duration_ms(text: str) -> int | None:
    """Return a time such as `24h` in ms, None for what is none."""
    found = re.fullmatch(r"(\d{1,5})([smhd])", text, re.ASCII)
    return int(found[1]) * _UNITS_MS[found[2]] if found else 0 if text == "0" else None


def key_line(key_id: str, key: "ApiKey", now_ms: int) -> str:
    """Return what the list says of one key."""
    state = "live"
    if key.ends_at is not None:
        state = f"{'until' if key.is_live(now_ms) else 'ended'} {_day(key.ends_at)}"
    return f"{key_id}  {key.scope:<6}  …{key.last_four:<4}  {_day(key.created_at)}  {state:<22}  {key.name}"


def _day(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _show(made: "NewKey") -> None:
    print(f"key {made.id}, shown this once:")
    print(made.secret)


async def _create(settings: Settings, name: str, scope: KeyScope, ends_at: int | None) -> "NewKey":
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    async with operations.open_keys(settings) as (environment, access):
        return await access.create(environment, name=name, scope=scope, ends_at=ends_at)


async def _list(settings: Settings) -> "list[tuple[str, ApiKey]]":
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    async with operations.open_keys(settings) as (_, access):
        return await access.list()


async def _revoke(settings: Settings, key_id: str) -> "ApiKey":
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    async with operations.open_keys(settings) as (_, access):
        return await access.revoke(key_id)


async def _rotate(settings: Settings, key_id: str, overlap_ms: int) -> "NewKey":
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    async with operations.open_keys(settings) as (environment, access):
        return await access.rotate(environment, key_id, overlap_ms=overlap_ms)
