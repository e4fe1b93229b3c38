"""Objects that are the caller's own affair, metadata and properties: kept and given back as they came, with a limit."""

from typing import Any

import msgspec

from creditgate.errors import InvalidInputs

METADATA_BYTES_MAX = 16 * 1024  # it travels with every change of the customer, or of the catalog
DEPTH_MAX = 32


def compact_object(text: bytes, *, field: str, bytes_max: int) -> str:
    """Return a JSON object as compact text.

    Raises InvalidInputs if it is not an object, or too large, or so deep that somebody could not read it again.
    """
    try:
        depth = depth_of(msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInputs(f"{field}: must be an object of JSON values") from None
    compact = msgspec.json.format(text, indent=-1)
    if len(compact) > bytes_max or depth > DEPTH_MAX:
        raise InvalidInputs(f"{field}: must have at most {bytes_max} bytes and {DEPTH_MAX} levels")
    return compact.decode("utf-8")


def depth_of(value: object) -> int:
    """Return how many objects and arrays lie in one another, and the value in the innermost."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((depth_of(part) for part in parts), default=0)
