"""A sidecar of three processes on a Redis and an SQLite file that can be made to fail, and what its books say."""

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx
import redis

from tests.balances.valkey_process import ValkeyProcess
from tests.faults.oracle import Books
from tests.faults.proxy import RedisProxy
from tests.sidecar_process import SidecarProcess, run

PARTITIONS = 8
BOOKS_S_MAX = 60.0
Program = Callable[[Path], Path]
SETTINGS = {"busy-reply-threshold": "200", "enable-debug-command": "yes"}


class Stand:
    """Either embedded: the sidecar has its own Valkey, or the Valkey is ours, behind the proxy.

    `server` writes the program to run as Valkey into a directory. `disk_mb`: of the tmpfs that holds the SQLite file;
    embedded, all data.
    """

    def __init__(
        self, dice: random.Random, *, embedded: bool = False, server: Program | None = None, disk_mb: int = 0
    ) -> None:
        self.dice = dice
        self.embedded = embedded
        self.sidecar = SidecarProcess(arguments=["--demo", "--workers", "2"])
        self.directory = self.sidecar.directory
        self.disk = self.directory if embedded else self.directory / "sql"
        self.valkey = None if embedded else ValkeyProcess(server and server(self.directory), SETTINGS)
        self._disk_mb = disk_mb
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Stand":
        try:
            await self._open()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _open(self) -> None:
        self.disk.mkdir(mode=0o700, exist_ok=True)
        if self._disk_mb:
            size = f"size={self._disk_mb}m,mode=0700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.disk)], check=True)
            self._stack.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
        if self.valkey is not None:
            self._stack.callback(self.valkey.close)
            await asyncio.to_thread(self.valkey.start)
            path = self.valkey.directory / "p"
            self.proxy = await self._stack.enter_async_context(
                RedisProxy(path, self.valkey.socket, self.dice)
            )
            self.sidecar.arguments += ["--redis", self.proxy.url, "--database", self._database]
        self._stack.callback(self.sidecar.close)
        await asyncio.to_thread(self.sidecar.start)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def ledger(self) -> Path:
        return self.disk / "ledger.db"

    @property
    def _database(self) -> str:
        return f"sqlite:///{self.ledger}"

    def redis(self) -> "redis.Redis":
        """A client of the Valkey itself, not of the proxy, that the caller closes."""
        if self.valkey is None:
            return redis.Redis(unix_socket_path=str(self.directory / "valkey.sock"))
        return self.valkey.client()

    def appendfsync(self) -> str:
        """Return when the Valkey syncs its file, as it says itself."""
        with self.redis() as client:
            return str(client.config_get("appendfsync")["appendfsync"])

    async def books(self, expected: Counter[str], customers: list[str]) -> Books:
        """Wait until SQL has the expected calls and nothing is spooled (or for long enough), then read everything."""
        deadline = time.monotonic() + BOOKS_S_MAX
        while (spooled := self.spooled()) or not self.taken() >= expected:
            if time.monotonic() > deadline:
                print(f"after {BOOKS_S_MAX} s SQL lacks {(expected - self.taken()).total()} calls, {spooled}")
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.3)  # in which what is there twice would come
        remaining = {customer_id: await self._remaining(customer_id) for customer_id in customers}
        return Books(self.taken(), remaining)

    def taken(self) -> Counter[str]:
        """Return how often each call is in SQL. Of the events of a call, only its first row has the properties."""
        query = (
            "SELECT properties FROM journal_items WHERE op_id IS NOT NULL AND properties LIKE '%\"call\"%'"
        )
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=20)) as sql:
            return Counter(json.loads(text)["call"] for (text,) in sql.execute(query))

    def spooled(self) -> list[str]:
        """Return the files of usage that was not posted yet."""
        return [path.name for path in (self.directory / "spool").glob("*.jsonl")]

    async def _remaining(self, customer_id: str) -> int:
        async with httpx.AsyncClient(headers=self.sidecar.headers, timeout=20) as client:
            answer = await client.post(
                f"{self.sidecar.url}/v1/customers.get", json={"customer_id": customer_id}
            )
        balance: dict[str, float] = answer.json()["balances"]["usd_credits"]
        return round((balance["granted"] - balance["usage"]) * 10)  # its own `remaining` is never below zero

    async def verify(self) -> "subprocess.CompletedProcess[str]":
        """Run `creditgate verify` on what is there."""
        arguments = ["--data-dir", str(self.directory)]
        if self.valkey is not None:
            arguments += ["--redis", self.valkey.url, "--database", self._database]
        return await asyncio.to_thread(run, "verify", *arguments)

    def waiting(self) -> int:
        """Return how many entries wait in the streams; of a Valkey of ours."""
        with self.redis() as client:
            streams = [f"cg:{{p{number:02d}}}:j" for number in range(PARTITIONS)]
            return sum(int(client.xlen(stream)) for stream in streams)

    async def drain_rows_s(self) -> float:
        """Return how many rows of the journal a second reach SQL until a tenth is left of what waits now."""
        began, waiting, rows = time.monotonic(), self.waiting(), self._rows()
        while self.waiting() > waiting // 10:
            assert time.monotonic() < began + BOOKS_S_MAX, "the streams are not drained"
            await asyncio.sleep(0.02)
        return (self._rows() - rows) / (time.monotonic() - began)

    def _rows(self) -> int:
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=20)) as sql:
            return int(sql.execute("SELECT count(*) FROM journal_items").fetchone()[0])

    def resident_mb(self) -> float:
        """Return the memory that the sidecar's processes have, without Valkey."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.sidecar.pids)
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
