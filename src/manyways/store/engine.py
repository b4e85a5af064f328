"""What a database must be able to do for `Database`, whoever makes it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

from manyways.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

LIMIT: Final = 30.0
"""Seconds that a transaction may take where nothing else is said."""


class Conflict(StoreError):
    """Another transaction came between and this one was undone: done again, it may succeed."""


class Engine(Protocol):
    """Transactions on one database. May be used from several threads at once. Every failure
    is a `StoreError` that names the database and the cure, and never a password."""

    @property
    def name(self) -> str:
        """The database in messages."""

    @property
    def shared(self) -> bool:
        """Whether several processes may serve it."""

    @property
    def threads(self) -> int:
        """How many short transactions are worth running at once."""

    def transaction(
        self, *, write: bool, isolated: bool = True, limit: float = LIMIT
    ) -> AbstractContextManager[Connection]:
        """A transaction: committed at the end, rolled back by whatever is raised inside.

        It sees the database as of its beginning, and what it writes is right as if no other
        ran beside it; where that fails, `Conflict` is raised. With `isolated` false, each of
        its statements sees what others have committed by then, and it meets no conflicts.
        """

    def migration(self) -> AbstractContextManager[Connection]:
        """A transaction to change the tables in: of these, one runs at a time."""

    def close(self) -> None:
        """Close the connections that are not in use."""
