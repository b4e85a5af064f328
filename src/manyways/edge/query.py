"""The query of a request: the fields that a page knows, and which part of a listing they name."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from manyways.edge.exchange import Exchange
from manyways.errors import Refusal

_FIELDS_AT_MOST = 20
_ROWS = 100
_MOST = 1000
_CURSOR = re.compile(r"[0-9A-Za-z._:-]{1,100}")


def query_fields(exchange: Exchange, *names: str) -> dict[str, str | None]:
    """The named fields, `None` where absent or empty; others are let be. Raises `Refusal`."""
    if not exchange.query:
        return dict.fromkeys(names)
    try:
        found = parse_qs(
            exchange.query.decode("ascii"), max_num_fields=_FIELDS_AT_MOST, errors="strict"
        )
    except ValueError:
        raise Refusal(
            "invalid_request",
            f"The query is malformed: UTF-8, percent-encoded, {_FIELDS_AT_MOST} fields at most.",
        ) from None
    return {name: found[name][0] if name in found else None for name in names}


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
        raise _wrong("cursor", "must be the 'next_cursor' of the page before")
    if limit is None:
        return Page(cursor, _ROWS)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= _MOST):
        raise _wrong("limit", f"must be between 1 and {_MOST}")
    return Page(cursor, int(limit))


def _wrong(name: str, what: str) -> Refusal:
    return Refusal("invalid_request", f"{name}: {what}.", param=name)
