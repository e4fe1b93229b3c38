"""Terms are decoded once, and not kept for ever."""

import msgspec

from creditgate.balances.terms import RememberedTerms
from creditgate.core.customers import Row, Terms


def _text(number: int) -> bytes:
    return msgspec.json.encode(Terms(rows=(Row(f"row_{number:04d}", "credits", number),)))


def test_decoded_once() -> None:
    remembered = RememberedTerms()
    terms = remembered.of(_text(1))
    assert terms == msgspec.json.decode(_text(1), type=Terms)
    assert remembered.of(_text(1)) is terms


def test_what_is_asked_for_stays_and_the_rest_goes() -> None:
    remembered = RememberedTerms(bytes_max=20 * len(_text(0)))
    busy = remembered.of(_text(0))
    for number in range(1, 500):
        assert remembered.of(_text(number)).rows[0].created_at == number
        assert remembered.of(_text(0)) is busy
        assert len(remembered) <= 20
