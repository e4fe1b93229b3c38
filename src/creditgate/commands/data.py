"""The commands for the data as a whole: make it, back it up and restore it, move it, fill Redis from it, prune it."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from creditgate.commands.place import DEFAULT_PLACE, DEFAULT_SEALED, DataPlace, Prefix, SealedPlace
from creditgate.settings import Environment, Settings, without_password
from creditgate.terminal import counter, run, unix_ms

_DEFAULTS = Settings()


def init(
    *,
    env: Annotated[Environment, Parameter(help="What this data is for.")] = Environment.TEST,
    partitions: Annotated[int, Parameter(help="Journal streams; 64 for a cluster.")] = 8,
    place: DataPlace = DEFAULT_PLACE,
) -> None:
    """Make the data, and decide what is fixed from then on: the environment and the number of partitions."""
    settings = place.settings()
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    made = run(operations.init(settings, env, partitions))
    print(f"creditgate data ready: environment {made.environment}, {made.partitions} partitions")


def rebuild(
    *,
    partitions: Annotated[
        int | None, Parameter(help="Move the data into so many partitions; the sidecar must be stopped.")
    ] = None,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Fill Redis from SQL: balances, catalog, keys, settings. `serve` does so by itself; this shows the progress."""
    settings = place.settings()
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with counter("customers put back") as count:
        restored = run(operations.rebuild(settings, count, partitions=partitions))
    print(f"{restored} customers put back" if restored else "Redis has everything that SQL has")


def backup(
    directory: Annotated[Path, Parameter(help="Where to; it must not exist yet.")],
    *,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Copy the ledger, the key and the spool, complete as of now, beside a running sidecar or with nothing running."""
    settings = place.settings()
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    made = run(operations.backup(settings, directory))
    print(f"backed up into {directory}: environment {made.environment}, {made.partitions} partitions")
    if made.spooled:
        print(f"and {made.spooled} uses that were kept during an outage, which the next start posts")


def restore(
    directory: Annotated[Path, Parameter(help="The backup.")],
    *,
    data_dir: Annotated[Path, Parameter(help="The data directory to make; it must not exist yet.")],
) -> None:
    """Make a data directory from a backup; the next `serve` fills Redis from it."""
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    found = run(operations.restore(directory, data_dir))
    print(f"restored the data of {found.made_at:%Y-%m-%d %H:%M:%S} UTC; start it with:")
    print(f"creditgate serve --data-dir {data_dir}")


def move(
    *,
    to_redis: Annotated[str, Parameter(help="The Redis to move to: redis://, rediss:// or unix:// URL.")],
    to_database: Annotated[str, Parameter(help="The database to move to: sqlite:/// or postgresql:// URL.")],
    to_prefix: Prefix = _DEFAULTS.prefix,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Copy the data to other servers and prove the copy. The sidecar must be stopped; interrupted, run it again."""
    settings = place.settings()
    to = msgspec.structs.replace(settings, redis=to_redis, database=to_database, prefix=to_prefix)
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    proof = run(operations.move(settings, to, counter))
    print(f"{proof.customers} customers, {proof.entries} entries: both sides hold, and are the same.")
    print("Start the sidecar on the new servers, and on the old ones no more:")
    print(_serve_line(to))


def prune(
    *,
    before: Annotated[
        datetime, Parameter(help="What was recorded before it goes, such as 2026-01-01 (UTC).")
    ],
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Remove old usage from SQL. Balances stay, and are still proven; interrupted, run it again."""
    settings = place.settings()
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with counter("items removed") as count:
        done = run(operations.prune(settings, unix_ms(before), count))
    print(f"{done.items} items removed")
    if done.begins_at:
        since = datetime.fromtimestamp(done.begins_at / 1000, UTC)
        print(f"the history of usage begins at {since:%Y-%m-%d %H:%M:%S} UTC")


def _serve_line(settings: Settings) -> str:
    """Return the command that serves these servers; passwords are for their owner to put in."""

    words = ["--data-dir", str(settings.data_dir), "--redis", without_password(settings.redis or "")]
    words += ["--database", without_password(settings.database or "")]
    words += ["--prefix", settings.prefix] if settings.prefix != _DEFAULTS.prefix else []
    return shlex.join(["creditgate", "serve", *words])
