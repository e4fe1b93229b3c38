"""`Gate`: what an application can ask, whoever answers; and the methods that every answerer shares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

from creditgate.client import calls
from creditgate.client.answers import Checked, Customer, Progress, Tracked
from creditgate.client.calls import Amount, Ask, CheckCall, Overage, Properties, TrackCall
from creditgate.client.replies import Outcomes

P = ParamSpec("P")
T = TypeVar("T")


class Gate(Protocol):
    """Asks and takes. `AsyncClient` does so over HTTP or a unix socket, `Meter` in the application's own process.

    Every method raises Undecided when nobody could say: then it is not known whether the call took effect, and sending
    it again with the error's `idempotency_key` is safe. Other errors changed nothing. Each is a CreditgateError.
    """

    async def check(
        self,
        *,
        customer_id: str,
        feature_id: str,
        required_balance: Amount = 1,
        properties: Properties | None = None,
        send_event: bool = False,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> Checked:
        """Say whether the customer can afford so many units now; with `send_event`, also take them, all or nothing."""

    async def track(
        self,
        *,
        customer_id: str,
        feature_id: str | None = None,
        event_name: str | None = None,
        value: Amount = 1,
        properties: Properties | None = None,
        timestamp: int | None = None,
        overage_behavior: Overage = "cap",
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> Tracked:
        """Take what was used, or give back a negative value.

        With `overage_behavior="reject"` it raises InsufficientBalance where not all of it is there, and takes nothing.
        """

    async def lock(
        self,
        *,
        customer_id: str,
        feature_id: str,
        value: Amount = 1,
        lock_id: str | None = None,
        expires_at: int | None = None,
        overage_behavior: Literal["cap", "overflow"] | None = None,
        properties: Properties | None = None,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> Checked:
        """Take units before they are used, if they are there: `allowed` says so, `lock` names what was taken."""

    async def finalize(
        self,
        *,
        lock_id: str,
        action: Literal["confirm", "release"] = "confirm",
        override_value: Amount | None = None,
        properties: Properties | None = None,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """End a lock: keep what was taken, make it `override_value`, or give it back."""

    async def progress(self, *, lock_id: str, used: Amount, deadline_s: float | None = None) -> Progress:
        """Say how much of a lock was used so far; if it expires, that is charged."""

    async def batch(
        self, calls: Sequence[CheckCall | TrackCall], *, deadline_s: float | None = None
    ) -> Outcomes:
        """Make up to 100 checks and tracks in one call; those of one customer happen in their order.

        A call that failed changes no other; in its place is the exception that it would have raised.
        """

    async def get_or_create(
        self,
        *,
        customer_id: str,
        name: str | None = None,
        email: str | None = None,
        fingerprint: str | None = None,
        metadata: Properties | None = None,
        time_zone: str | None = None,
        auto_enable_plan_id: str | None = None,
        deadline_s: float | None = None,
    ) -> Customer:
        """Return the customer, made with the plans that enable themselves if it was not there."""


class AsyncFace(ABC):
    """The methods of Gate, for whoever can get one call answered."""

    @abstractmethod
    async def _ask(self, ask: Ask[T]) -> T:
        """Return the answer to a call; raises what Gate says."""

    @staticmethod
    def _method(
        build: Callable[P, Ask[T]],
    ) -> Callable[Concatenate["AsyncFace", P], Coroutine[Any, Any, T]]:
        @wraps(build)
        async def method(face: "AsyncFace", /, *args: P.args, **kwargs: P.kwargs) -> T:
            return await face._ask(build(*args, **kwargs))

        method.__doc__ = getattr(Gate, build.__name__).__doc__
        return method

    check = _method(calls.check)
    track = _method(calls.track)
    lock = _method(calls.lock)
    finalize = _method(calls.finalize)
    progress = _method(calls.progress)
    batch = _method(calls.batch)
    get_or_create = _method(calls.get_or_create)


class SyncFace(ABC):
    """The same methods without `async`."""

    @abstractmethod
    def _ask(self, ask: Ask[T]) -> T:
        """Return the answer to a call; raises what Gate says."""

    @staticmethod
    def _method(build: Callable[P, Ask[T]]) -> Callable[Concatenate["SyncFace", P], T]:
        @wraps(build)
        def method(face: "SyncFace", /, *args: P.args, **kwargs: P.kwargs) -> T:
            return face._ask(build(*args, **kwargs))

        method.__doc__ = getattr(Gate, build.__name__).__doc__
        return method

    check = _method(calls.check)
    track = _method(calls.track)
    lock = _method(calls.lock)
    finalize = _method(calls.finalize)
    progress = _method(calls.progress)
    batch = _method(calls.batch)
    get_or_create = _method(calls.get_or_create)
