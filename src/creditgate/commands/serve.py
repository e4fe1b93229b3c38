"""`creditgate serve`: run the sidecar, with every setting there is."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from creditgate.commands.place import DatabaseUrl, DataDir, Prefix, RedisUrl, SealKeyFile
from creditgate.errors import CreditgateError
from creditgate.settings import WORKERS_MAX, Idempotency, Payments, Settings
from creditgate.terminal import check_origins, fail

_DEFAULTS = Settings()


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


def _serve(
    settings: Settings, catalog: Path | None, demo: bool, announce: Callable[[str, Path], None]
) -> None:
    from creditgate import operations, processes  # here, since `creditgate --help` need not load SQLAlchemy

    try:
        file = operations.read_catalog(catalog) if catalog else None
        processes.serve(settings, processes.First(file, demo), announce)
    except CreditgateError as error:
        fail(error.message)
