"""The ids that we mint."""

import itertools
import secrets

import uuid_utils

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT_LENGTH = 22  # 62**22 > 2**128, so every id has the same length and sorts by the time it was made


def mint(prefix: str) -> str:
    """Return a new id such as `bal_01jdW…`: unique everywhere, increasing with time (a UUIDv7 in base 62)."""
    number = uuid_utils.uuid7().int
    digits = []
    for _ in range(_TEXT_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"


class OpIds:
    """Op ids: one for each call that changes something, never used again. Cheap: a random name and a count."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(8)
        self._count = itertools.count(1)

    def next(self) -> str:
        return f"{self._process}{next(self._count):x}"
