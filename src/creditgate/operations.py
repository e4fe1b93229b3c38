"""What an operator does with the data besides serving it: apply a catalog file, back it up, move it.

Each function opens what it needs, does one thing and closes it again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from pathlib import Path
from urllib.parse import unquote

from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.cluster import connect
from creditgate.balances.connection import ServerGuard
from creditgate.balances.keys import Keys
from creditgate.balances.store import BalanceStore, Unknown
from creditgate.balances.stream import JournalStream
from creditgate.core.catalog_changes import FileChanges, changes_by
from creditgate.core.catalog_file import CatalogFile, CatalogFileError, read_catalog_file
from creditgate.engine import backup as backups
from creditgate.engine import move as moves
from creditgate.engine import prune as prunes
from creditgate.engine.access import Access
from creditgate.engine.backup import Manifest
from creditgate.engine.doctor import examine_journal, examine_redis
from creditgate.engine.drain import drained, flushing
from creditgate.engine.imports import Report
from creditgate.engine.instance import Instance, check_server, read_instance
from creditgate.engine.machine import Finding, Level, examine_machine
from creditgate.engine.move import Counter, Side
from creditgate.engine.permissions import acl_line
from creditgate.engine.prune import Pruned
from creditgate.engine.rebuild import repartition
from creditgate.engine.reconciler import Reconciler
from creditgate.engine.spool import waiting
from creditgate.engine.statement import Statements
from creditgate.engine.verify import Proof, Verifier
from creditgate.errors import CreditgateError, StartupError
from creditgate.ledger.store import Ledger
from creditgate.openings import (
    Stores,
    UseCases,
    embedded_redis,
    has_data,
    open_data,
    open_ledger,
    open_stores,
    open_use_cases,
    spool_of,
    verifier_of,
)
from creditgate.settings import Environment, Settings, without_password


async def init(settings: Settings, environment: Environment, partitions: int) -> Instance:
    """Make the data; StartupError if it is there already with something else decided."""
    async with (
        embedded_redis(settings, join=True) as redis_url,
        open_stores(settings, redis_url, make=(environment, partitions)) as stores,
    ):
        made = stores.instance
    if (made.environment, made.partitions) != (environment, partitions):
        raise StartupError(
            f"The data was made for environment {made.environment} with {made.partitions} partitions; that is fixed."
        )
    return made


def read_catalog(path: Path) -> CatalogFile:
    """Return what a catalog file says; raises CatalogFileError, also where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CatalogFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CatalogFileError(f"{path}:{line}: must be UTF-8") from None
    return read_catalog_file(text, str(path))


async def apply(settings: Settings, file: CatalogFile, *, prune: bool, dry_run: bool) -> FileChanges:
    """Make the catalog what the file says, and return what that changes; a dry run only returns it.

    A running sidecar answers by the new catalog when this returns.
    """
    async with _open(settings, join=True) as (_, cases):
        now_ms = cases.clock.now_ms()
        if dry_run:
            return changes_by(file, cases.catalogs.current, prune=prune, now=now_ms)
        async with flushing(cases.flusher):
            return await cases.catalogs.apply(file, prune=prune, now_ms=now_ms)


async def verify(settings: Settings, progress: Callable[[int], None]) -> tuple[Proof, int]:
    """Return the proof, and how many uses that were kept during an outage wait in the spool of the data directory."""
    async with open_data(settings) as (_, stores):
        proof = await verifier_of(stores).verify(progress)
        return proof, len(await asyncio.to_thread(waiting, spool_of(settings, stores.instance)))


@asynccontextmanager
async def open_verifier(settings: Settings) -> AsyncIterator[Verifier]:
    """Yield a verifier of the data, beside a running sidecar or with nothing running."""
    async with open_data(settings) as (_, stores):
        yield verifier_of(stores)


async def rebuild(
    settings: Settings, progress: Callable[[int], None], *, partitions: int | None = None
) -> int:
    """Put back into Redis what SQL has beyond it; returns how many customers. Nothing happens if it has everything.

    With `partitions`, the data is first moved into so many; then nothing else may work on it.
    """
    async with open_data(settings, join=partitions is None) as (_, stores):
        keys = stores.keys
        if partitions is not None:
            store = BalanceStore(stores.redis, keys, RedisClock())
            keys = await repartition(stores.redis, keys, store, stores.ledger, partitions)
        reconciler = Reconciler(stores.redis, keys, RedisClock(), stores.ledger, ServerGuard(), progress)
        await reconciler.run()
        return reconciler.customers_restored


@asynccontextmanager
async def open_statements(settings: Settings) -> AsyncIterator[Statements]:
    """Yield the statements of the data, beside a running sidecar or with nothing running."""
    async with open_data(settings) as (_, stores):
        yield Statements(stores.keys, JournalStream(stores.redis, stores.keys), stores.ledger)


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[tuple[Environment, Access]]:
    """Yield the API keys, beside a running sidecar or with nothing running, and what they are keys of."""
    async with _open(settings, join=True) as (stores, cases), flushing(cases.flusher):
        yield stores.instance.environment, cases.access


async def backup(settings: Settings, target: Path) -> Manifest:
    """Write a backup that has all that was answered before; a running sidecar goes on meanwhile."""
    if not settings.database_url.startswith("sqlite:"):
        raise StartupError("PostgreSQL has a backup of its own: use pg_dump, at any time.")
    backups.check_empty(target)
    key_file = settings.key_file
    async with _open(settings, join=True) as (stores, cases), flushing(cases.flusher):
        # Before the ledger: a use that is posted meanwhile is in both then, and its op id tells; else in neither.
        directory = spool_of(settings, stores.instance)
        spool = backups.Spooled(directory.name, await asyncio.to_thread(waiting, directory))
        await drained(stores.keys, JournalStream(stores.redis, stores.keys), stores.ledger)
        return await asyncio.to_thread(
            backups.back_up, target, stores.ledger, stores.instance, key_file, spool
        )


async def restore(source: Path, data_dir: Path) -> Manifest:
    """Make a data directory from a backup; the next start fills Redis from it."""
    return await asyncio.to_thread(backups.restore, source, data_dir)


async def move(settings: Settings, to: Settings, counter: Counter) -> Proof:
    """Copy the data to other servers, and prove both sides; see `engine/move.py`."""
    async with (
        _open(settings, join=False) as (stores, _),
        _open_target(to, stores.instance.partitions) as target,
    ):
        source = Side(stores.redis, stores.keys, stores.ledger)
        return await moves.move(source, target, stores.instance, counter)


async def prune(settings: Settings, before_ms: int, count: Callable[[int], None]) -> Pruned:
    """Remove usage that was recorded before an instant, beside a running sidecar or with nothing running."""
    async with open_data(settings) as (_, stores):
        return await prunes.prune(stores.redis, stores.keys, stores.ledger, before_ms, count)


async def import_autumn(settings: Settings, url: str, key: str, progress: Callable[[int], None]) -> Report:
    """Take over the customers of an Autumn, beside a running sidecar or with nothing running; see `take_over.py`.

    Raises StartupError if the source cannot be read, Unavailable if it, or Redis, does not answer any more.
    """
    try:
        from creditgate.sources.autumn import read_customers  # here, since its libraries are an extra
    except ModuleNotFoundError as error:
        text = f'{error.name} is not installed; run: pip install "creditgate[import]"'
        raise StartupError(text) from error
    async with _open(settings, join=True) as (_, cases), flushing(cases.flusher):
        return await cases.importer.take(read_customers(url, key), progress)


async def doctor(settings: Settings) -> AsyncIterator[Finding]:
    """Yield what is found of the machine, of Redis and of SQL, beside a running sidecar or with nothing running.

    Changes no data. Where something cannot be opened, that is a finding, and the rest is examined all the same.
    """
    if not has_data(settings):
        yield Finding(
            Level.BAD, "data", f"there is none in {settings.data_dir}; name its directory with --data-dir"
        )
        return
    directory = settings.data_dir if settings.data_dir.exists() else Path.cwd()
    for finding in await asyncio.to_thread(lambda: list(examine_machine(directory))):
        yield finding
    async with AsyncExitStack() as opened:
        try:
            redis_url = await opened.enter_async_context(embedded_redis(settings, join=True))
            redis = await opened.enter_async_context(aclosing(await connect(redis_url)))
        except StartupError as error:
            place = without_password(settings.redis or "")
            yield Finding(Level.BAD, "redis", error.message.replace("--redis: the server", place, 1))
            return
        async for finding in examine_redis(redis, without_password(redis_url)):
            yield finding
        async for finding in _examine_data(settings, redis):
            yield finding
    if settings.redis is not None:
        yield Finding(Level.OK, "redis user", f"no other rights are needed than: {acl_line(settings.prefix)}")


async def _examine_data(settings: Settings, redis: "Redis") -> AsyncIterator[Finding]:
    place = without_password(settings.database_url)
    if _is_missing(settings.database_url):
        yield Finding(Level.BAD, "sql", f"{place} is not there; name the database with --database")
        return
    try:
        with closing(Ledger(settings.database_url)) as ledger:
            await asyncio.to_thread(ledger.positions)
            yield Finding(Level.OK, "sql", place)
            instance = await read_instance(redis, settings.prefix)
            if instance is None:
                text = f"Redis holds nothing under prefix {settings.prefix}; the next start fills it from SQL"
                yield Finding(Level.WARN, "sql lag", text)
                return
            async for finding in examine_journal(redis, Keys(instance.partitions, settings.prefix), ledger):
                yield finding
    except (Unknown, RedisError, OSError):
        return  # Redis does not answer, which was said
    except CreditgateError as error:
        yield Finding(Level.BAD, "sql", error.message)


def _is_missing(database_url: str) -> bool:
    """Say whether it names a SQLite file that is not there; to open it would make it."""
    scheme, _, path = database_url.partition(":///")
    return scheme == "sqlite" and not Path(unquote(path)).exists()


@asynccontextmanager
async def _open(settings: Settings, *, join: bool) -> AsyncIterator[tuple[Stores, UseCases]]:
    """Yield data that is there, with Redis brought up to SQL; `join`: a sidecar may run on it."""
    async with (
        open_data(settings, join=join) as (redis_url, stores),
        open_use_cases(settings, redis_url, stores) as cases,
    ):
        yield stores, cases


@asynccontextmanager
async def _open_target(to: Settings, partitions: int) -> AsyncIterator[Side]:
    assert to.redis is not None
    async with AsyncExitStack() as opened:
        try:
            redis = await opened.enter_async_context(aclosing(await connect(to.redis)))
            await check_server(redis)
            ledger = opened.enter_context(closing(open_ledger(to)))
        except StartupError as error:
            raise StartupError(error.message.replace("--", "--to-", 1)) from error
        await asyncio.to_thread(ledger.migrate)
        yield Side(redis, Keys(partitions, to.prefix), ledger)
