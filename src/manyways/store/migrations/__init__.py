"""Bringing a database up to date. Migrations are numbered in one line: `0001`, `0002`, ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from manyways.errors import StoreError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from manyways.store.sqlite import SqliteFile

# The newest migration in `versions`, known without importing Alembic, which is slow to import.
HEAD = "0002"


def bring_up(file: SqliteFile) -> None:
    """Run what migrations are missing, in one transaction.

    Several programs may do so at once: one migrates, the others wait and find it done.
    Raises `StoreError` where the file holds something else than our tables, or tables newer
    than this program.
    """
    with file.transaction(write=False) as connection:
        if _revision(connection, file.path) == HEAD:
            return
    with file.transaction(write=True) as connection:
        if _revision(connection, file.path) != HEAD:
            _upgrade(connection)


def alembic_config() -> Config:
    """Where Alembic finds our migrations."""
    from alembic.config import Config

    config = Config()
    # A percent sign in the path would begin an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _revision(connection: Connection, path: Path) -> str | None:
    """The migration the database stands at; `None` for an empty one."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    revision = None
    if "alembic_version" in tables:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is None or not (len(revision) == len(HEAD) and revision.isdecimal()):
        raise StoreError(
            f"The database {path} belongs to another program: it holds tables that are not "
            f"Manyways'. Choose another file in database.url."
        )
    if revision > HEAD:
        raise StoreError(
            f"The database {path} was made by a newer version of Manyways (it stands at "
            f"{revision}, this program knows {HEAD}). Install that version or a newer one, or "
            f"choose another file in database.url."
        )
    return str(revision)


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
