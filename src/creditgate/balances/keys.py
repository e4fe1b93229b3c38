"""Every key that creditgate uses in Redis. The only place with a key literal.

What belongs to one customer shares the hash tag of the customer's partition, so that no script needs two slots of a
cluster; what belongs to no customer has the tag `{sys}`. Ids are encoded injectively: only letters, digits, `.`, `_`,
`~` and `-` stay as they are, so no id can steer a hash tag, a pattern or another key.
"""

from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

from creditgate.core.ids import decoded as decoded
from creditgate.core.ids import encoded as encoded
from creditgate.core.journal import SYSTEM_PARTITION

PARTITIONS_MAX = 100
KEY_BUCKET_MS = 12 * 3_600_000
CUSTOMERS_REMEMBERED = 65_536  # whose keys are not worked out again: those of a busy sidecar
KEY_BUCKET_TTL_MS = 36 * 3_600_000  # 12 hours of filling, then the 24 hours for which the last key holds


class Keys:
    """Key names for one prefix and partition count; the count is fixed when the data is made."""

    def __init__(self, partitions: int, prefix: str = "cg") -> None:
        self.partitions = tuple(f"p{number:02d}" for number in range(partitions))
        self.prefix = prefix
        self.partition_of = lru_cache(CUSTOMERS_REMEMBERED)(self._partition_of)
        self.record = lru_cache(CUSTOMERS_REMEMBERED)(self._record)
        self.journal_of = lru_cache(CUSTOMERS_REMEMBERED)(self._journal_of)

    def _partition_of(self, customer_id: str) -> str:
        """Return the customer's partition: CRC-32 of the id in UTF-8, modulo the count."""
        return self.partitions[crc32(customer_id.encode()) % len(self.partitions)]

    def _record(self, customer_id: str) -> str:
        return f"{self.prefix}:{{{self.partition_of(customer_id)}}}:c:{encoded(customer_id)}"

    def _journal_of(self, customer_id: str) -> str:
        return self.journal(self.partition_of(customer_id))

    def records_pattern(self) -> str:
        """The pattern of all customers' records, for SCAN."""
        return f"{self.prefix}:{{p[0-9][0-9]}}:c:*"

    def everything_pattern(self) -> str:
        """The pattern of every key under this prefix, for SCAN."""
        return f"{self.prefix}:{{*}}*"

    def journal(self, partition: str) -> str:
        return f"{self.prefix}:{{{partition}}}:j"

    def epoch(self, partition: str) -> str:
        """The random name that a journal gets when it is made; another name is another journal."""
        return f"{self.prefix}:{{{partition}}}:epoch"

    def due(self, partition: str) -> str:
        return f"{self.prefix}:{{{partition}}}:due"

    def key_buckets(self, customer_id: str, now_ms: int) -> list[str]:
        """Return the hashes of callers' keys: the one to write, then those to read besides (see lua/lib/keys.lua)."""
        stem, name = f"{self.prefix}:{{{self.partition_of(customer_id)}}}:k", encoded(customer_id)
        return [f"{stem}:{bucket}:{name}" for bucket in _buckets(now_ms)]

    def system_key_buckets(self, now_ms: int) -> list[str]:
        return [f"{self.prefix}:{{{SYSTEM_PARTITION}}}:k:{bucket}" for bucket in _buckets(now_ms)]

    def documents(self, document_type: str) -> str:
        return f"{self.prefix}:{{{SYSTEM_PARTITION}}}:d:{document_type}"

    def batches(self) -> str:
        """The hash of open batches of usage: batch id → the stream id of its entry in the system's journal."""
        return f"{self.prefix}:{{{SYSTEM_PARTITION}}}:batches"

    def workers(self) -> str:
        """The hash of heartbeats: worker id → '<version of the catalog> <ms of Redis TIME until which it counts>'."""
        return f"{self.prefix}:{{{SYSTEM_PARTITION}}}:workers"

    def pointer(self, hold_id: str) -> str:
        """The key that tells whose hold an id names. Its own hash tag: the customer is not known before it is read."""
        digest = blake2b(hold_id.encode(), digest_size=16).hexdigest()
        return f"{self.prefix}:{{l:{digest}}}"

    def lease(self, name: str) -> str:
        return f"{self.prefix}:{{{SYSTEM_PARTITION}}}:lease:{name}"


def bucket_at(now_ms: int) -> int:
    """Return the number of the bucket to write callers' keys to."""
    return now_ms // KEY_BUCKET_MS


def _buckets(now_ms: int) -> tuple[int, int, int, int]:
    bucket = bucket_at(now_ms)
    return bucket, bucket + 1, bucket - 1, bucket - 2
