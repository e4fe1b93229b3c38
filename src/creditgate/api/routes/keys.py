"""What a repeated idempotency key is answered: the first answer again, or Autumn's 409."""

from collections.abc import Awaitable, Mapping
from typing import TypeVar

from creditgate.api.calls import NO_HEADERS, key_as_sent
from creditgate.engine.keys import CallerKey
from creditgate.errors import Conflict, KeyReused

T = TypeVar("T")

_REPLAYED: Mapping[str, str] = {"Idempotent-Replayed": "true"}


class RepeatedKeys:
    """`refuses`: answer 409 `duplicate_idempotency_key` whatever a key was used for before."""

    def __init__(self, *, refuses: bool) -> None:
        self._refuses = refuses

    def once(self, key: CallerKey | None, work: Awaitable[T]) -> Awaitable[T]:
        """Return what a key may stand for; it raises KeyReused, or Conflict where repeated keys are refused."""
        return work if key is None or not self._refuses else _refusing(key, work)

    def headers(self, key: CallerKey | None, is_replay: bool) -> Mapping[str, str]:
        """Return what tells a replay from a first answer; raises Conflict where repeated keys are refused."""
        if not is_replay or key is None:
            return NO_HEADERS
        if self._refuses:
            raise _duplicate(key)
        return _REPLAYED


async def _refusing(key: CallerKey, work: Awaitable[T]) -> T:
    try:
        return await work
    except KeyReused:
        raise _duplicate(key) from None


def _duplicate(key: CallerKey) -> Conflict:
    message = f"Another request with idempotency key {key_as_sent(key)} has already been received"
    return Conflict(message, code="duplicate_idempotency_key")
