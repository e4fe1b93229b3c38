"""The command line. A setting is the flag, else the environment (CREDITGATE_PORT), else the file, else the default."""

import gc
import inspect
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import CycloptsError, Parameter
from cyclopts.config import Env, Toml
from cyclopts.validators import Number

from creditgate import __version__
from creditgate.core.amounts import format_amount
from creditgate.errors import CreditgateError
from creditgate.key_commands import key_app
from creditgate.settings import WORKERS_MAX, Environment, Idempotency, Payments, Settings, without_password
from creditgate.telemetry import configure_logging
from creditgate.terminal import (
    DatabaseUrl,
    DataDir,
    Prefix,
    RedisUrl,
    SealKeyFile,
    check_origins,
    fail,
    run,
    unix_ms,
)

if TYPE_CHECKING:
    from creditgate.core.catalog_changes import FileChanges
    from creditgate.engine.statement import Line

CONFIG_FILE = Path("creditgate.toml")

app = cyclopts.App(
    name="creditgate",
    help="A metering sidecar: checks and takes credits in one atomic Redis call, and keeps every change in SQL.",
    version=__version__,
)

import_app = cyclopts.App(name="import", help="Take over customers from another system.")
app.command(import_app)
app.command(key_app)

_DEFAULTS = Settings()


@app.command
def serve(
    *,
    host: Annotated[str, Parameter(help="The address to listen on.")] = _DEFAULTS.host,
    port: Annotated[int, Parameter(help="The port to listen on; 0 picks one.")] = _DEFAULTS.port,
    unix_socket: Annotated[
        Path | None, Parameter(help="Also listen on a unix socket here, for the user who runs this alone.")
    ] = None,
    open_to_network: Annotated[
        bool, Parameter(help="Let --host be an address that other machines reach; put TLS in front of it.")
    ] = _DEFAULTS.open_to_network,
    workers: Annotated[
        int,
        Parameter(
            help="Processes that answer calls, beside one for the background; 0 does all in one process.",
            validator=Number(gte=0, lte=WORKERS_MAX),
        ),
    ] = _DEFAULTS.workers,
    verify_every_hours: Annotated[
        float, Parameter(help="How often the sidecar verifies its books; 0: never.", validator=Number(gte=0))
    ] = _DEFAULTS.verify_every_hours,
    keep_history_days: Annotated[
        int,
        Parameter(
            help="After how many days usage is pruned from SQL; at least two are kept; 0: never pruned.",
            validator=Number(gte=0),
        ),
    ] = _DEFAULTS.keep_history_days,
    data_dir: DataDir = _DEFAULTS.data_dir,
    spool_max_mb: Annotated[
        int,
        Parameter(
            help="How much usage to keep in DATA_DIR/spool while Redis is away; 0: none, it is answered 429.",
            validator=Number(gte=0),
        ),
    ] = _DEFAULTS.spool_max_mb,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
    payments: Annotated[
        Payments, Parameter(help="In environment test: pay on a page of our own, or at once.")
    ] = _DEFAULTS.payments,
    idempotency: Annotated[
        Idempotency, Parameter(help="A repeated key replays the first answer, or is refused as Autumn does.")
    ] = _DEFAULTS.idempotency,
    allowed_hosts: Annotated[
        tuple[str, ...], Parameter(help="Host headers that are answered.")
    ] = _DEFAULTS.allowed_hosts,
    allowed_origins: Annotated[
        tuple[str, ...],
        Parameter(
            help="Origins of web pages, such as https://app.example, that may ask with a customer's token.",
            validator=check_origins,
        ),
    ] = _DEFAULTS.allowed_origins,
    public_url: Annotated[
        str | None, Parameter(help="Where customers' browsers reach us, for links to checkouts.")
    ] = None,
    allow_private_webhooks: Annotated[
        bool, Parameter(help="Let webhooks go to addresses that are not on the public internet.")
    ] = _DEFAULTS.allow_private_webhooks,
    catalog: Annotated[
        Path | None, Parameter(help="A catalog file to apply before the first call is answered.")
    ] = None,
    demo: Annotated[bool, Parameter(help="Load the tutorial's catalog and print curl lines to try.")] = False,
) -> None:
    """Run the sidecar. The first start makes the data: environment test, 8 partitions, and a secret key."""
    settings = Settings(
        host=host,
        port=port,
        unix_socket=unix_socket,
        open_to_network=open_to_network,
        workers=workers,
        verify_every_hours=verify_every_hours,
        keep_history_days=keep_history_days,
        spool_max_mb=spool_max_mb,
        data_dir=data_dir,
        redis=redis,
        database=database,
        prefix=prefix,
        seal_key_file=seal_key_file,
        payments=payments,
        idempotency=idempotency,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
        public_url=public_url,
        allow_private_webhooks=allow_private_webhooks,
    )

    def announce(base_url: str, key_file: Path) -> None:
        print(f"creditgate ready on {base_url}", flush=True)
        if demo:
            print(demo_text(base_url, key_file), flush=True)

    _serve(settings, catalog, demo, announce)


@app.command
def init(
    *,
    env: Annotated[Environment, Parameter(help="What this data is for.")] = Environment.TEST,
    partitions: Annotated[int, Parameter(help="Journal streams; 64 for a cluster.")] = 8,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
) -> None:
    """Make the data, and decide what is fixed from then on: the environment and the number of partitions."""
    settings = Settings(data_dir=data_dir, redis=redis, database=database, prefix=prefix)
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    made = run(operations.init(settings, env, partitions))
    print(f"creditgate data ready: environment {made.environment}, {made.partitions} partitions")


@app.command
def apply(
    file: Annotated[Path, Parameter(help="The catalog file, in TOML.")],
    *,
    dry_run: Annotated[bool, Parameter(help="Say what would change, and change nothing.")] = False,
    prune: Annotated[
        bool, Parameter(help="Archive the features and plans that the file does not name.")
    ] = False,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Make the catalog what a file says, in one step or not at all; a running sidecar goes on meanwhile."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    applied = run(_apply(settings, file, prune, dry_run))
    for line in apply_lines(applied, is_dry_run=dry_run):
        print(line)


@app.command
def statement(
    customer_id: Annotated[str, Parameter(help="Whose statement.")],
    *,
    since: Annotated[
        datetime | None, Parameter(help="From when on, such as 2026-11-01 (UTC); without it, all of it.")
    ] = None,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
) -> None:
    """Tell one customer's journal in words, with the balance after each line: where did the credits go?"""
    settings = Settings(data_dir=data_dir, redis=redis, database=database, prefix=prefix)
    for line in run(_statement(settings, customer_id, unix_ms(since) if since else None)):
        print(line)


@app.command
def verify(
    *,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Prove that every balance is the sum of its history. Ends with 0 if it is, with 1 if anything differs."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    if not run(_verify(settings)):
        sys.exit(1)


@app.command
def rebuild(
    *,
    partitions: Annotated[
        int | None, Parameter(help="Move the data into so many partitions; the sidecar must be stopped.")
    ] = None,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Fill Redis from SQL: balances, catalog, keys, settings. `serve` does so by itself; this shows the progress."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with _counter("customers put back") as count:
        restored = run(operations.rebuild(settings, count, partitions=partitions))
    print(f"{restored} customers put back" if restored else "Redis has everything that SQL has")


@app.command
def backup(
    directory: Annotated[Path, Parameter(help="Where to; it must not exist yet.")],
    *,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Copy the ledger, the key and the spool, complete as of now, beside a running sidecar or with nothing running."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    made = run(operations.backup(settings, directory))
    print(f"backed up into {directory}: environment {made.environment}, {made.partitions} partitions")
    if made.spooled:
        print(f"and {made.spooled} uses that were kept during an outage, which the next start posts")


@app.command
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


@app.command
def move(
    *,
    to_redis: Annotated[str, Parameter(help="The Redis to move to: redis://, rediss:// or unix:// URL.")],
    to_database: Annotated[str, Parameter(help="The database to move to: sqlite:/// or postgresql:// URL.")],
    to_prefix: Prefix = _DEFAULTS.prefix,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Copy the data to other servers and prove the copy. The sidecar must be stopped; interrupted, run it again."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    to = Settings(
        data_dir=data_dir, redis=to_redis, database=to_database, prefix=to_prefix, seal_key_file=seal_key_file
    )
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    proof = run(operations.move(settings, to, _counter))
    print(f"{proof.customers} customers, {proof.entries} entries: both sides hold, and are the same.")
    print("Start the sidecar on the new servers, and on the old ones no more:")
    print(_serve_line(to))


@app.command
def prune(
    *,
    before: Annotated[
        datetime, Parameter(help="What was recorded before it goes, such as 2026-01-01 (UTC).")
    ],
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Remove old usage from SQL. Balances stay, and are still proven; interrupted, run it again."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with _counter("items removed") as count:
        done = run(operations.prune(settings, unix_ms(before), count))
    print(f"{done.items} items removed")
    if done.begins_at:
        since = datetime.fromtimestamp(done.begins_at / 1000, UTC)
        print(f"the history of usage begins at {since:%Y-%m-%d %H:%M:%S} UTC")


@import_app.command(name="autumn")
def import_autumn(
    *,
    url: Annotated[str, Parameter(help="Where it is, such as https://api.useautumn.com.")],
    key: Annotated[
        str, Parameter(help="Its secret key; better in the environment.", env_var="AUTUMN_SECRET_KEY")
    ],
    skip_unknown: Annotated[bool, Parameter(help="End with 0 though something could not be taken.")] = False,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
    seal_key_file: SealKeyFile = None,
) -> None:
    """Take over the customers of an Autumn with what they hold there. The source decides: run it as often as needed."""
    settings = Settings(
        data_dir=data_dir, redis=redis, database=database, prefix=prefix, seal_key_file=seal_key_file
    )
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with _counter("customers read") as count:
        report = run(operations.import_autumn(settings, url, key, count))
    print(
        f"{report.customers} customers: {report.created} created, {report.corrected} corrected,"
        f" {report.unchanged} as they were"
    )
    for text, customers, first in report.lacks.values():
        named = f" ({', '.join(first)}{', …' if customers > len(first) else ''})" if first else ""
        print(f"- not taken: {text}; {customers} customers{named}")
    if report.lacks and not skip_unknown:
        sys.exit(1)


@app.command
def doctor(
    *,
    data_dir: DataDir = _DEFAULTS.data_dir,
    redis: RedisUrl = None,
    database: DatabaseUrl = None,
    prefix: Prefix = _DEFAULTS.prefix,
) -> None:
    """Look at the machine, Redis and SQL, and say what to change. Ends with 1 if anything is bad."""
    settings = Settings(data_dir=data_dir, redis=redis, database=database, prefix=prefix)
    if not run(_doctor(settings)):
        sys.exit(1)


def demo_text(base_url: str, key_file: Path) -> str:
    """Return three curl lines that work as they stand: make a customer, check, track."""

    def curl(route: str, body: str) -> str:
        key = f'-H "Authorization: Bearer $(cat {key_file})"'
        return f"curl -s {base_url}/v1/{route} {key} -H 'Content-Type: application/json' -d '{body}'"

    return "\n".join(
        [
            f"The secret key is in {key_file}. Try:",
            curl("customers.get_or_create", '{"customer_id": "user_123"}'),
            curl(
                "balances.check",
                '{"customer_id": "user_123", "feature_id": "basic_messages", "required_balance": 5}',
            ),
            curl("balances.track", '{"customer_id": "user_123", "feature_id": "basic_messages", "value": 2}'),
        ]
    )


def _serve_line(settings: Settings) -> str:
    """Return the command that serves these servers; passwords are for their owner to put in."""

    words = ["--data-dir", str(settings.data_dir), "--redis", without_password(settings.redis or "")]
    words += ["--database", without_password(settings.database or "")]
    words += ["--prefix", settings.prefix] if settings.prefix != _DEFAULTS.prefix else []
    return shlex.join(["creditgate", "serve", *words])


def apply_lines(applied: "FileChanges", *, is_dry_run: bool) -> list[str]:
    """Return what a catalog file changed, one line for each feature and plan, and the sum of it."""
    lines = [str(change) for change in applied.changes]
    if applied.unnamed:
        lines.append(
            f"not in the file, so left as they are (--prune archives them): {', '.join(applied.unnamed)}"
        )
    counts = Counter(change.kind for change in applied.changes)
    if not applied.changes:
        return [*lines, f"Nothing changes: {applied.unchanged} unchanged."]
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    end = "Nothing was written (--dry-run)" if is_dry_run else "Applied"
    return [*lines, f"{end}: {told}, {applied.unchanged} unchanged."]


def line_text(line: "Line") -> str:
    """Return one line of a statement: when, what, the change, and what was left of which feature."""
    at = datetime.fromtimestamp(line.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    sign = "+" if line.change_nanos > 0 else ""
    change, left = sign + format_amount(line.change_nanos), format_amount(line.remaining_nanos)
    return f"{at}  {line.text:<40} {change:>16} {left:>16} {line.feature_id}"


def main() -> None:
    """Run the command line; an error is one sentence on stderr and exit code 1."""
    configure_logging()
    file = _config_file(sys.argv[1:])
    app.config = [Env("CREDITGATE_", command=False), *([file] if file else [])]
    try:
        app(_without_config(sys.argv[1:]))
    finally:
        gc.freeze()  # else Python looks through all that was imported for garbage once more: a quarter of a second


def _serve(
    settings: Settings, catalog: Path | None, demo: bool, announce: Callable[[str, Path], None]
) -> None:
    from creditgate import operations, processes  # here, since `creditgate --help` need not load SQLAlchemy

    try:
        file = operations.read_catalog(catalog) if catalog else None
        processes.serve(settings, processes.First(file, demo), announce)
    except CreditgateError as error:
        fail(error.message)


async def _apply(settings: Settings, path: Path, prune: bool, dry_run: bool) -> "FileChanges":
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    return await operations.apply(settings, operations.read_catalog(path), prune=prune, dry_run=dry_run)


@contextmanager
def _counter(what: str) -> Iterator[Callable[[int], None]]:
    """Show a number that grows on stderr, where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} {task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda number: shown.update(task, completed=number)


async def _verify(settings: Settings) -> bool:
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    with _counter("customers checked") as count:
        proof, spooled = await operations.verify(settings, count)
    print(f"{proof.customers} customers, {proof.entries} entries, {proof.differences_count} differences")
    if proof.sealed_items is not None:
        since = datetime.fromtimestamp((proof.sealed_since or 0) / 1000, UTC)
        told = f"since {since:%Y-%m-%d %H:%M:%S} UTC" if proof.sealed_since else "from the start"
        print(f"{proof.sealed_items} items are sealed, {told}")
    if proof.open_batches:
        print(f"{proof.open_batches} batches of usage are still to be worked off")
    if spooled:
        print(f"{spooled} uses that were kept during an outage wait in the spool; they are in no balance yet")
    for difference in proof.differences:
        print(f"- {difference}")
    return proof.holds


async def _doctor(settings: Settings) -> bool:
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    is_well = True
    async for level, about, text in operations.doctor(settings):
        print(f"{level:<5} {about:<12} {text}", flush=True)
        is_well = is_well and level != "bad"
    return is_well


async def _statement(settings: Settings, customer_id: str, since: int | None) -> list[str]:
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    async with operations.open_statements(settings) as statements:
        told = await statements.of(customer_id, since=since)
    lines = [] if told.is_whole else ["(earlier lines are left out; see --since)"]
    return lines + [line_text(line) for line in told.lines]


def _config_file(arguments: list[str]) -> Toml | None:
    """Return the file named by --config, which must be there, or the one in this folder if it is there."""
    is_named = "--config" in arguments[:-1]
    path = Path(arguments[arguments.index("--config") + 1]) if is_named else CONFIG_FILE
    if not is_named and not path.exists():
        return None
    # One file serves all commands: `verify` passes over the port. What no command has is misspelled.
    file = Toml(path, use_commands_as_keys=False, must_exist=True, allow_unknown=True)
    try:
        unknown = [key for key in file.config if key.replace("-", "_") not in _setting_names()]
    except (OSError, CycloptsError) as error:
        fail(f"{path}: {getattr(error, 'strerror', None) or error}")
    if unknown:
        fail(f"{path}: there is no setting {unknown[0]}; `creditgate serve --help` names them all.")
    return file


def _setting_names() -> set[str]:
    commands = (app[name].default_command for name in app if not name.startswith("-"))
    return {setting for command in commands if command for setting in inspect.signature(command).parameters}


def _without_config(arguments: list[str]) -> list[str]:
    if "--config" not in arguments[:-1]:
        return arguments
    at = arguments.index("--config")
    return arguments[:at] + arguments[at + 2 :]
