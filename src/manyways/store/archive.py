"""Old records, moved out of the database: a Parquet file for each table and day.

A row leaves the database only once it stands in a file that was written whole, forced to the
disk and read back. Who dies on the way leaves a temporary file at worst; whoever comes next
finds out which rows stand in the files already, and adds the others. So no row is lost, none
stands twice, and rows that come late, too, are kept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Integer,
    Select,
    Table,
    delete,
    select,
    tuple_,
)

from manyways.errors import ConfigError, StoreError
from manyways.store.records import id_before
from manyways.store.reports import DAY
from manyways.store.tables import usage_attempts, usage_refusals, usage_stats

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from manyways.store.database import Database

BATCH: Final = 5000
"""Rows of one transaction: some milliseconds, in which others wait for their turn to write."""

_TABLES: Final = (usage_stats, usage_attempts, usage_refusals)
_PYARROW: Final = ("pyarrow", "pyarrow.compute", "pyarrow.parquet")  # without type information
_NO_PYARROW: Final = (
    "usage.archive names a folder, but the package pyarrow, which writes Parquet files, is not"
    " installed. Install it (pip install 'manyways[archive]'), or leave usage.archive empty to"
    " have old records deleted. None is deleted meanwhile."
)


class Archive:
    """A folder of Parquet files, made if it is missing. One process writes to it at a time.

    Raises `ConfigError` where pyarrow is missing, `StoreError` where the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            pa, pc, pq = map(import_module, _PYARROW)
        except ImportError as error:
            raise ConfigError(_NO_PYARROW) from error
        self._pa: Any = pa
        self._pc: Any = pc
        self._pq: Any = pq
        self.folder = folder
        with self._failures():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<Archive {self.folder}>"

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else writes to it, until the end."""
        with self._failures():
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                for left in self.folder.glob(".usage_*.parquet"):  # by somebody who was killed
                    left.unlink(missing_ok=True)
                yield True
        finally:
            os.close(lock)

    def file(self, table: Table, day: int) -> Path:
        """Where the rows of a day (its first Unix second) are kept."""
        return self.folder / f"{table.name}-{datetime.fromtimestamp(day, UTC):%Y-%m-%d}.parquet"

    def move(self, database: Database, day: int, rest: Callable[[], object]) -> int:
        """Bring a day's records into the archive, and out of the database; returns how many
        requests left it. `rest` is called between transactions. Raises `StoreError`."""
        with self._failures():
            for table in _TABLES:
                self._keep(database, table, day, rest)
            moved = self._remove(database, usage_stats, day, rest)
            self._remove(database, usage_refusals, day, rest)
        return moved

    def _keep(self, database: Database, table: Table, day: int, rest: Callable[[], object]) -> None:
        """Write what is in the database, and not in the file yet, into the file."""
        path = self.file(table, day)
        known = self._identities(path, table)
        old = 0 if known is None else len(known)
        temporary = path.with_name(f".{path.name}")
        schema = self._schema(table)
        writer: Any = None
        added = 0
        try:
            for rows in _rows(database, table, day):
                batch = self._pa.Table.from_pylist(rows, schema=schema)
                if known is not None:
                    there = self._pc.is_in(self._identity(batch, table), value_set=known)
                    batch = batch.filter(self._pc.invert(there))
                if not batch.num_rows:
                    continue
                if writer is None:
                    writer = self._pq.ParquetWriter(temporary, schema, compression="zstd")
                    if known is not None:
                        self._copy(path, writer)
                writer.write_table(batch)
                added += batch.num_rows
                rest()
            if writer is None:
                return
            writer.close()
            self._put(temporary, path, old + added)
        finally:
            if writer is not None:
                writer.close()
            temporary.unlink(missing_ok=True)

    def _copy(self, path: Path, writer: Any) -> None:
        with self._pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                writer.write_batch(batch)

    def _put(self, temporary: Path, path: Path, rows: int) -> None:
        """Make a file that was written take its place, once it is known to be whole."""
        temporary.chmod(0o600)
        _force(temporary)
        with self._pq.ParquetFile(temporary) as file:
            found = sum(batch.num_rows for batch in file.iter_batches(BATCH))
        if found != rows:
            raise StoreError(
                f"The archive {path} was not written right: {found} rows stand in it where {rows}"
                " should. The old one stays, and no record was deleted. See whether the disk fails."
            )
        temporary.replace(path)
        _force(path.parent)

    def _remove(
        self, database: Database, table: Table, day: int, rest: Callable[[], object]
    ) -> int:
        """Delete what stands in the file, with its attempts where it has any."""
        known = self._identities(self.file(table, day), table)
        if known is None:
            return 0
        removed = 0
        for rows in _rows(database, table, day, only_ids=True):
            batch = self._pa.array([row["id"] for row in rows], self._pa.string())
            there = self._pc.is_in(batch, value_set=known)
            ids: list[str] = batch.filter(there).to_pylist()
            removed += database.run(partial(_delete, table, ids), write=True, isolated=False)
            rest()
        return removed

    def _identities(self, path: Path, table: Table) -> Any:
        """What tells the rows of a file apart; `None` where there is no file."""
        if not path.exists():
            return None
        columns = ["request_id", "number"] if table is usage_attempts else ["id"]
        return self._identity(self._pq.read_table(path, columns=columns), table)

    def _identity(self, rows: Any, table: Table) -> Any:
        if table is not usage_attempts:
            return rows.column("id").combine_chunks()
        number = self._pc.cast(rows.column("number"), self._pa.string())
        joined = self._pc.binary_join_element_wise(rows.column("request_id"), number, "/")
        return joined.combine_chunks()

    def _schema(self, table: Table) -> Any:
        return self._pa.schema(
            self._pa.field(column.name, self._type(column), nullable=bool(column.nullable))
            for column in table.c
        )

    def _type(self, column: Column[Any]) -> Any:
        kind = column.type
        if isinstance(kind, DateTime):
            return self._pa.timestamp("us", tz="UTC")
        if isinstance(kind, BigInteger):
            return self._pa.int64()
        if isinstance(kind, Integer):
            return self._pa.int32()
        if isinstance(kind, Double):
            return self._pa.float64()
        return self._pa.string()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The archive {self.folder} cannot be written: {error.strerror or error}. See that"
                " the folder is there, that this user may write to it, and that the disk has room."
            ) from error
        except self._pa.ArrowException as error:
            raise StoreError(
                f"A file in the archive {self.folder} cannot be read or written: {error}. Move it"
                " away; no record was deleted."
            ) from error


def _rows(
    database: Database, table: Table, day: int, *, only_ids: bool = False
) -> Iterator[Sequence[dict[str, Any]]]:
    """The rows of a day in portions, each read in a transaction of its own."""
    identity = list(table.primary_key)
    query = (
        select(*(identity if only_ids else table.c))
        .where(identity[0] > id_before(day), identity[0] < id_before(day + DAY))
        .order_by(*identity)
        .limit(BATCH)
    )
    portion = query
    while rows := database.run(partial(_read, portion)):
        yield rows
        last = [rows[-1][column.name] for column in identity]
        portion = query.where(tuple_(*identity) > tuple_(*last))


def _read(query: Select[Any], connection: Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _delete(table: Table, ids: list[str], connection: Connection) -> int:
    if table is usage_stats:
        attempts = usage_attempts.c.request_id.in_(ids)
        connection.execute(delete(usage_attempts).where(attempts))
    return connection.execute(delete(table).where(table.c.id.in_(ids))).rowcount


def _force(path: Path) -> None:
    """To the disk itself."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
