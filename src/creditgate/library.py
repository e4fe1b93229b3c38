"""creditgate inside the application: `Meter` answers what `AsyncClient` would, on the same Redis and SQL, without HTTP.

It runs the functions that the sidecar's routes run, on the same bodies, so that an application can swap one for the
other, and one idempotency key means one call to both.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from redis.exceptions import RedisError

from creditgate.api.calls import Answer, Call, Verb, answer
from creditgate.api.door import too_large
from creditgate.api.problems import answer_to
from creditgate.api.routes.call_batches import CallBatchRoutes
from creditgate.api.routes.customers import CustomerRoutes
from creditgate.api.routes.holds import HoldRoutes
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.routes.meter import MeterRoutes
from creditgate.api.settings import ApiSettings
from creditgate.background import background_work, upkeep
from creditgate.balances.embedded import EmbeddedValkey
from creditgate.client.calls import Ask
from creditgate.client.gate import AsyncFace, SyncFace
from creditgate.client.replies import Reply
from creditgate.errors import StartupError, Unavailable
from creditgate.openings import Stores, UseCases, open_stores, open_use_cases
from creditgate.settings import Settings
from creditgate.telemetry import log_into_application

DEADLINE_S = 2.0  # of one call, if it says nothing else; the engine's own are shorter

T = TypeVar("T")


class Meter(AsyncFace):
    """A `Gate` in this process, from `async with` to its end, for the event loop that entered it."""

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        redis: str | None = None,
        database: str | None = None,
        prefix: str = Settings().prefix,
        seal_key_file: str | Path | None = None,
        background: bool = True,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Name the data: the directory of a sidecar that runs, or the URLs of Redis and SQL, both.

        With `background` it also flushes the journal to SQL, steps customers over what falls due, works off batches and
        delivers webhooks, as a sidecar does. That is always safe: however many processes offer to, one does it at a
        time. Without it, at least one sidecar, or other Meter, has to run; until then, Redis keeps the journal. To a
        sealed journal only who has `seal_key_file` flushes.
        """
        settings = _settings(data_dir, redis, database, prefix)
        key_file = Path(seal_key_file) if seal_key_file is not None else None
        self._settings = msgspec.structs.replace(settings, seal_key_file=key_file)
        self._background = background
        self._deadline_s = deadline_s
        self._opened = AsyncExitStack()
        self._verbs: dict[str, Verb] = {}
        self._env = ""

    async def __aenter__(self) -> Self:
        """Open it. Raises StartupError if there is no data, or no server that can hold it; Unavailable."""
        log_into_application()
        async with AsyncExitStack() as opened:
            stores, cases = await opened.enter_async_context(_opened(self._settings))
            work = background_work if self._background else upkeep
            await opened.enter_async_context(work(cases, stores.redis))
            api = ApiSettings(env=stores.instance.environment.value)
            self._verbs, self._env = _verbs(cases, api), api.env_on_wire
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._verbs = {}
        await self._opened.aclose()

    def sync(self) -> "SyncMeter":
        """Return the same for code without `async`; enter that instead of this."""
        return SyncMeter(self)

    async def _ask(self, ask: Ask[T]) -> T:
        if not self._verbs:
            raise RuntimeError("The meter is not open; use `async with`.")
        try:
            async with asyncio.timeout(self._deadline_s if ask.deadline_s is None else ask.deadline_s):
                found = await self._answer(ask)
        except TimeoutError as error:
            raise ask.undecided("The deadline passed; whether the call took effect is not known") from error
        return ask.result(Reply(found.status, found.body, "Idempotent-Replayed" in found.headers))

    async def _answer(self, ask: Ask[Any]) -> Answer:
        """Return what the sidecar would answer."""
        verb = self._verbs[ask.verb]
        keys = () if ask.header_key is None else (ask.header_key,)
        try:
            if len(ask.body) > verb.body_bytes_max:
                raise too_large(verb.body_bytes_max)
            return await answer(verb, Call(ask.body, keys, base_url="http://localhost"))
        except Exception as error:
            return answer_to(error, verb=ask.verb, body=ask.body, env=self._env)


class SyncMeter(SyncFace):
    """A `Meter` for code without `async`, made by `Meter.sync()`: it lives in an event loop in a thread of its own.

    Threads may share it. Enter it after a fork, not before: threads do not survive one.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        """Open it; raises as `Meter` does."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run_until_stopped, args=(self._loop,), name="creditgate", daemon=True
        )
        self._thread.start()
        try:
            self._run(self._meter.__aenter__())
        except BaseException:
            self._end(self._loop)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        try:
            self._run(self._meter.__aexit__(kind, error, trace))
        finally:
            self._end(self._loop)

    def _ask(self, ask: Ask[T]) -> T:
        return self._run(self._meter._ask(ask))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or not self._thread.is_alive():  # as in the child of a fork
            work.close()
            raise RuntimeError("The meter is not open in this process; use `with`, after a fork.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # whoever is interrupted waits no more
            raise

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _settings(data_dir: str | Path | None, redis: str | None, database: str | None, prefix: str) -> Settings:
    """Return where the data is. One server alone would be met with an empty other one."""
    if (redis is None) != (database is None):
        raise StartupError("Name both, redis and database: what is in one belongs to what is in the other.")
    if (data_dir is None) == (redis is None):
        raise StartupError("Name the data_dir of a sidecar that runs, or redis and database.")
    if data_dir is None:
        return Settings(redis=redis, database=database, prefix=prefix, spool_max_mb=0)
    return Settings(data_dir=Path(data_dir).absolute(), prefix=prefix, spool_max_mb=0)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Stores, UseCases]]:
    """Yield the stores and use cases of data that is there, beside whoever else works on it."""
    url = settings.redis
    if url is None:
        sidecar = EmbeddedValkey(settings.data_dir)
        if not sidecar.socket_path.is_socket():
            raise StartupError(f"No sidecar runs on {settings.data_dir}; start one with `creditgate serve`.")
        url = sidecar.url
    async with AsyncExitStack() as opened:
        try:
            stores = await opened.enter_async_context(open_stores(settings, url, make=None))
            cases = await opened.enter_async_context(open_use_cases(settings, url, stores))
        except (RedisError, OSError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        yield stores, cases


def _verbs(cases: UseCases, settings: ApiSettings) -> dict[str, Verb]:
    """Return the sidecar's own table of the verbs that a Gate has."""
    keys = RepeatedKeys(refuses=settings.refuses_repeated_keys)
    meter_routes = MeterRoutes(cases.meter, cases.holds, cases.entities, cases.outage, keys, settings)
    customer_routes = CustomerRoutes(
        cases.customers, cases.entities, cases.customer_list, cases.catalogs, keys, settings
    )
    return {
        **meter_routes.by_verb,
        **HoldRoutes(cases.holds, keys).by_verb,
        **CallBatchRoutes(meter_routes, settings).by_verb,
        **customer_routes.by_verb,
    }
