"""Ids: what callers may name things, and the names that we make."""

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.core.entities import pool_name, split_pool
from creditgate.core.ids import check_caller_id, check_catalog_id, decoded, encoded
from creditgate.engine.ids import OpIds, mint
from creditgate.errors import InvalidInputs


@pytest.mark.parametrize(
    "text", ["a", "user_42", "a b", "ann@example.com", "a/b/c", "{p00}", "*", "ü", "𝄞" * 64, "x" * 256, " "]
)
def test_callers_id_is_kept_as_it_is(text: str) -> None:
    """Any name that callers have for their customers works, unchanged."""
    assert check_caller_id(text, field="customer_id") is text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("x" * 257, "256 bytes"),
        ("ü" * 129, "256 bytes"),
        ("𝄞" * 65, "256 bytes"),
        ("a\nb", "control"),
        ("a\x00", "control"),
        ("\x7f", "control"),
        ("a\x85b", "control"),
        ("\x9f", "control"),
        ("a\ud800", "UTF-8"),
    ],
)
def test_callers_id_that_cannot_be_kept(text: str, reason: str) -> None:
    """An id that logs, keys or the journal could not hold is refused, with the field and the reason."""
    with pytest.raises(InvalidInputs, match=f"^customer_id: .*{reason}"):
        check_caller_id(text, field="customer_id")


@given(st.text(max_size=300))
def test_callers_id_is_kept_or_refused(text: str) -> None:
    """No text makes the check itself fail."""
    with suppress(InvalidInputs):
        assert check_caller_id(text, field="id").encode()


@pytest.mark.parametrize("text", ["a", "basic_messages", "usd-credits", "A1", "-", "x" * 128])
def test_catalog_id(text: str) -> None:
    """Letters, digits, `_` and `-` name features and plans."""
    assert check_catalog_id(text, field="feature_id") is text


@pytest.mark.parametrize("text", ["", "a b", "a.b", "a:b", "ü", "x" * 129, "a\n", "\u0661", "a/b"])
def test_catalog_id_that_is_refused(text: str) -> None:
    """Anything else would not be a name in a URL, a TOML table and a Redis field at once."""
    with pytest.raises(InvalidInputs, match=r"^feature_id: "):
        check_catalog_id(text, field="feature_id")


def test_minted_ids_are_unique_and_grow() -> None:
    """Ids of ours never meet, sort by the time they were made, and are words that the journal can hold."""
    ids = [mint("bal") for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert sorted(ids, key=lambda i: i[:14]) == sorted(ids)
    assert {len(i) for i in ids} == {len("bal_") + 22}
    assert all(i.removeprefix("bal_").isalnum() and i.isascii() for i in ids)


def test_op_ids_are_never_used_again() -> None:
    """Two processes, and two calls of one, never have the same op id."""
    one, other = OpIds(), OpIds()
    ids = [ops.next() for _ in range(1000) for ops in (one, other)]
    assert len(set(ids)) == 2000


@given(st.text())
def test_an_encoded_id_is_one_word_and_comes_back(text: str) -> None:
    """Whatever an id contains, it steers no key, no order field and no receipt, and is found again as it was."""
    text = text.encode("utf-8", "replace").decode()
    word = encoded(text)
    assert word == quote(text, safe="~")
    assert decoded(word) == text
    assert split_pool(pool_name("images", text)) == ("images", text)
