"""The numbered steps that make and change the tables: forward only, and never edited after a release."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, inspect, select, text

from creditgate.errors import StartupError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The newest step in versions/, to which a database is brought."""

# Any number, the same in every version: the name of the lock that makes PostgreSQL migrate for one process at a time.
_MIGRATION_LOCK = 7_305_812_094_118_266_001


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest version, within the transaction of the connection.

    Raises StartupError if a newer release has migrated this database: its steps are unknown here.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    if _is_at_head(connection):
        return
    from alembic import command  # here, since it takes 100 ms to load, and most starts find nothing to do
    from alembic.util import CommandError

    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
    except CommandError as error:
        raise StartupError(
            "--database: its tables were made by a newer creditgate; start that version, or restore a backup"
        ) from error


def _is_at_head(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [HEAD]


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    # A % in the path would be read as a reference to another option.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
