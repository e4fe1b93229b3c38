"""A document of the whole system, put as one by whoever has read its last version: the catalog, the webhooks."""

from creditgate.balances.store import BalanceStore
from creditgate.core.decisions import Status
from creditgate.core.journal import SYSTEM_PARTITION, Call
from creditgate.engine.attempts import Applied, Attempts
from creditgate.engine.ids import OpIds
from creditgate.engine.keys import NEVER, CallerKey, key_reused

PUT_ROUNDS_MAX = 8  # rounds lost to other writers before we give up
DOCUMENT_ID = "-"  # there is one of each type


class SystemDocument:
    """The one document of a type."""

    def __init__(self, store: BalanceStore, attempts: Attempts, op_ids: OpIds, document_type: str) -> None:
        self._store = store
        self._attempts = attempts
        self._op_ids = op_ids
        self._type = document_type

    async def put(
        self,
        document: bytes,
        version: int,
        verb: str,
        key: CallerKey | None,
        *,
        catalog_version: int = 0,
    ) -> Status:
        """Put the document in place of this version: OK, REPLAYED, or MOVED_ON if another version is there.

        Raises KeyReused and Undecided.
        """
        call = Call(
            verb=verb,
            op_id=self._op_ids.next(),
            catalog_version=catalog_version,
            key=key.digest if key else "",
            fingerprint=key.fingerprint if key else "",
        )
        written = await self._attempts.write(
            SYSTEM_PARTITION,
            call.op_id,
            lambda not_after: self._store.put(
                not_after=not_after,
                call=call,
                document_type=self._type,
                document_id=DOCUMENT_ID,
                expected_version=version,
                document=document,
            ),
        )
        if isinstance(written, Applied):
            return Status.OK
        if written.status is Status.KEY_REUSED:
            raise key_reused(key)
        return written.status

    async def is_replay(self, verb: str, key: CallerKey | None) -> bool:
        """Say whether this very call was made before: what it asks for may no longer be possible, and was done."""
        return key is not None and await self.put(b"-", NEVER, verb, key) is Status.REPLAYED
