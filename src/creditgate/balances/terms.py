"""Terms decoded once for many calls: replies carry them as they were written, and a customer's seldom change."""

import msgspec

from creditgate.core.customers import Terms

REMEMBERED_BYTES_MAX = (
    8 * 2**20
)  # of text; decoded, with what is worked out from it, it is about ten times as much

_decode = msgspec.json.Decoder(Terms).decode


class RememberedTerms:
    """Decoded terms by their text. Those that were not asked for while half of the bytes came anew are forgotten."""

    def __init__(self, bytes_max: int = REMEMBERED_BYTES_MAX) -> None:
        self._half = bytes_max // 2
        self._new: dict[bytes, Terms] = {}
        self._old: dict[bytes, Terms] = {}
        self._new_bytes = 0

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def of(self, text: bytes) -> Terms:
        """Return the terms that this text says."""
        terms = self._new.get(text)
        return self._remember(text) if terms is None else terms

    def _remember(self, text: bytes) -> Terms:
        terms = self._old.get(text)
        if terms is None:
            terms = _decode(text)
        if self._new_bytes + len(text) > self._half:
            self._old, self._new, self._new_bytes = self._new, {}, 0
        self._new[text] = terms
        self._new_bytes += len(text)
        return terms


terms_of = RememberedTerms().of
