"""The query of a request: the fields that a page knows."""

from urllib.parse import parse_qs

from manyways.edge.exchange import Exchange
from manyways.errors import Refusal

_FIELDS_AT_MOST = 20


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
