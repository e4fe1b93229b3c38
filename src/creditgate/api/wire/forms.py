"""Texts that are printed once, with holes where the amounts go: of what a customer's call is answered, only the amounts
change from call to call, until the customer's terms do.

A form is the text of the ordinary answer, cut where it has amounts, so the two cannot differ in anything else.
"""

from collections.abc import Iterable

from msgspec import Raw

from creditgate.core.amounts import format_amount

HOLE = Raw(b"\0")  # which no JSON text has


class Form:
    """A text with holes."""

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = text.decode().replace("%", "%%").replace("\0", "%s")

    def filled(self, amounts: Iterable[int]) -> bytes:
        """Return the text with these nanos in its holes, in their order. TypeError for more or fewer."""
        return (self._text % tuple(map(format_amount, amounts))).encode()
