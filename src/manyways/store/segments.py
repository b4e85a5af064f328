"""How far each segment of a journal has come into the database.

It is noted in the transaction that writes the rows, so the two cannot differ: what is behind the
note is never counted again, although its rows may have left the database long ago.
"""

from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, select

from manyways.store.bulk import Statement
from manyways.store.tables import usage_segments


class Reached(NamedTuple):
    """So many bytes of a segment are in the database; `last` is the id of the record whose line
    ends there."""

    moved: int
    last: str


def note(connection: Connection, name: str, reached: Reached) -> None:
    """Note how far it has come, unless somebody has come further with it. Belongs into the
    transaction that writes the rows."""
    _note.run(connection, [(name, *reached)])


def reached(connection: Connection, name: str) -> Reached | None:
    """How far it has come; `None` where nothing of it was ever moved."""
    columns = usage_segments.c
    found = connection.execute(
        select(columns.moved, columns.last).where(columns.name == name)
    ).one_or_none()
    return None if found is None else Reached(*found)


def forget(connection: Connection, name: str) -> None:
    """Its file is gone. Belongs into a transaction that writes."""
    connection.execute(delete(usage_segments).where(usage_segments.c.name == name))


_note: Final = Statement(
    "INSERT INTO usage_segments (name, moved, last)",
    tuple(usage_segments.c),
    "ON CONFLICT (name) DO UPDATE SET moved = excluded.moved, last = excluded.last"
    " WHERE usage_segments.moved < excluded.moved",
)
