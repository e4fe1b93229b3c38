"""What texts say, read once for many calls: callers say the same again and again."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `read` makes of texts, by the text. Those not asked for while half of the bytes came anew are forgotten.

    A text that cannot be read is not remembered.
    """

    def __init__(self, read: Callable[[bytes], T], bytes_max: int) -> None:
        self.read = read
        self._half = bytes_max // 2
        self._new: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}
        self._new_bytes = 0

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def of(self, text: bytes) -> T:
        """Return what this text says; raises what `read` does."""
        said = self._new.get(text)
        return self._remember(text) if said is None else said

    def known(self, text: bytes) -> T | None:
        """Return what this text says if it was asked for lately."""
        return self._new.get(text)

    def _remember(self, text: bytes) -> T:
        said = self._old.get(text)
        if said is None:
            said = self.read(text)
        if self._new_bytes + len(text) > self._half:
            self._old, self._new, self._new_bytes = self._new, {}, 0
        self._new[text] = said
        self._new_bytes += len(text)
        return said
