"""The ASGI callable: routes a request, and turns whatever happens to it into an answer."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from manyways.edge.exchange import Exchange, Headers, Receive, Send
from manyways.edge.metrics import RequestCounts
from manyways.edge.routes import Route, Routes
from manyways.edge.settings import Settings
from manyways.errors import CallerLeft, Refusal, StoreError
from manyways.store.ids import new_id

_OURS = b", ".join(
    (
        b"X-API-Version", b"X-Request-Id", b"X-Client-Request-Id", b"X-Manyways-Provider",
        b"X-Manyways-Model", b"X-Manyways-Attempts", b"X-RateLimit-Limit",
        b"X-RateLimit-Remaining", b"X-RateLimit-Reset", b"Retry-After", b"ETag",
        b"Idempotency-Replayed", b"X-Original-Request-Id", b"X-Next-Cursor",
    )
)  # fmt: skip
_EVERY_ANSWER = (
    (b"x-api-version", b"1.0"),
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", _OURS),
)
_ALLOWED_HEADERS = (
    b"Authorization, Content-Type, Accept, Accept-Language, Idempotency-Key, If-None-Match,"
    b" OpenAI-Beta, OpenAI-Organization, OpenAI-Project, X-Api-Key, X-Goog-Api-Key,"
    b" Anthropic-Version, Anthropic-Beta, X-Request-Id, X-Client-Request-Id, X-Request-Timeout,"
    b" X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version,"
    b" X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version,"
    b" X-Stainless-Timeout, X-Stainless-Helper-Method, X-Stainless-Async, User-Agent"
)
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})
"""What machines ask every few seconds: nobody wants to read that it went well."""
_CLIENT_ID_LENGTH = 128
_PATH_LENGTH = 200

Tell = Callable[[str, dict[str, Any]], None]
"""Writes a line of the log: its event, and facts that it may keep."""

log = structlog.get_logger("manyways.edge")


class Edge:
    """What the HTTP server calls for every request, each of which is counted and told.

    `active` are the exchanges under way; `drain` refuses new ones and ends these in time.
    """

    def __init__(
        self, routes: Routes, settings: Settings, counts: RequestCounts, tell: Tell
    ) -> None:
        self._routes = routes
        self._settings = settings
        self._counts = counts
        self._tell = tell
        self._draining = False
        self.active: dict[Exchange, asyncio.Task[Any]] = {}

    def __repr__(self) -> str:
        return f"<Edge active={len(self.active)}{' draining' if self._draining else ''}>"

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("the server runs each request in a task")
        route = self._routes.find(scope["path"])
        request_id = new_id()
        common: Headers = [*_EVERY_ANSWER, (b"x-request-id", request_id.encode())]
        exchange = Exchange(
            scope,
            receive,
            send,
            task=task,
            request_id=request_id,
            common=common,
            settings=self._settings,
            error_format=route.error_format,
        )
        client_id = exchange.headers.get(b"x-request-id") or exchange.headers.get(
            b"x-client-request-id"
        )
        if client_id and _sane(client_id):
            common.append((b"x-client-request-id", client_id))
            exchange.client_id = client_id.decode()
        self.active[exchange] = task
        try:
            await self._serve(route, exchange)
        except CallerLeft as error:
            await self._left(exchange, error)
        except asyncio.CancelledError:
            if not exchange.left:
                if not self._draining:
                    raise
                await self._cut(exchange)
        except StoreError as error:
            log.warning("cannot be looked up now", id=exchange.id, reason=str(error))
            await self._give_up(exchange, _not_now())
        except Exception:  # whatever it was, the caller is answered and the server goes on
            log.exception("unexpected error", id=exchange.id, path=exchange.path)
            await self._sorry(exchange)
        finally:
            exchange.close()
            self.active.pop(exchange, None)
            self._write_log(exchange)

    async def drain(self, seconds: float) -> None:
        """Refuse what comes from now on; what runs has `seconds`, then it is cut, honestly."""
        self._draining = True
        if self.active:
            log.info("waiting for running requests", count=len(self.active), limit_s=seconds)
            await asyncio.wait(set(self.active.values()), timeout=seconds)
        if self.active:
            log.warning("cutting running requests", count=len(self.active))
            running = set(self.active.values())
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=5.0)

    async def _serve(self, route: Route, exchange: Exchange) -> None:
        allow: Headers = []
        try:
            if self._draining:
                raise Refusal("shutting_down", "The gateway is stopping; ask again.", retry_after=5)
            if exchange.method == "OPTIONS" and route.endpoints:
                await exchange.answer(b"", 204, _preflight(route.methods))
                return
            endpoint = route.endpoints.get(exchange.method)
            if endpoint is None:
                allow = [(b"allow", route.methods.encode())] if route.endpoints else []
                raise route.refusal(exchange.method)
            exchange.check_size()
            await endpoint(exchange)
        except Refusal as refusal:
            if exchange.over:
                raise
            await exchange.refuse(refusal, allow)

    async def _left(self, exchange: Exchange, error: CallerLeft) -> None:
        """Gone, or out of step: broken framing looks like leaving, and is told where possible."""
        exchange.left = True
        if not exchange.started:
            refusal = Refusal("invalid_request", f"The request is not complete: {error}.")
            with contextlib.suppress(CallerLeft):
                await exchange.refuse(refusal)

    async def _cut(self, exchange: Exchange) -> None:
        """The gateway stops before the answer is complete, and says so."""
        await self._give_up(
            exchange, Refusal("shutting_down", "The gateway stopped; ask again.", retry_after=5)
        )

    async def _sorry(self, exchange: Exchange) -> None:
        """Our own fault: no inner text leaks."""
        await self._give_up(
            exchange, Refusal("server_error", "Something went wrong inside the gateway.")
        )

    async def _give_up(self, exchange: Exchange, refusal: Refusal) -> None:
        if exchange.over:
            exchange.broke_off(refusal)
            return
        try:
            await (exchange.fail if exchange.started else exchange.refuse)(refusal)
        except CallerLeft:
            exchange.left = True

    def _write_log(self, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.began
        status = 499 if exchange.left else exchange.status
        self._counts.count(exchange.path, status, seconds)
        facts: dict[str, Any] = {
            "method": exchange.method,
            "path": exchange.path[:_PATH_LENGTH],
            "status": status,
            "ms": round(seconds * 1000, 1),
        }
        if exchange.model is not None:
            facts["model"] = exchange.model.id
            facts["provider"] = exchange.model.provider
        if exchange.history is not None:
            facts["attempts"] = exchange.history
        if exchange.error_code is not None:
            facts["error"] = exchange.error_code
        if exchange.caller is not None:
            facts["key"] = exchange.caller.last4
        facts["id"] = exchange.id
        if status >= 500:
            log.warning("request", **facts)
        elif exchange.path in _ROUTINE and status == 200:
            log.debug("request", **facts)
        else:
            self._tell("request", facts)


def _not_now() -> Refusal:
    return Refusal(
        "server_error",
        "The gateway cannot look up what it has to know for this request; ask again.",
        status=503,
        retry_after=5,
    )


def _preflight(methods: str) -> Headers:
    return [
        (b"access-control-allow-methods", methods.encode()),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"86400"),
        (b"allow", methods.encode()),
    ]


def _sane(value: bytes) -> bool:
    return len(value) <= _CLIENT_ID_LENGTH and value.isascii() and value.decode().isprintable()
