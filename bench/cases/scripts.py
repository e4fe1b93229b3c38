"""What Valkey itself spends on a script, and what it keeps, as multiples of plain commands and values."""

import time

from bench import data
from bench.commands import FEATURE, Command
from bench.samples import Row
from bench.stage import Stage
from creditgate.balances.keys import Keys

VERBS = ("check", "track", "track with key", "read")
CALLS = 1_000  # in one write
KEPT = 2_000  # entries and keys whose memory is divided by their number
KEYED = 50  # customers who have those keys
ONE_FIELD = ("HSET", "bench:hash", "field", 123456789)
EMPTY = "return 1"


def run(stage: Stage) -> list[Row]:
    """Measure time of scripts, then memory."""
    return [*_times(stage), *_bytes(stage)]


def _times(stage: Stage) -> list[Row]:
    calls = 100 if stage.quick else CALLS
    names = [f"customer_{number % stage.customers}" for number in range(calls)]
    empty: Command = ("EVALSHA", stage.redis.script_load(EMPTY), 0)
    plain = {"one HSET": [ONE_FIELD] * calls, "EVALSHA of return 1": [empty] * calls}
    found: dict[str, list[float]] = {name: [] for name in (*VERBS, *plain)}
    for _ in range(stage.rounds):
        for verb in VERBS:
            found[verb].append(stage.us_of(stage.commands(stage.raw, verb, names)))
        for name, commands in plain.items():
            found[name].append(stage.us_of(commands))
        stage.forget_journal(stage.raw)
    return [
        Row(case=f"script {verb}", figure="Valkey us", beside=name, ours=found[verb], theirs=found[name])
        for verb in VERBS
        for name in plain
    ]


def _bytes(stage: Stage) -> list[Row]:
    settings = stage.filled("bytes", customers=stage.customers)
    keys, redis = Keys(data.PARTITIONS, settings.prefix), stage.redis
    names = data.customer_ids(stage.customers)
    redis.hset(*ONE_FIELD[1:])
    redis.set("bench:idempotent", "1", ex=3600)
    for number in range(KEPT):
        redis.xadd("bench:stream", {"customer": f"customer_{number}", "feature": FEATURE, "value": 1})
    record = stage.memory_of([keys.record(name) for name in names]) / len(names)
    with_keys = names[:KEYED]
    pipeline = redis.pipeline(transaction=False)
    for command in stage.commands(settings, "track with key", with_keys * (KEPT // KEYED)):
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    pipeline.execute()
    buckets = [keys.key_buckets(name, int(time.time() * 1000))[0] for name in with_keys]
    key = stage.memory_of(buckets) / KEPT
    entry = stage.memory_of(data.journals(keys)) / KEPT
    stream = stage.memory_of(["bench:stream"]) / KEPT
    beside = {
        "a customer": (record, "a hash of one field", stage.memory_of(["bench:hash"])),
        "an idempotency key": (key, "a SET with EX", stage.memory_of(["bench:idempotent"])),
        "a journal entry": (entry, "an entry of three short fields", stream),
    }
    return [
        Row(case=f"memory of {what}", figure="bytes", beside=name, ours=[ours], theirs=[theirs])
        for what, (ours, name, theirs) in beside.items()
    ]
