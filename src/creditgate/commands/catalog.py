"""`creditgate apply`: make the catalog what a file says, and tell what that changed."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from creditgate.commands.place import DEFAULT_SEALED, SealedPlace
from creditgate.settings import Settings
from creditgate.terminal import run

if TYPE_CHECKING:
    from creditgate.core.catalog_changes import FileChanges


def apply(
    file: Annotated[Path, Parameter(help="The catalog file, in TOML.")],
    *,
    dry_run: Annotated[bool, Parameter(help="Say what would change, and change nothing.")] = False,
    prune: Annotated[
        bool, Parameter(help="Archive the features and plans that the file does not name.")
    ] = False,
    place: SealedPlace = DEFAULT_SEALED,
) -> None:
    """Make the catalog what a file says, in one step or not at all; a running sidecar goes on meanwhile."""
    settings = place.settings()
    applied = run(_apply(settings, file, prune, dry_run))
    for line in apply_lines(applied, is_dry_run=dry_run):
        print(line)


def apply_lines(applied: "FileChanges", *, is_dry_run: bool) -> list[str]:
    """Return what a catalog file changed, one line for each feature and plan, and the sum of it."""
    lines = [str(change) for change in applied.changes]
    if applied.unnamed:
        lines.append(
            f"not in the file, so left as they are (--prune archives them): {', '.join(applied.unnamed)}"
        )
    counts = Counter(change.kind for change in applied.changes)
    if not applied.changes:
        return [*lines, f"Nothing changes: {applied.unchanged} unchanged."]
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    end = "Nothing was written (--dry-run)" if is_dry_run else "Applied"
    return [*lines, f"{end}: {told}, {applied.unchanged} unchanged."]


async def _apply(settings: Settings, path: Path, prune: bool, dry_run: bool) -> "FileChanges":
    from creditgate import operations  # here, since `creditgate --help` need not load SQLAlchemy

    return await operations.apply(settings, operations.read_catalog(path), prune=prune, dry_run=dry_run)
