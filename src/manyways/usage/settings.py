"""The `[usage]` section: what is kept of every request, where, and for how long."""

from typing import Final, Literal

from msgspec import Struct

WhenFull = Literal["refuse", "go-on"]


class Settings(Struct, frozen=True, kw_only=True):
    """Durations in seconds.

    `journal` is a folder; empty means beside the SQLite file, else `./manyways-journal`.
    `when_full` says what follows when the journal cannot be written. `sync` is how often it is
    forced to the disk itself, `retention` how long records stay in the database, and `archive`
    the folder they are moved to behind that, as Parquet; without it they are deleted.
    """

    journal: str = ""
    when_full: WhenFull = "refuse"
    sync: float = 1.0
    retention: float | None = None
    archive: str = ""


MARGIN: Final = 3600.0
"""Seconds that records stay longer than the longest window of a limit: a window begins when a
request is let in, a record is as old as the request's head."""
