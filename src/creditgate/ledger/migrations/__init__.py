"""The numbered steps that make and change the tables: forward only, and never edited after a release."""

from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
)

from creditgate.errors import StartupError
from creditgate.ledger.tables import metadata

HEAD = "0005"
"""The newest step in versions/."""

# Alembic's own table, as it makes it.
_versions = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

# Any number, the same in every version: the name of the lock that makes PostgreSQL migrate for one process at a time.
_MIGRATION_LOCK = 7_305_812_094_118_266_001


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest version, within the transaction of the connection.

    A new database gets the tables as they are now, an older one goes through the steps since: most starts do without
    Alembic, which takes 0.1 s to load. Raises StartupError as `take_steps` does.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    if not inspect(connection).has_table(_versions.name):
        metadata.create_all(connection, checkfirst=False)
        _versions.create(connection)
        connection.execute(insert(_versions).values(version_num=HEAD))
    elif connection.scalars(select(_versions.c.version_num)).all() != [HEAD]:
        take_steps(connection)


def take_steps(connection: Connection) -> None:
    """Go through every step that this database has not taken yet.

    Raises StartupError if a newer release has migrated it: those steps are unknown here.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    # A % in the path would be read as a reference to another option.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StartupError(
            "--database: its tables were made by a newer creditgate; start that version, or restore a backup"
        ) from error
