"""Bringing a database up to date. Migrations are numbered in one line: `0001`, `0002`, ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from manyways.errors import StoreError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from manyways.store.engine import Engine

# The newest migration in `versions`, known without importing Alembic, which is slow to import.
HEAD = "0004"


def bring_up(engine: Engine) -> None:
    """Run what migrations are missing, in one transaction.

    Several programs may do so at once: one migrates, the others wait and find it done. A
    database that a newer program has brought further is left alone, and used, if that program
    says that this one may. Raises `StoreError` where it says otherwise, or where the database
    holds something else than our tables.
    """
    with engine.transaction(write=False) as connection:
        if not _is_behind(connection, engine.name):
            return
    with engine.migration() as connection:
        if _is_behind(connection, engine.name):
            _upgrade(connection)


def alembic_config() -> Config:
    """Where Alembic finds our migrations."""
    from alembic.config import Config

    config = Config()
    # A percent sign in the path would begin an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def revision(connection: Connection) -> str | None:
    """The migration that the database stands at; `None` for an empty one, an empty text for
    one that holds other tables than ours."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    found = None
    if "alembic_version" in tables:
        found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    ours = found is not None and len(found) == len(HEAD) and found.isdecimal()
    return str(found) if ours else ""


def _is_behind(connection: Connection, name: str) -> bool:
    """Whether migrations are missing. Raises `StoreError` where we may not use it at all."""
    found = revision(connection)
    if found is None:
        return True
    if not found:
        raise StoreError(
            f"The database {name} belongs to another program: it holds tables that are not "
            f"Manyways'. Choose another one in database.url."
        )
    if found > HEAD and _oldest(connection) > HEAD:
        raise StoreError(
            f"The database {name} was made by a newer version of Manyways (it stands at "
            f"{found}, this program knows {HEAD}). Install that version or a newer one, or "
            f"choose another database in database.url."
        )
    return found < HEAD


def _oldest(connection: Connection) -> str:
    """The migration that a program must know to use this database, which is a newer one's."""
    return str(connection.scalar(text("SELECT oldest FROM compatibility")))


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
