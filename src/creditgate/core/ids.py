"""Identifiers: what callers may name things. The ids that we make ourselves come from `engine/ids.py`."""

import re

from creditgate.errors import InvalidInputs

CUSTOMER_ID_BYTES_MAX = 256

_CATALOG_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_WORD = re.compile(r"[A-Za-z0-9._~-]*")
_ENCODED = tuple(chr(byte) if _WORD.fullmatch(chr(byte)) else f"%{byte:02X}" for byte in range(256))
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_caller_id(text: str, *, field: str) -> str:
    """Return a caller's id unchanged: any UTF-8 of 1 to 256 bytes without control characters; else InvalidInputs."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidInputs(f"{field}: must be valid UTF-8") from None
    if size == 0:
        raise InvalidInputs(f"{field}: cannot be empty")
    if size > CUSTOMER_ID_BYTES_MAX:
        raise InvalidInputs(f"{field}: must have at most {CUSTOMER_ID_BYTES_MAX} bytes")
    if _CONTROL.search(text):
        raise InvalidInputs(f"{field}: must not contain control characters")
    return text


def check_catalog_id(text: str, *, field: str) -> str:
    """Return a feature or plan id unchanged: letters, digits, `_` and `-`, at most 128; else InvalidInputs."""
    if not text:
        raise InvalidInputs(f"{field}: cannot be empty")
    if _CATALOG_ID.fullmatch(text) is None:
        raise InvalidInputs(
            f"{field}: must contain only letters, numbers, underscores, hyphens (at most 128)"
        )
    return text


def encoded(text: str) -> str:
    """Return the id as one word for keys and scripts: only letters, digits, `.`, `_`, `~` and `-` stay. Injective."""
    return text if _WORD.fullmatch(text) else "".join(map(_ENCODED.__getitem__, text.encode()))


def decoded(name: str) -> str:
    """Return the id that `encoded` made this of."""
    if "%" not in name:
        return name
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), name.encode()).decode()
