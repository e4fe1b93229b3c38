"""Texts that are printed once, with holes where the amounts go: of what is answered about a customer's balances, only
the amounts change from call to call, until the customer's terms do.

A form is the text of the ordinary answer, cut where it has amounts, so the two cannot differ in anything else.
"""

from collections.abc import Iterable

from msgspec import Raw

from creditgate.core.amounts import format_amount

HOLE = Raw(b"\0")  # which no JSON text has


class Form:
    """A text with holes."""

    __slots__ = ("_pieces",)

    def __init__(self, text: bytes) -> None:
        self._pieces = text.decode().split("\0")

    def filled(self, amounts: Iterable[int]) -> Raw:
        """Return the text with these nanos in its holes, in their order."""
        first, *others = self._pieces
        parts = [first]
        texts: dict[int, str] = {}  # of a single row, each amount stands twice: in the row and in the sum
        for amount, piece in zip(amounts, others, strict=True):
            text = texts.get(amount)
            if text is None:
                text = texts[amount] = format_amount(amount)
            parts += (text, piece)
        return Raw("".join(parts).encode())
