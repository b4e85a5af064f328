"""The rows of `catalog_figures`: what each process has counted of each model.

Moments are Unix seconds; documents are JSON, and nothing here looks into them.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from manyways.store.bulk import Statement
from manyways.store.tables import catalog_figures as figures


class Row(NamedTuple):
    """What the process `node` has counted of a model. `at` is the end of its latest slice."""

    node: str
    provider: str
    model: str
    at: int
    document: str


_columns = figures.c
_PUT: Final = Statement(
    "INSERT INTO catalog_figures (node, provider, model, at, document)",
    [_columns.node, _columns.provider, _columns.model, _columns.at, _columns.document],
    "ON CONFLICT (node, provider, model) DO UPDATE"
    " SET at = excluded.at, document = excluded.document",
)
_after = select(
    _columns.node, _columns.provider, _columns.model, _columns.at, _columns.document
).where(_columns.at > bindparam("after"))
_forget = delete(figures).where(_columns.at < bindparam("before"))


def put(connection: Connection, node: str, rows: Iterable[tuple[str, str, int, str]]) -> None:
    """Keep what a process has counted: provider, model, `at` and document of each, no model
    twice. They take the place of what it told before."""
    _PUT.run(connection, [(node, *row) for row in rows])


def told(connection: Connection, after: int) -> Sequence[Row]:
    """What all processes have counted, as far as it reaches beyond a moment. Who reads again and
    again leaves some time between `after` and the newest row that it has: others may write
    late."""
    return [Row(*row) for row in connection.execute(_after, {"after": after})]


def prune(connection: Connection, before: int) -> int:
    """Delete what ends before a moment. Says how many rows that were."""
    return connection.execute(_forget, {"before": before}).rowcount
