"""What a catalog file changes: the document that the catalog becomes, and each step there in words. Pure.

Applying a file a second time changes nothing. What a file does not name stays as it is, unless it is pruned.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from msgspec.structs import replace

from creditgate.core.catalog import Catalog, CatalogDocument, Feature, FeatureType, Plan
from creditgate.core.catalog_edits import with_feature, with_feature_changed, with_plan, with_plan_changed
from creditgate.core.catalog_file import CatalogFile
from creditgate.core.catalog_words import Words, differences, feature_words, plan_words
from creditgate.core.controls import NO_CONTROLS
from creditgate.core.toml_lines import Place
from creditgate.errors import NotFound

_KEPT_FIELDS = {"id", "created_at", "version", "given"}
"""What a file cannot say of a feature or plan."""


class Kind(StrEnum):
    """What happens to a feature or plan."""

    CREATED = "created"
    CHANGED = "changed"
    ARCHIVED = "archived"
    BROUGHT_BACK = "brought back"


class Change(NamedTuple):
    """One feature or plan, such as `plan pro`, and what becomes different about it."""

    kind: Kind
    what: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        details = f": {'; '.join(self.details)}" if self.details else ""
        return f"{self.kind} {self.what}{details}"


class FileChanges(NamedTuple):
    """What a file does to a catalog. `unnamed` are those it does not name, which stay as they are."""

    document: CatalogDocument
    changes: tuple[Change, ...]
    unchanged: int
    unnamed: tuple[str, ...]


def changes_by(file: CatalogFile, catalog: Catalog, *, prune: bool, now: int) -> FileChanges:
    """Return what the file does to the catalog; with `prune`, what it does not name is archived.

    Raises CatalogFileError, with the line, for the first thing that cannot be.
    """
    _check_references(file, None if prune else catalog)
    words: list[Feature | Plan] = [*file.features, *file.plans]
    found, changes = catalog, []
    for word in words:
        with file.blamed("plans" if isinstance(word, Plan) else "features", word.id):
            after = Catalog(catalog.version, _with(found, word, now))
        changes.append(_change(word, found, after))
        found = after
    unnamed = _unnamed(words, catalog)
    for word in unnamed if prune else ():
        after = Catalog(catalog.version, _archived(found, word))
        changes.append(_change(word, found, after))
        found = after
    return FileChanges(
        document=found.document,
        changes=tuple(change for change in changes if change is not None),
        unchanged=changes.count(None),
        unnamed=() if prune else tuple(map(_what, unnamed)),
    )


def _check_references(file: CatalogFile, catalog: Catalog | None) -> None:
    """Refuse a name that is nowhere: on the wire a member may be made later, in a file it is a misspelling."""
    known = {feature.id for feature in file.features} | (catalog.features.keys() if catalog else set())
    nowhere = "is not in this file" + (" and not in the catalog" if catalog else "")
    for feature_id, place in _references(file):
        if feature_id not in known:
            with file.blamed(*place):
                raise NotFound(f"feature {feature_id} {nowhere}")


def _references(file: CatalogFile) -> Iterator[tuple[str, Place]]:
    """Yield each feature that is named, and where in the file."""
    for feature in file.features:
        for cost in feature.credit_schema:
            yield cost.feature_id, ("features", feature.id, "costs", cost.feature_id)
    for plan in file.plans:
        for number, item in enumerate(plan.items):
            yield item.feature_id, ("plans", plan.id, "items", number, "feature")
            if item.entity_feature_id is not None:
                yield item.entity_feature_id, ("plans", plan.id, "items", number, "entity_feature")
        controls, place = plan.controls or NO_CONTROLS, ("plans", plan.id, "billing_controls")
        for limit in controls.spend_limits:
            yield limit.feature_id, (*place, "spend_limits", limit.feature_id)
        for number, usage in enumerate(controls.usage_limits):
            yield usage.feature_id, (*place, "usage_limits", number, "feature")
        for allowed in controls.overage_allowed:
            yield allowed.feature_id, (*place, "overage_allowed", allowed.feature_id)
        for number, alert in enumerate(controls.usage_alerts):
            yield alert.feature_id, (*place, "usage_alerts", number, "feature")


def _with(catalog: Catalog, word: Feature | Plan, now: int) -> CatalogDocument:
    said = {field: getattr(word, field) for field in word.__struct_fields__ if field not in _KEPT_FIELDS}
    if isinstance(word, Feature):
        is_new = word.id not in catalog.features
        return with_feature(catalog, word) if is_new else with_feature_changed(catalog, word.id, said)
    if word.id not in catalog.plans:
        return with_plan(catalog, replace(word, created_at=now))
    return with_plan_changed(catalog, word.id, said)


def _archived(catalog: Catalog, word: Feature | Plan) -> CatalogDocument:
    change = with_feature_changed if isinstance(word, Feature) else with_plan_changed
    return change(catalog, word.id, {"archived": True})


def _unnamed(words: list[Feature | Plan], catalog: Catalog) -> list[Feature | Plan]:
    """Return what the catalog has in use and nobody named."""
    named = {(type(word), word.id) for word in words}
    there: list[Feature | Plan] = [*catalog.document.features, *catalog.document.plans]
    return [word for word in there if not word.archived and (type(word), word.id) not in named]


def _change(word: Feature | Plan, before: Catalog, after: Catalog) -> Change | None:
    was, now = _found(before, word), _found(after, word)
    assert now is not None
    if was == now:
        return None
    if was is None:
        return Change(Kind.CREATED, _what(now))
    details = tuple(differences(_words(was, before), _words(now, after)))
    if isinstance(now, Plan) and isinstance(was, Plan) and now.version != was.version:
        details = (f"becomes version {now.version}", *details)
    if was.archived != now.archived:
        return Change(Kind.ARCHIVED if now.archived else Kind.BROUGHT_BACK, _what(now), details)
    return Change(Kind.CHANGED, _what(now), details or ("is in another order",))


def _words(word: Feature | Plan, catalog: Catalog) -> Words:
    return plan_words(word, catalog) if isinstance(word, Plan) else feature_words(word)


def _found(catalog: Catalog, word: Feature | Plan) -> Feature | Plan | None:
    return catalog.plans.get(word.id) if isinstance(word, Plan) else catalog.features.get(word.id)


def _what(word: Feature | Plan) -> str:
    if isinstance(word, Plan):
        return f"plan {word.id}"
    return f"{'credit system' if word.type is FeatureType.CREDIT_SYSTEM else 'feature'} {word.id}"
