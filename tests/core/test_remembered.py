"""What was read from a text is there again, and not kept for ever."""

import pytest

from creditgate.core.remembered import Remembered


class _Read:
    """What was made of a text; no two are the same."""

    def __init__(self, text: bytes) -> None:
        self.number = int(text)


def _text(number: int) -> bytes:
    return b"%04d" % number


def test_read_once() -> None:
    remembered = Remembered(_Read, 1000)
    said = remembered.of(_text(1))
    assert said.number == 1
    assert remembered.of(_text(1)) is said
    assert remembered.of(_text(2)) is not said


def test_what_is_asked_for_stays_and_the_rest_goes() -> None:
    remembered = Remembered(_Read, bytes_max=20 * len(_text(0)))
    busy = remembered.of(_text(0))
    for number in range(1, 500):
        assert remembered.of(_text(number)).number == number
        assert remembered.of(_text(0)) is busy
        assert len(remembered) <= 20


def test_what_cannot_be_read_is_not_remembered() -> None:
    remembered = Remembered(_Read, 1000)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            remembered.of(b"none")
    assert len(remembered) == 0
