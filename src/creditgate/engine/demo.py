"""The tutorial's catalog: a catalog file of our own, applied as everybody's."""

from importlib import resources

from creditgate.core.catalog_file import CatalogFile, read_catalog_file
from creditgate.engine.catalogs import Catalogs

FILE = "tutorial.toml"


def tutorial() -> CatalogFile:
    """Return the tutorial's catalog file."""
    return read_catalog_file((resources.files(__package__) / FILE).read_text(encoding="utf-8"), FILE)


async def load(catalogs: Catalogs, now_ms: int) -> None:
    """Add what is not there yet of the tutorial's features and plans; what is there stays as it is."""
    current, file = await catalogs.refresh(), tutorial()
    new = file._replace(
        features=tuple(feature for feature in file.features if feature.id not in current.features),
        plans=tuple(plan for plan in file.plans if plan.id not in current.plans),
    )
    await catalogs.apply(new, now_ms=now_ms)
