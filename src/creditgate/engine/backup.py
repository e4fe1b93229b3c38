"""A backup: the ledger as of one instant, the key, the spool, and a manifest that says what it is and that it is whole.

Redis is filled from SQL by the next start, which also posts what was kept during an outage. A backup, and a data
directory that is restored from one, is made under another name and gets its own at the end, so that half of one is
never taken for it.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from creditgate import __version__
from creditgate.engine.instance import Instance
from creditgate.errors import StartupError
from creditgate.ledger.store import Ledger
from creditgate.settings import Environment, sqlite_url

FORMAT = 1
MANIFEST = "manifest.json"
LEDGER = "ledger.db"
SECRET_KEY = "secret_key"  # noqa: S105 - the name of a file
SPOOL = "spool.jsonl"
_SPOOL_FILE = f"{0:020d}-0.jsonl"  # the oldest of a restored spool


class Spooled(NamedTuple):
    """What waits in a spool, and the name of its directory."""

    name: str
    lines: Sequence[bytes]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself: `positions` is how far the stream of each partition is in it.

    `spooled` uses wait in the spool, whose directory has the name `spool`.
    """

    format: int = FORMAT
    creditgate: str
    made_at: datetime
    environment: Environment
    partitions: int
    positions: dict[str, str]
    sha256: dict[str, str]
    spool: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]*\Z")] = ""
    spooled: int = 0


def back_up(target: Path, ledger: Ledger, instance: Instance, key_file: Path, spool: Spooled) -> Manifest:
    """Write a backup into a directory that is not there yet, or is empty; StartupError if it cannot be."""
    with _made_at_once(target) as directory:
        ledger.copy_to(directory / LEDGER)
        if key_file.exists():
            _copy(key_file, directory / SECRET_KEY)
        if spool.lines:
            _write(directory / SPOOL, b"".join(line + b"\n" for line in spool.lines))
        with closing(Ledger(sqlite_url(directory / LEDGER))) as copy:
            positions = {name: str(position.stream_id) for name, position in copy.positions().items()}
        manifest = Manifest(
            creditgate=__version__,
            made_at=datetime.now(UTC).replace(microsecond=0),
            environment=instance.environment,
            partitions=instance.partitions,
            positions=positions,
            sha256={file.name: _sha256(file) for file in sorted(directory.iterdir())},
            spool=spool.name,
            spooled=len(spool.lines),
        )
        _write(directory / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    return manifest


def restore(source: Path, data_dir: Path) -> Manifest:
    """Make a data directory from a backup. Raises StartupError if that is not whole, or `data_dir` is not empty."""
    with _made_at_once(data_dir) as directory:
        manifest = _manifest_of(source)
        for name, expected in manifest.sha256.items():
            target = directory / name
            if name == SPOOL:
                target = directory / "spool" / manifest.spool / _SPOOL_FILE
                target.parent.mkdir(mode=0o700, parents=True)
            _copy(source / name, target)
            if _sha256(target) != expected:
                raise StartupError(f"{source / name} is not as it was when the backup was made.")
    return manifest


def check_empty(directory: Path) -> None:
    """Raise StartupError unless the directory can become one that is made here."""
    with _in_one_sentence(directory):
        if directory.exists() and any(directory.iterdir()):
            raise StartupError(f"{directory} is not empty: name a directory that does not exist yet.")
        if directory.is_mount():  # which cannot take the place of another directory
            raise StartupError(f"{directory} is where a volume is mounted: name a directory inside it.")


def _manifest_of(source: Path) -> Manifest:
    try:
        text = (source / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise StartupError(f"{source} is not a backup, or one that was interrupted: no {MANIFEST}.") from None
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError:
        raise StartupError(
            f"{source / MANIFEST} is not one that creditgate {__version__} can read."
        ) from None
    if manifest.format != FORMAT or not {LEDGER} <= manifest.sha256.keys() <= {LEDGER, SECRET_KEY, SPOOL}:
        raise StartupError(f"{source} needs another version: creditgate {manifest.creditgate} made it.")
    return manifest


@contextmanager
def _made_at_once(target: Path) -> Iterator[Path]:
    """Yield a private directory that becomes `target` with all that is in it, and on the disk; or is gone."""
    check_empty(target)
    target = target.absolute()
    with _in_one_sentence(target):
        directory = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
        try:
            yield directory
            for path in (*directory.rglob("*"), directory):
                _sync(path)
            directory.rename(target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise


def _copy(source: Path, target: Path) -> None:
    _write(target, b"")
    shutil.copyfile(source, target)


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _in_one_sentence(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartupError(f"{error.filename or place}: {error.strerror}.") from error
