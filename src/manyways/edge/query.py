"""The query of a request: the fields that a page knows, and which part of a listing they name."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from manyways.edge.body import short, wrong
from manyways.edge.exchange import Exchange
from manyways.errors import Refusal
from manyways.operations.wording import hint

_FIELDS_AT_MOST = 20
_ROWS = 100
_MOST = 1000
_CURSOR = re.compile(r"[0-9A-Za-z._:-]{1,100}")


def query_fields(exchange: Exchange, *names: str) -> dict[str, str | None]:
    """The named fields, `None` where absent or empty; others are let be. Raises `Refusal`."""
    found = _fields(exchange)
    return {name: found[name][0] or None if name in found else None for name in names}


def only_fields(exchange: Exchange, *names: str) -> dict[str, str | None]:
    """The same, where others than these are no fields at all. Raises `Refusal`."""
    for name in _fields(exchange):
        if name not in names:
            words = f"{short(name)}: there is no such parameter{hint(name, names)}"
            raise Refusal("invalid_request", words, param=short(name))
    return query_fields(exchange, *names)


def _fields(exchange: Exchange) -> dict[str, list[str]]:
    if not exchange.query:
        return {}
    try:
        return parse_qs(
            exchange.query.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=_FIELDS_AT_MOST,
            errors="strict",
        )
    except ValueError:
        raise Refusal(
            "invalid_request",
            f"The query is malformed: UTF-8, percent-encoded, {_FIELDS_AT_MOST} fields at most.",
        ) from None


class Page(NamedTuple):
    """A part of a listing: what stands behind the id `after`, `limit` rows at most."""

    after: str | None
    limit: int

    def document(
        self, rows: list[dict[str, Any]], *, more_behind: str | None = None
    ) -> dict[str, Any]:
        """The part as JSON has it. One row more than `limit` tells that there are more;
        `more_behind` is the id that was looked at last, where the rest was not."""
        shown = rows[: self.limit]
        cursor = shown[-1]["id"] if len(rows) > self.limit else more_behind
        return {
            "object": "list",
            "data": shown,
            "has_more": cursor is not None,
            "next_cursor": cursor,
        }


def page_of(query: Mapping[str, str | None]) -> Page:
    """The part of a listing that `cursor` and `limit` name. Raises `Refusal`."""
    cursor, limit = query["cursor"], query["limit"]
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise wrong("cursor", "must be the 'next_cursor' of the page before")
    if limit is None:
        return Page(cursor, _ROWS)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= _MOST):
        raise wrong("limit", f"must be between 1 and {_MOST}")
    return Page(cursor, int(limit))
