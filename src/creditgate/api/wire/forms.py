"""Texts that are printed once, with holes where the amounts go: of what a customer's call is answered, only the amounts
change from call to call, until the customer's terms do.

A form is the text of the ordinary answer, cut where it has amounts, so the two cannot differ in anything else.
"""

from msgspec import Raw

HOLE = Raw(b"\0")  # which no JSON text has


class Form:
    """A text with holes."""

    __slots__ = ("_parts",)

    def __init__(self, text: bytes) -> None:
        pieces = text.decode().split("\0")
        self._parts = [part for piece in pieces for part in (piece, "")][:-1]

    def filled(self, texts: list[str]) -> bytes:
        """Return the text with these in its holes, in their order. ValueError for more or fewer."""
        parts = self._parts.copy()
        parts[1::2] = texts
        return "".join(parts).encode()
