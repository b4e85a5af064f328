"""Pages behind a real edge, asked over ASGI without a socket."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manyways.edge.exchange import Exchange
from manyways.edge.http import Edge
from manyways.edge.metrics import RequestCounts
from manyways.edge.routes import Endpoint, Routes
from manyways.edge.settings import Settings
from manyways.errors import Refusal
from manyways.types import Caller

KEYS = {
    secret: Caller(key_id=secret, key_type=secret, last4=secret[-4:])
    for secret in ("admin", "full")
}
"""Secrets that work here: each is named like its type."""


async def authenticate(exchange: Exchange) -> Caller:
    """Whose key came. Raises `Refusal`."""
    caller = KEYS.get(exchange.secret or "")
    if caller is None:
        raise Refusal("invalid_api_key", "This key is not known.")
    return caller


@dataclass(frozen=True)
class Page:
    """An answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


def edge(pages: Mapping[str, Endpoint]) -> Edge:
    """A gateway that has these pages, and nothing else."""

    async def none(exchange: Exchange, model: str) -> None:
        raise Refusal("model_not_found", model)

    rooted = {path: {"GET": page, "HEAD": page} for path, page in pages.items()}
    routes = Routes(Settings(), {}, rooted, model=none)
    return Edge(routes, Settings(), RequestCounts((), (), rooted), lambda *_: None)


async def ask(at: Edge, target: str, *, key: str | None = None, method: str = "GET") -> Page:
    """The answer to a request for `target`, a path and perhaps a query."""
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": headers,
    }
    await asyncio.create_task(at(scope, receive, send))  # the server gives each its own task
    return Page(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
