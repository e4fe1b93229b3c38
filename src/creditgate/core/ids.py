"""Identifiers: what callers may name things. The ids that we make ourselves come from `engine/ids.py`."""

import re

from creditgate.errors import InvalidInputs

CUSTOMER_ID_BYTES_MAX = 256

_CATALOG_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
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
