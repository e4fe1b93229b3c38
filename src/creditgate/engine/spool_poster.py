"""Posts what was spooled: one process for a directory, the oldest file first, each use exactly once.

A use goes out under the op id that it was first sent with, so the journal tells whether it took effect: it is looked
for once no earlier call of it can take effect any more, and sent if it is not there. It is sent with `overflow`: it has
happened, and must not vanish under a cap. A file is removed once all its uses are posted. Until when the calls of this
process may take effect stands in the file `lock`, for whoever posts after us.

Uses of one customer go in their order; one that cannot be decided now holds up that customer's only.
"""

import asyncio
import os
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from creditgate.balances.clock import RedisClock
from creditgate.balances.keys import Keys
from creditgate.balances.stream import JournalStream
from creditgate.core.decisions import Mode
from creditgate.engine.history import History
from creditgate.engine.meter import Meter
from creditgate.engine.spool import ASIDE, Spooled, append, has_lock, taken, unposted
from creditgate.errors import CreditgateError, Unavailable, Undecided
from creditgate.telemetry import logger
from creditgate.telemetry.metrics import Metrics

POLL_S = 0.5
RETRY_MAX_S = 4.0  # between rounds that leave something, doubled each time
ROUND_MS = 5_000  # no call of a round takes effect later
ROUND_REST_MS = 1_000  # no customer is begun in the last second of a round
CUSTOMERS_AT_ONCE = 16  # as of batches: it is a caller among others
CRASHES_MAX = 3  # of one use, from bugs of ours, before it is set aside

log = logger(__name__)


class SpoolPoster:
    """Posts the files of one directory."""

    def __init__(
        self,
        directory: Path,
        keys: Keys,
        clock: RedisClock,
        stream: JournalStream,
        history: History,
        meter: Meter,
        metrics: Metrics,
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._stream = stream
        self._history = history
        self._meter = meter
        self._metrics = metrics
        self._lock: int | None = None
        self._until = 0  # no call of this round takes effect later
        self._doubt_until = 0  # nor any of earlier rounds, or earlier processes, whose fate we do not know
        self._posted: set[str] = set()  # of files that are not removed yet
        self._crashes: Counter[str] = Counter()
        self._blocked: set[str] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Post until `stop`; what is left then is posted at the next start."""
        wait_s = POLL_S
        while not self._stopping.is_set():
            posted = self._metrics.spool_posted
            is_done = await self.round()
            wait_s = (
                POLL_S if is_done or self._metrics.spool_posted > posted else min(2 * wait_s, RETRY_MAX_S)
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
        self.let_go()

    def stop(self) -> None:
        """Ask `run` to finish."""
        self._stopping.set()

    def let_go(self) -> None:
        """Let another process post."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def round(self) -> bool:
        """Post what can be posted now; returns whether nothing is left of what is complete."""
        files = unposted(self._directory)
        if not files or not self._is_alone():
            return True
        self._blocked.clear()
        self._until = self._clock.now_ms() + ROUND_MS
        assert self._lock is not None
        os.pwrite(self._lock, b"%020d" % self._until, 0)
        try:
            return all([await self._post_file(path) for path in files])
        except (CreditgateError, RedisError, OSError) as error:  # the files are still there
            log.warning("spool_postponed", reason=str(error))
        except Exception as error:
            log.error("spool_postponed", exc_info=error)
        return False

    def _is_alone(self) -> bool:
        """Whether this process posts for the directory; what an earlier one has sent may take effect for a while."""
        if self._lock is not None:
            return True
        file = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not has_lock(file):
            os.close(file)
            return False
        self._lock = file
        self._doubt_until = int(os.pread(file, 20, 0) or b"0")
        return True

    async def _post_file(self, path: Path) -> bool:
        """Post what a file holds, and remove it once nothing is left; returns whether that is so."""
        with taken(path) as text:
            if text is None:
                return True
            uses, unread = _read(text)
            waiting = [use for use in uses if use.op_id not in self._posted]
            waiting = await self._without_posted(waiting)
            customers = _by_customer(waiting)
            posting = (self._post_all(customers) for _ in range(CUSTOMERS_AT_ONCE))
            # All have ended before a round does: what is still posting would be posted by the next one, too.
            for failure in await asyncio.gather(*posting, return_exceptions=True):
                if failure is not None:
                    raise failure
            if not self._posted.issuperset(use.op_id for use in uses):
                return False
            for line in unread:
                self._set_aside(line, "it cannot be read")
            os.unlink(path)
            self._posted.difference_update(use.op_id for use in uses)
        return True

    async def _without_posted(self, uses: Sequence[Spooled]) -> list[Spooled]:
        """Return those that the journal does not have. A customer of whom that cannot be said yet is left for later."""
        missing = []
        by_partition: dict[str, list[Spooled]] = {}
        for use in uses:
            by_partition.setdefault(self._keys.partition_of(use.usage.customer_id), []).append(use)
        for partition, part in by_partition.items():
            if await self._stream.now_ms(partition) <= max(self._doubt_until, *(u.not_after for u in part)):
                self._blocked.update(use.usage.customer_id for use in part)
                continue
            prefix = _common_prefix([use.op_id for use in part])
            since_ms = min(use.since_ms for use in part)
            found = await self._history.ops(partition, prefix, since_ms=since_ms)
            for use in part:
                if use.op_id in found:
                    self._is_posted(use)
                else:
                    missing.append(use)
        return missing

    async def _post_all(self, customers: deque[list[Spooled]]) -> None:
        while (
            customers and not self._stopping.is_set() and self._clock.now_ms() < self._until - ROUND_REST_MS
        ):
            for use in customers.popleft():
                if use.usage.customer_id in self._blocked or self._stopping.is_set():
                    break
                try:
                    await self._post(use)
                except (Undecided, Unavailable) as error:
                    log.warning("spooled_use_postponed", op_id=use.op_id, reason=error.message)
                    self._blocked.add(use.usage.customer_id)
                    self._doubt_until = self._until

    async def _post(self, use: Spooled) -> None:
        usage = msgspec.structs.replace(use.usage, mode=Mode.OVERFLOW)
        try:
            await self._meter.track(usage, op_id=use.op_id, within=self._within)
        except (Undecided, Unavailable):
            raise
        except CreditgateError as error:
            self._give_up(use, error.message)
        except Exception as error:
            log.error("spooled_use_crashed", op_id=use.op_id, exc_info=error)
            self._crashes[use.op_id] += 1
            if self._crashes[use.op_id] < CRASHES_MAX:
                raise Undecided("Something went wrong inside creditgate") from error
            self._give_up(use, "something went wrong inside creditgate")
        else:
            self._is_posted(use)

    def _within(self, not_after: int) -> int:
        if self._clock.now_ms() > self._until:
            raise Unavailable("The round is over; the next one goes on")
        return min(not_after, self._until)

    def _is_posted(self, use: Spooled) -> None:
        self._posted.add(use.op_id)
        self._crashes.pop(use.op_id, None)
        self._metrics.spool_posted += 1

    def _give_up(self, use: Spooled, reason: str) -> None:
        self._set_aside(msgspec.json.encode(use), reason)
        self._posted.add(use.op_id)

    def _set_aside(self, line: bytes, reason: str) -> None:
        log.error("spooled_use_set_aside", reason=reason)
        append(self._directory / ASIDE, line + b"\n")
        self._metrics.spool_set_aside += 1


def _read(text: bytes) -> tuple[list[Spooled], list[bytes]]:
    """Return the uses of a file, and the lines that are none. A last line without its end was never acknowledged."""
    uses, unread = [], []
    for line in text.split(b"\n")[:-1]:
        try:
            uses.append(msgspec.json.decode(line, type=Spooled))
        except (msgspec.DecodeError, UnicodeDecodeError):
            unread.append(line)
    return uses, unread


def _common_prefix(op_ids: Sequence[str]) -> str:
    """Return how all of them begin: those of one process have a name in common."""
    first, last = min(op_ids), max(op_ids)
    return next((first[:size] for size in range(len(first), 0, -1) if last.startswith(first[:size])), "")


def _by_customer(uses: Sequence[Spooled]) -> deque[list[Spooled]]:
    found: dict[str, list[Spooled]] = {}
    for use in uses:
        found.setdefault(use.usage.customer_id, []).append(use)
    return deque(found.values())
