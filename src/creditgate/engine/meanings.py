"""What a use means by a catalog: which pools it may draw on, what it needs of each, and what its replies say.

It is worked out without waiting, and the same for every time that the same is asked for.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from creditgate.balances.calls import Needs
from creditgate.balances.prepared import Prepared, PreparedUse
from creditgate.balances.usage import (
    USES_MAX,
    Use,
    check_said_in,
    checked_in,
    track_said_in,
    tracked_in,
)
from creditgate.core.catalog import Catalog, Feature, FeatureType
from creditgate.core.controls import property_digests
from creditgate.core.decisions import Decision
from creditgate.core.journal import Call
from creditgate.engine.decisions import checked, decision_of
from creditgate.engine.keys import CallerKey
from creditgate.engine.needs import needs_of
from creditgate.engine.usage import Usage
from creditgate.errors import InvalidRequest, NotFound
from creditgate.telemetry.metrics import Histogram


class Repeated(msgspec.Struct):
    """What a use was answered once, for all replies that say the same but for amounts (`Meaning.said_in`).

    `row_ids` are the rows whose amounts replies have first, `gave` the features of those whose changes come then.
    `took` counts how long such decisions took. `form` is for who puts the answer into words.
    """

    said: tuple[Any, ...]
    decision: Decision
    took: Histogram
    row_ids: tuple[str, ...]
    gave: tuple[str, ...]
    form: Any = None


class Meaning(msgspec.Struct, kw_only=True):
    """What a use means by one catalog. `properties` are the digests of the use's own.

    Each kind has `prepared`, the command that asks; `repeated` is what it was answered, if it was asked more than once.
    """

    catalog: Catalog
    properties: Sequence[str]
    is_repeated: bool = False
    repeated: Repeated | None = None


class Taking(Meaning):
    """Each feature that is used, with what it needs; the call has no op id yet. The first has the caller's key."""

    uses: tuple[Use, ...]
    prepared: PreparedUse | None = None

    @classmethod
    def of(cls, usage: Usage, catalog: Catalog) -> "Taking":
        """Raises as `features_used`, InvalidRequest for what cannot be used up, AmountOutOfRange."""
        features = features_used(usage, catalog)
        if usage.verb == "check" and features[0].type is FeatureType.BOOLEAN:
            raise InvalidRequest(
                f"Feature {features[0].id} is on or off; it cannot be used up with send_event"
            )
        uses = []
        for feature in features:
            key = usage.key if feature is features[0] else None
            needs = needs_of(catalog.pools(feature.id), usage.value_nanos, usage.entity_id)
            uses.append(Use(_call(usage, feature, catalog.version, key), needs))
        return cls(catalog=catalog, properties=_digests(usage), uses=tuple(uses))

    def keyed(self, key: CallerKey) -> "Taking":
        """Return what the same use means with a caller's key."""
        first, *others = self.uses
        keyed = Use(first.call.keyed(key.digest, key.fingerprint), first.needs)
        return msgspec.structs.replace(self, uses=(keyed, *others))

    def said_in(self, reply: Sequence[Any]) -> tuple[Any, ...] | None:
        """Return what a reply says but for amounts and times, None if it does not say that all was taken."""
        return track_said_in(reply)

    def decision(self, reply: Sequence[Any]) -> Decision:
        """Return the decision that such a reply is, to a use of one feature."""
        verb = self.uses[0].call.verb
        return decision_of(verb, self.uses, tracked_in(reply), allowed=True, is_replay=False)


class Asking(Meaning):
    """What a question means."""

    feature: Feature
    needs: Needs
    prepared: Prepared | None = None

    @classmethod
    def of(cls, usage: Usage, catalog: Catalog) -> "Asking":
        """Raises NotFound `feature_not_found`, AmountOutOfRange."""
        feature = catalog.feature(usage.feature_id or "")
        needs = needs_of(catalog.pools(feature.id), usage.value_nanos, usage.entity_id)
        return cls(catalog=catalog, properties=_digests(usage), feature=feature, needs=needs)

    def said_in(self, reply: Sequence[Any]) -> tuple[Any, ...] | None:
        """Return what a reply says but for amounts and times, None if it is no answer."""
        return check_said_in(reply)

    def decision(self, reply: Sequence[Any]) -> Decision:
        """Return the decision that such a reply is."""
        return checked(self.feature, self.needs, checked_in(reply))


def features_used(usage: Usage, catalog: Catalog) -> tuple[Feature, ...]:
    """Return each feature that is used.

    Raises NotFound `feature_not_found`, or `invalid_request` where no feature counts the event, InvalidRequest if too
    many do.
    """
    if usage.feature_id is not None:
        return (catalog.feature(usage.feature_id),)
    name = usage.event_name or ""
    features = catalog.features_of_event(name)
    if not features:
        raise NotFound(f"No features found for event name: {name}", code="invalid_request")
    if len(features) > USES_MAX:
        raise InvalidRequest(f"event_name: {name} counts for more than {USES_MAX} features")
    return features


def _call(usage: Usage, feature: Feature, catalog_version: int, key: CallerKey | None) -> Call:
    return Call(
        usage.verb,
        "",
        catalog_version,
        key.digest if key else "",
        key.fingerprint if key else "",
        feature.id,
        usage.value_nanos,
        usage.occurred_at,
        usage.event_name or "",
        usage.entity_id or "",
        usage.properties,
    )


def _digests(usage: Usage) -> list[str]:
    text = usage.properties
    return property_digests(msgspec.json.decode(text)) if text != "{}" else []
