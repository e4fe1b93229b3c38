"""What happens to a call that could not be decided: a check is answered as the feature is set, a use is spooled.

The catalog that this process has read last says how the feature is set, so that needs no Redis.
"""

from time import monotonic

from creditgate.core.catalog import FeatureType
from creditgate.engine.catalogs import Catalogs
from creditgate.engine.spool import Spool
from creditgate.engine.usage import UsageUndecided
from creditgate.errors import CreditgateError
from creditgate.telemetry.metrics import Metrics

OUTAGE_ENDS_S = 10.0  # after the last check that was undecided, once something was decided again
ALLOWANCES_MAX = 100_000  # customers and features remembered at a time; whoever comes on top is denied


class Outage:
    """What this process has allowed in the outage that it is in, and its spool."""

    def __init__(self, catalogs: Catalogs, spool: Spool, metrics: Metrics) -> None:
        self._catalogs = catalogs
        self._spool = spool
        self._metrics = metrics
        self._allowed_nanos: dict[tuple[str, str], int] = {}
        self._last_at = 0.0
        self._decided = 0

    def allows(self, *, customer_id: str, feature_id: str, nanos: int) -> bool:
        """Say whether to allow so many units; of a bounded feature, they count until the outage is over."""
        self._note()
        feature = self._catalogs.current.features.get(feature_id)
        most = 0 if feature is None else feature.fallback_nanos
        if feature is None or most == 0:
            return False
        if most is None or feature.type is FeatureType.BOOLEAN:  # on or off: it has no units to count
            return True
        name = (customer_id, feature_id)
        total = self._allowed_nanos.get(name, 0) + max(nanos, 0)
        if total > most or (name not in self._allowed_nanos and len(self._allowed_nanos) >= ALLOWANCES_MAX):
            return False
        self._allowed_nanos[name] = total
        return True

    async def keeps(self, error: CreditgateError) -> bool:
        """Spool the use that could not be decided; False if it is none that can be. Raises SpoolFull.

        One that is known to be taken needs no spool: posted after its key has ended, it would be taken again.
        What a lock has taken is not known before it is finalized, so it is not spooled.
        """
        if not isinstance(error, UsageUndecided) or error.sent.usage.verb == "hold" or not self._spool.is_on:
            return False
        if not error.sent.is_taken:
            await self._spool.keep(error.sent)
        return True

    def _note(self) -> None:
        """Begin anew if this is another outage. Nothing is done for it while all is well: it looks back instead."""
        now, decided = monotonic(), self._metrics.decided_in_all()
        if decided != self._decided and now - self._last_at > OUTAGE_ENDS_S:
            self._allowed_nanos.clear()
        self._last_at, self._decided = now, decided
