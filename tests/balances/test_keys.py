"""Key names: injective, in one slot for each customer, and stable for ever."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditgate.balances.keys import KEY_BUCKET_MS, KEY_BUCKET_TTL_MS, PARTITIONS_MAX, Keys, encoded

KEYS = Keys(8)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(one=texts, other=texts)
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    """Two customers never share a record, whatever stands in their ids."""
    assert (encoded(one) == encoded(other)) == (one == other)
    assert (KEYS.record(one) == KEYS.record(other)) == (one == other)


@given(text=texts)
def test_no_id_steers_a_key(text: str) -> None:
    """An id can neither name another hash tag, nor match a pattern, nor end in another kind of key."""
    assert re.fullmatch(r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+", encoded(text))
    key = KEYS.record(text)
    assert re.findall(r"\{[^}]*\}", key) == [f"{{{KEYS.partition_of(text)}}}"]
    assert key.count(":") == 3


@given(text=texts, partitions=st.integers(1, PARTITIONS_MAX))
def test_keys_of_a_customer_share_a_slot(text: str, partitions: int) -> None:
    """No script needs two slots of a cluster."""
    keys = Keys(partitions)
    partition = keys.partition_of(text)
    assert partition in keys.partitions
    names = [keys.record(text), keys.journal(partition), keys.due(partition), *keys.key_buckets(text, 10**12)]
    assert all(f"{{{partition}}}" in name for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("customer_id", "record"),
    [
        ("user_42", "cg:{p05}:c:user_42"),
        ("ann b", "cg:{p04}:c:ann%20b"),
        ("ü/{p00}:*", "cg:{p04}:c:%C3%BC%2F%7Bp00%7D%3A%2A"),
    ],
)
def test_keys_never_change(customer_id: str, record: str) -> None:
    """A new version finds the customers of the old one: names and partitions are data, not code."""
    assert KEYS.record(customer_id) == record


def test_partitions_are_used_evenly() -> None:
    """No partition gets twice its share of customers."""
    counts = dict.fromkeys(KEYS.partitions, 0)
    for number in range(8000):
        counts[KEYS.partition_of(f"user_{number}")] += 1
    assert min(counts.values()) > 500
    assert max(counts.values()) < 2000


def test_bucket_is_read_as_long_as_its_keys_hold() -> None:
    """A key that was written a day ago, less a millisecond, is in a bucket that is looked at, and still there."""
    day = 24 * 3_600_000
    for written in range(0, KEY_BUCKET_MS, KEY_BUCKET_MS // 7):
        name = KEYS.key_buckets("ann", 10 * day + written)[0]
        assert name in KEYS.key_buckets("ann", 10 * day + written + day - 1)
        assert name in KEYS.key_buckets("ann", 10 * day + written - KEY_BUCKET_MS // 2), (
            "a clock that is behind"
        )
    assert KEY_BUCKET_MS + day <= KEY_BUCKET_TTL_MS
