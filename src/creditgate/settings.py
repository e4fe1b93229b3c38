"""The settings of a process, as values. Where they come from (flags, environment, file) is the business of `cli.py`."""

import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

import msgspec

_PASSWORDS = re.compile(r"((?:^|&)[^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)  # in the query part of a URL

WORKERS_MAX = 64  # a slip of the keyboard is not to fork a thousand


class Environment(StrEnum):
    """One data directory or prefix holds one of them, fixed when the data is made."""

    TEST = "test"
    LIVE = "live"


class Payments(StrEnum):
    """How a price is paid in environment test: on a page of our own, or at once."""

    SANDBOX = "sandbox"
    INSTANT = "instant"


class Idempotency(StrEnum):
    """What a repeated key is answered: the first answer again, or 409 as Autumn does."""

    REPLAY = "replay"
    AUTUMN = "autumn"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Without `redis` and `database`: our own Valkey, and SQLite, in the data directory."""

    host: str = "127.0.0.1"
    port: int = 8787
    unix_socket: Path | None = None
    open_to_network: bool = False
    workers: int = 1
    verify_every_hours: float = 24.0  # 0: never
    keep_history_days: int = 0  # 0: for good
    data_dir: Path = Path("creditgate-data")
    redis: str | None = None
    database: str | None = None
    spool_max_mb: int = 64
    seal_key_file: Path | None = None
    prefix: str = "cg"
    payments: Payments = Payments.SANDBOX
    idempotency: Idempotency = Idempotency.REPLAY
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    allowed_origins: tuple[str, ...] = ()
    public_url: str | None = None
    allow_private_webhooks: bool = False

    @property
    def key_file(self) -> Path:
        """Where the first API key is kept."""
        return self.data_dir / "secret_key"

    @property
    def database_url(self) -> str:
        return self.database or sqlite_url(self.data_dir / "ledger.db")


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file, whatever is in its path."""
    return f"sqlite:///{quote(str(path.absolute()))}"


def without_password(url: str) -> str:
    """Return the URL as it may be shown: the word PASSWORD stands where its password did."""
    scheme, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    login, at, host = place.rpartition("@")
    user, colon, password = login.partition(":")
    shown_login = f"{user}{colon}PASSWORD" if password else login
    shown_query = _PASSWORDS.sub(r"\1PASSWORD", query)
    return f"{scheme}://{shown_login}{at}{host}{mark}{shown_query}"
