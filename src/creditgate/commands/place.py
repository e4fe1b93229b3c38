"""Where the data is, as nearly every command is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from creditgate.settings import Settings

DataDir = Annotated[Path, Parameter(help="Where the embedded servers keep their data, and where the key is.")]
RedisUrl = Annotated[
    str | None, Parameter(help="redis://, rediss:// or unix:// URL; without it, a Valkey of our own.")
]
DatabaseUrl = Annotated[
    str | None, Parameter(help="sqlite:/// or postgresql:// URL; without it, DATA_DIR/ledger.db.")
]
Prefix = Annotated[
    str, Parameter(help="What every key in Redis begins with; one prefix holds one environment.")
]

SealKeyFile = Annotated[
    Path | None,
    Parameter(help="A key, to seal the journal with and to check its seals; older keys below it."),
]

_DEFAULTS = Settings()


@Parameter(name="*")  # each field is a flag of its own
@dataclass(frozen=True, kw_only=True)
class DataPlace:
    """Where the data is."""

    data_dir: DataDir = _DEFAULTS.data_dir
    redis: RedisUrl = None
    database: DatabaseUrl = None
    prefix: Prefix = _DEFAULTS.prefix

    def settings(self) -> Settings:
        """Return the settings that say so, and nothing else."""
        return Settings(**vars(self))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SealedPlace(DataPlace):
    """Where the data is whose journal may be sealed."""

    seal_key_file: SealKeyFile = None


DEFAULT_PLACE, DEFAULT_SEALED = DataPlace(), SealedPlace()
