"""What the cases share: one Valkey for all, the sidecar and its peers on it, the load client. Taken down in order."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import msgspec
from redis import Redis

from bench import data, wrk
from bench.agent import CHECKOUT, Agent
from bench.commands import Calls, Command, packed
from bench.cpu import Meter, Spent
from bench.samples import Sample
from creditgate.balances.keys import Keys
from creditgate.settings import Settings
from tests.balances.valkey_process import ValkeyProcess
from tests.sidecar_process import SidecarProcess

DRAIN_S = 60.0  # without an entry less
STOP_S = 10.0
PLAIN = "plain "
NEEDED = {"limits_fixed": "limits", "slowapi_fixed": "slowapi"}  # of the extra `bench`
CLI = "from creditgate.cli import main; main()"


class HttpServer(msgspec.Struct, frozen=True):
    """A server that is asked over HTTP."""

    name: str
    pid: int
    port: int
    key: str = "none"


class Stage:
    """Everything that runs during a bench, in a directory that is removed; `rounds` and `seconds` of each run."""

    def __init__(
        self,
        *,
        rounds: int,
        seconds: float,
        quick: bool = False,
        full: bool = False,
        other: str | None = None,
    ) -> None:
        """`quick` shows only that all works, `full` takes long; `other` is another checkout."""
        self.rounds, self.seconds, self.quick, self.full, self.other = rounds, seconds, quick, full, other
        self.failed: Counter[str] = Counter()
        self.skipped: set[str] = set()
        self._opened = ExitStack()
        self._payloads = 0
        self._peers: dict[str, HttpServer] = {}
        self._sidecars: dict[str, SidecarProcess] = {}
        self._calls: dict[str, Calls] = {}
        self._settings_of: dict[str, Settings] = {}

    def __enter__(self) -> Self:
        self.directory = Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="cgb")))
        self.valkey = ValkeyProcess(settings={"appendfsync": "everysec"})
        self._opened.callback(self.valkey.close)
        self.valkey.start()
        self.redis: Redis = self._opened.enter_context(self.valkey.client())
        self.valkey_pid = int(self.redis.info("server")["process_id"])
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def customers(self) -> int:
        """How many customers the data of most cases has."""
        return 50 if self.quick else data.CUSTOMERS

    def settings(self, prefix: str) -> Settings:
        """Return new data under a prefix, with its customers in Redis and in SQL."""
        settings = data.settings_of(self.valkey.url, self.directory, prefix)
        asyncio.run(data.make(settings, customers=self.customers))
        return settings

    def filled(self, prefix: str, *, customers: int, rows: int = 1) -> Settings:
        """Return new data under a prefix, with so many customers in Redis alone."""
        settings = data.settings_of(self.valkey.url, self.directory, prefix)
        asyncio.run(data.fill(settings, customers=customers, rows=rows))
        return settings

    @cached_property
    def raw(self) -> Settings:
        """Data that nobody flushes: scripts are called on it without the sidecar."""
        return self.settings("raw")

    @cached_property
    def load(self) -> Agent:
        """The load client."""
        return self.agent("bench.load")

    @cached_property
    def sidecar(self) -> HttpServer:
        """The sidecar of this checkout, on data of its own, with its background work."""
        return self.start_sidecar("creditgate", self.settings("cg"))

    @cached_property
    def answer(self) -> bytes:
        """A real answer of the sidecar to a track."""
        assert self.sidecar.pid
        return (
            self._sidecars["creditgate"]
            .call("balances.track", msgspec.json.decode(self.bodies("track")[0]))
            .content
        )

    def agent(self, module: str, *arguments: str, source: Path = CHECKOUT) -> Agent:
        """Start a process that works on demand."""
        return self._opened.enter_context(Agent(module, *arguments, source=source))

    def start_sidecar(
        self,
        name: str,
        settings: Settings,
        *,
        source: Path = CHECKOUT,
        program: str = CLI,
        arguments: Sequence[str] = (),
    ) -> HttpServer:
        """Start a sidecar on data that was made; `source` is the checkout that it runs, `program` its main."""
        assert settings.redis is not None
        servers = [
            "--redis",
            settings.redis,
            "--database",
            settings.database_url,
            "--prefix",
            settings.prefix,
            *arguments,
        ]
        main = ["env", f"PYTHONPATH={source / 'src'}", sys.executable, "-c", program]
        process = SidecarProcess(arguments=servers, main=main)
        self._opened.callback(process.close)
        process.start()
        assert process.process is not None
        self._sidecars[name], self._settings_of[name] = process, settings
        return HttpServer(name, process.process.pid, int(process.url.rpartition(":")[2]), process.key)

    def has(self, peer: str) -> bool:
        """Say whether what a peer needs is installed, and note it if not."""
        needed = NEEDED.get(peer.removeprefix(PLAIN))
        if needed is None or find_spec(needed):
            return True
        self.skipped.add(f"{peer}: {needed} is not installed; make bench installs it")
        return False

    def peer(self, name: str) -> HttpServer:
        """Return a peer, started when it is first asked for: behind PLAIN, the same on what pip alone brings."""
        if name not in self._peers:
            kind = name.removeprefix(PLAIN)
            command = [sys.executable, "-m", "bench.peers", kind, self.valkey.url, self.answer.decode()]
            command += ["plain"] if kind != name else []
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
            self._opened.callback(_stop, process)
            assert process.stdout is not None
            self._peers[name] = HttpServer(name, process.pid, int(process.stdout.readline()))
        return self._peers[name]

    def bodies(self, verb: str, customers: Iterable[str] | None = None) -> list[str]:
        """Return the bodies of calls, one for each customer."""
        return [data.body_of(verb, customer) for customer in customers or data.customer_ids(self.customers)]

    def http(self, server: HttpServer, verb: str, bodies: list[str]) -> str:
        """Return the file of the requests to a server."""
        return self.payloads(list(data.http_requests(server.port, server.key, f"balances.{verb}", bodies)))

    def payloads(self, payloads: list[bytes]) -> str:
        """Return the file of what is sent."""
        self._payloads += 1
        path = self.directory / f"payloads{self._payloads}"
        path.write_bytes(msgspec.msgpack.encode(payloads))
        return str(path)

    def ask_http(
        self,
        server: HttpServer,
        payloads: str,
        *,
        connections: int,
        own_client: bool = False,
        rate: float | None = None,
    ) -> Sample:
        """Load a server over HTTP for one round, with wrk if it is there; with our own client also at a rate."""
        watch = {"server": server.pid, "valkey": self.valkey_pid}
        if wrk.PROGRAM and not own_client:
            sample = wrk.run(server.port, payloads, connections, self.seconds, watch)
        else:
            sample = self.ask(
                address=f"127.0.0.1:{server.port}",
                protocol="http",
                payloads=payloads,
                connections=connections,
                watch=watch,
                rate=rate,
            )
        self.failed.update({f"{server.name}: {why}": times for why, times in sample.failed.items()})
        return sample

    def ask_valkey(self, payloads: str, *, connections: int, depth: int = 1) -> Sample:
        """Send commands to Valkey for one round."""
        sample = self.ask(
            address=self.valkey.socket,
            protocol="resp",
            payloads=payloads,
            connections=connections,
            depth=depth,
            watch={"valkey": self.valkey_pid},
        )
        self.failed.update({f"raw: {why}": times for why, times in sample.failed.items()})
        return sample

    def ask(self, **order: Any) -> Sample:
        """Give the load client an order."""
        return msgspec.convert(self.load.ask({"seconds": self.seconds, **order}), Sample)

    def drain(self, settings: Settings) -> None:
        """Wait until the sidecar has moved its journal to SQL, so that its flusher does not meet another's round."""
        streams = data.journals(Keys(data.PARTITIONS, settings.prefix))
        deadline = time.monotonic() + DRAIN_S
        before = entries = sum(map(self.redis.xlen, streams))
        while entries:
            if entries < before:
                before, deadline = entries, time.monotonic() + DRAIN_S
            elif time.monotonic() > deadline:
                self.failed["journal not flushed in time"] += 1
                return
            time.sleep(0.02)
            entries = sum(map(self.redis.xlen, streams))

    def forget_journal(self, settings: Settings) -> None:
        """Empty the journals of data that nobody flushes."""
        for stream in data.journals(Keys(data.PARTITIONS, settings.prefix)):
            self.redis.xtrim(stream, maxlen=0, approximate=False)

    def settings_of(self, sidecar: HttpServer) -> Settings:
        """Return where the data of a sidecar is."""
        return self._settings_of[sidecar.name]

    def with_flush(self, server: HttpServer, sample: Sample) -> Sample:
        """Return the sample of a sidecar with what it spends on moving the journal to SQL afterwards."""
        if server.name not in self._sidecars:
            return sample
        meter = Meter(server.pid)
        self.drain(self.settings_of(server))
        spent = sample.spent["server"]
        more = Spent(spent.worker_ns, spent.rest_ns + meter.spent().all_ns)
        return msgspec.structs.replace(sample, spent={**sample.spent, "server": more})

    def packed(self, settings: Settings, verb: str, customers: list[str] | None = None) -> list[bytes]:
        """Return the same as it is sent."""
        return packed(self.commands(settings, verb, customers))

    def commands_file(self, customers: list[str]) -> str:
        """Return the file of the tracks of these customers, for a client that packs them itself."""
        path = self.directory / f"commands{len(customers)}"
        if not path.exists():
            path.write_bytes(msgspec.msgpack.encode(self.commands(self.raw, "track", customers)))
        return str(path)

    def commands(self, settings: Settings, verb: str, customers: list[str] | None = None) -> list[Command]:
        """Return what the sidecar would send to Redis for one call of each customer."""
        if settings.prefix not in self._calls:
            self._calls[settings.prefix] = asyncio.run(data.calls(settings))
        names = customers or data.customer_ids(self.customers)
        return self._calls[settings.prefix].commands(verb, names)

    def us_of(self, commands: list[Command]) -> float:
        """Send commands of one kind in one write; returns microseconds of each, as Redis counts them (commandstats)."""
        name = f"cmdstat_{str(commands[0][0]).lower()}"
        pipeline = self.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        before = self.redis.info("commandstats").get(name, {"usec": 0, "calls": 0})
        pipeline.execute()
        after = self.redis.info("commandstats")[name]
        return float((after["usec"] - before["usec"]) / (after["calls"] - before["calls"]))

    def memory_of(self, keys: list[str]) -> int:
        """Return how many bytes all these keys take."""
        return sum(self.redis.memory_usage(key, samples=0) or 0 for key in keys)


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    process.wait(STOP_S)
    if process.stdout is not None:
        process.stdout.close()
