"""Pages behind a real edge, asked over ASGI without a socket."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from manyways.edge.exchange import Exchange
from manyways.edge.http import Edge
from manyways.edge.metrics import RequestCounts
from manyways.edge.routes import Endpoint, EndpointOf, Routes
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
    """An answer; status 0 where none came. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


def edge(
    pages: Mapping[str, Endpoint | Mapping[str, Endpoint]],
    with_id: Mapping[str, Mapping[str, EndpointOf]] | None = None,
) -> Edge:
    """A gateway that has these pages, and nothing else. A page by itself is for reading."""

    async def none(exchange: Exchange, model: str) -> None:
        raise Refusal("model_not_found", model)

    rooted = {
        path: page if isinstance(page, Mapping) else {"GET": page, "HEAD": page}
        for path, page in pages.items()
    }
    routes = Routes(Settings(), {}, rooted, model=none, with_id=with_id)
    return Edge(routes, Settings(), RequestCounts((), (), rooted), lambda *_: None)


async def ask(
    at: Edge,
    target: str,
    *,
    key: str | None = None,
    method: str = "GET",
    body: object = None,
    headers: Mapping[str, str] | None = None,
    heard: Callable[[bytes], object] = lambda _: None,
    leaving: asyncio.Event | None = None,
) -> Page:
    """The answer to a request for `target`, a path and perhaps a query.

    `body` is JSON, or bytes as they are. `heard` is told each piece of the answer the moment it
    comes; the caller leaves when `leaving` is set.
    """
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    requests = [{"type": "http.request", "body": data}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await (leaving or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        heard(message.get("body", b""))

    out = dict(headers or {})
    if key is not None:
        out["authorization"] = f"Bearer {key}"
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in out.items()],
    }
    await asyncio.create_task(at(scope, receive, send))  # the server gives each its own task
    return Page(
        sent[0]["status"] if sent else 0,
        {name.decode(): value.decode() for name, value in sent[0]["headers"]} if sent else {},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
