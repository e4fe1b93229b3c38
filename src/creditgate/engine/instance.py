"""One environment's data: what was decided when it was made, and what a server must be before we use it."""

import secrets

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.cluster import ClusterClient, servers_of
from creditgate.balances.keys import PARTITIONS_MAX, Keys
from creditgate.balances.store import BalanceStore
from creditgate.balances.stream import JournalStream
from creditgate.core.decisions import Status
from creditgate.core.journal import SYSTEM_PARTITION, Call
from creditgate.engine.ids import OpIds
from creditgate.errors import StartupError
from creditgate.settings import Environment

PARTITIONS = 8
START_WINDOW_MS = 60_000
VERSION_MIN = {"redis": (7, 0), "valkey": (8, 0)}

SETTINGS = "settings"  # the type of its document

_ID = "-"


class Instance(msgspec.Struct, frozen=True):
    """Fixed when the data is made. The signing secret is shared by all sidecars on the same data."""

    environment: Environment
    partitions: int
    signing_secret: str


async def check_server(redis: "Redis") -> None:
    """Raise StartupError, in one sentence, if this server must not hold balances, or any node of this cluster."""
    if isinstance(redis, ClusterClient) and redis.topology.slots_without_node:
        raise StartupError(f"--redis: {redis.topology.slots_without_node} slots of the cluster have no node.")
    for server in servers_of(redis).values():
        await _check_one(server)


async def _check_one(redis: "Redis") -> None:
    try:
        server = await redis.info()  # not CONFIG, which hosted servers refuse
    except (RedisError, OSError) as error:
        raise StartupError(f"--redis: the server does not answer: {error}") from error
    kind = "valkey" if "valkey_version" in server else "redis"
    version = str(server.get("valkey_version", server["redis_version"]))
    if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN[kind]:
        raise StartupError(f"--redis: {kind} {version} is too old; creditgate needs Redis 7 or Valkey 8.")
    if server.get("role") != "master":
        raise StartupError("--redis: the server is a replica, which cannot take credits; name its primary.")
    policy = server.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StartupError(
            f"--redis: maxmemory-policy is {policy}, which would forget balances; set it to noeviction."
        )


async def read_instance(redis: "Redis", prefix: str) -> Instance | None:
    """Return what was decided when the data under this prefix was made, None if there is none."""
    _, documents = await _store(redis, prefix, RedisClock()).documents(SETTINGS)
    raw = documents.get(_ID)
    return msgspec.json.decode(raw, type=Instance) if raw is not None else None


async def make_instance(redis: "Redis", prefix: str, environment: Environment, partitions: int) -> Instance:
    """Decide it, for data that is not there yet; StartupError if it is there already with something else decided."""
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise StartupError(f"--partitions: must be from 1 to {PARTITIONS_MAX}.")
    clock = RedisClock()
    store = _store(redis, prefix, clock)
    wanted = Instance(environment, partitions, secrets.token_hex(32))
    await JournalStream(redis, Keys(1, prefix)).make(SYSTEM_PARTITION)  # SQL knows of no other
    call = Call(verb="init", op_id=OpIds().next(), catalog_version=0)
    not_after = await clock.read(redis) + START_WINDOW_MS
    written = await store.put(
        not_after=not_after,
        call=call,
        document_type=SETTINGS,
        document_id=_ID,
        expected_version=0,
        document=msgspec.json.encode(wanted),
    )
    made = await read_instance(redis, prefix)
    if made is None:
        raise StartupError(f"--redis: the settings could not be written ({written.status.name}).")
    if written.status is not Status.OK and (made.environment, made.partitions) != (environment, partitions):
        raise StartupError(
            f"The data was made for environment {made.environment} with {made.partitions} partitions; that is fixed."
        )
    return made


def _store(redis: "Redis", prefix: str, clock: RedisClock) -> BalanceStore:
    return BalanceStore(redis, Keys(1, prefix), clock)
