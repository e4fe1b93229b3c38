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

    async def once(self, key: CallerKey | None, work: Awaitable[T]) -> T:
        """Await what a key may stand for; raises KeyReused, or Conflict where repeated keys are refused."""
        try:
            return await work
        except KeyReused:
            if key is None or not self._refuses:
                raise
            raise _duplicate(key) from None

    def headers(self, key: CallerKey | None, is_replay: bool) -> Mapping[str, str]:
        """Return what tells a replay from a first answer; raises Conflict where repeated keys are refused."""
        if not is_replay or key is None:
            return NO_HEADERS
        if self._refuses:
            raise _duplicate(key)
        return _REPLAYED


def _duplicate(key: CallerKey) -> Conflict:
    message = f"Another request with idempotency key {key_as_sent(key)} has already been received"
    return Conflict(message, code="duplicate_idempotency_key")
