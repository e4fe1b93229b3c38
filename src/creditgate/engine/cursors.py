"""Cursors as callers carry them from page to page: opaque, harmless in a URL, and checked when they come back."""

import base64
import binascii

from creditgate.errors import InvalidInputs

INTEGER_MAX = 2**63 - 1  # what SQL can compare with


def packed(*parts: object) -> str:
    """Return the parts, joined by dots, as one word."""
    return base64.urlsafe_b64encode(".".join(map(str, parts)).encode()).decode().rstrip("=")


def unpacked(word: str, count: int) -> list[str]:
    """Return so many parts, of which the last may hold dots; ValueError if the word is not one of ours."""
    try:
        raw = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode()
    except binascii.Error as error:
        raise ValueError("not base64") from error
    parts = raw.split(".", count - 1)
    if len(parts) != count:
        raise ValueError("not so many parts")
    return parts


def whole(text: str) -> int:
    """Return a number that SQL can compare with; ValueError for any other text."""
    number = int(text)
    if abs(number) > INTEGER_MAX:
        raise ValueError("out of range")
    return number


def not_ours() -> InvalidInputs:
    """Return the error for a cursor that was not given by us."""
    return InvalidInputs("start_cursor: is not a cursor that was given")
