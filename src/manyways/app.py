"""The composition root: settings in, a running gateway out; start and stop in this order.

start   transport, embedded models, providers ─▶ catalog, keys ─▶ flow ─▶ routes ─▶ socket
stop    new requests refused ─▶ running ones finish, or are cut honestly ─▶ socket, providers
"""

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from manyways import logs
from manyways.access.keys import KeyRing
from manyways.attempts import Means
from manyways.attempts.tally import Tally
from manyways.catalog.catalog import Catalog
from manyways.config import Settings
from manyways.dialects import json_text
from manyways.edge.admin import AdminPages
from manyways.edge.catalog import CatalogPages
from manyways.edge.exchange import JSON, Exchange
from manyways.edge.http import Edge
from manyways.edge.metrics import MetricsPage, RequestCounts
from manyways.edge.routes import NOT_YET, Endpoint, Routes
from manyways.errors import ManywaysError, Refusal
from manyways.flow import Flow
from manyways.routing.health import Health, Name
from manyways.routing.standing import Standing, standings
from manyways.store.database import Database
from manyways.types import Provider
from manyways.upstream import transport
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.drain import Drains
from manyways.upstream.openai import OpenAIProvider

log = structlog.get_logger("manyways")


ONE_SIGNAL = 0.5
"""Seconds in which several signals are one: `make` passes on what the whole group got."""
RESTART_PAUSE = 1.0
"""Seconds before work in the background that failed is begun again."""


class CannotListen(ManywaysError):
    """The address is taken, or not ours to listen on."""


async def serve(settings: Settings, database: Database, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called with the base URL once the socket listens.

    Raises `CannotListen`. The database stays open: it belongs to the caller.
    """
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    stop = asyncio.Event()
    _do_not_interrupt()
    async with _gateway(settings, database) as edge:
        server = _Server(edge, settings, listener)
        serving = asyncio.create_task(server.serve())
        with _signals(stop):
            _spare_what_stays()
            ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                raise CannotListen("the HTTP server ended by itself")
            log.info("stopping")
            # Until they are through, whoever comes is told to ask again, and not turned away.
            await edge.drain(settings.server.drain)
            cast("Callable[[], None]", server.stop)()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await serving
        log.info("stopped")


@contextlib.asynccontextmanager
async def _gateway(settings: Settings, database: Database) -> AsyncIterator[Edge]:
    """Everything behind the socket."""
    carrier = AiohttpTransport()
    children = contextlib.AsyncExitStack()
    providers: dict[str, OpenAIProvider] = {}
    for provider in settings.providers:
        if provider.protocol == "local":
            from manyways.upstream.local import LocalModel

            child = LocalModel()
            child.start()
            children.push_async_callback(child.stop)
            providers[provider.name] = OpenAIProvider(
                provider, carrier, address=child, api_keys=(child.api_key,)
            )
        else:
            providers[provider.name] = OpenAIProvider(provider, carrier)
    routing = settings.routing
    asking = transport.Limits(
        connect=routing.connect_timeout, headers=10.0, idle=routing.idle_timeout
    )

    async def ask(provider: Provider) -> bytes:
        return await providers[provider.name].list_models(asking)

    catalog = Catalog(settings.catalog, settings.providers, ask)
    ring = KeyRing(database, settings.keys)
    health = Health(
        routing,
        {name: provider.credentials for name, provider in providers.items()},
        chance=random.random,
        tell=_tell_of_health,
    )
    tally = Tally()
    drains = Drains(partial(_drained, tally))
    flow = Flow(
        ring=ring,
        catalog=catalog,
        health=health,
        means=Means(providers, routing, settings.server.send_timeout, tally, drains),
        defaults={
            name: value
            for name in settings.defaults.__struct_fields__
            if (value := getattr(settings.defaults, name)) is not None
        },
    )

    def standing() -> tuple[Standing, ...]:
        return standings(health, time.monotonic())

    admin = AdminPages(
        authenticate=flow.authenticate,
        admin_types={name for name, kind in settings.keys.types.items() if kind.admin},
        catalog=catalog,
        providers=settings.providers,
        standings=standing,
        label=lambda name, credential: providers[name].label(credential),
    )
    edge = _edge(
        settings,
        flow,
        catalog,
        admin,
        partial(MetricsPage, standings=standing, tally=tally, catalog=lambda: catalog.snapshot),
    )
    async with _background(catalog.run, ring.follow):
        try:
            yield edge
        finally:
            await drains.aclose()
            await children.aclose()
            await carrier.aclose()


def _tell_of_health(name: Name, why: str, seconds: float | None) -> None:
    provider, model, credential = name
    key = None if credential is None else credential + 1
    facts = {"provider": provider, "model": model, "key": key, "why": why}
    if seconds is None:
        log.info("back in use", **facts)
    else:
        log.warning("resting", **facts, seconds=round(seconds, 1))


def _drained(tally: Tally, provider: str, usage: dict[str, Any]) -> None:
    tally.drained += 1
    log.info("drained", provider=provider, usage=usage)


def _edge(
    settings: Settings,
    flow: Flow,
    catalog: Catalog,
    admin: AdminPages,
    metrics_page: Callable[..., MetricsPage],
) -> Edge:
    """Every route, and what counts the requests to it."""
    pages = CatalogPages(catalog, settings.catalog.title)

    def reading(endpoint: Endpoint) -> dict[str, Endpoint]:
        return {"GET": endpoint, "HEAD": endpoint}

    async def alive(exchange: Exchange) -> None:
        await exchange.answer(b'{"status":"ok"}')

    async def ready(exchange: Exchange) -> None:
        count = len(catalog.snapshot.models)
        body = json_text.encode({"status": "ready" if count else "no models", "models": count})
        if count:
            await exchange.answer(body)
        else:
            await exchange.answer(body, 503, [JSON, (b"retry-after", b"1")])

    async def described(exchange: Exchange) -> None:
        from manyways.edge import openapi

        await exchange.answer(openapi.document(mount.path for mount in settings.server.mounts))

    def not_yet(what: str) -> Endpoint:
        async def refuse(exchange: Exchange) -> None:
            await flow.authenticate(exchange)
            raise Refusal(
                "not_supported",
                f"There is no way to {what} yet; POST /v1/chat/completions is served.",
            )

        return refuse

    mounted: dict[str, dict[str, Endpoint]] = {
        "/chat/completions": {"POST": flow.chat},
        "/models": reading(pages.models),
        "/models/list": reading(pages.text),
        "/providers": reading(pages.providers),
        **{path: {"POST": not_yet(what)} for path, what in NOT_YET.items()},
    }
    rooted = {
        "/healthz": reading(alive),
        "/readyz": reading(ready),
        "/openapi.json": reading(described),
        "/admin/v1/providers": reading(admin.providers),
    }
    counts = RequestCounts(
        (mount.path for mount in settings.server.mounts), mounted, (*rooted, "/metrics")
    )

    def active() -> int:
        return len(edge.active)

    metrics = metrics_page(counts=counts, active=active)
    rooted["/metrics"] = reading(metrics.metrics)
    routes = Routes(settings.server, mounted, rooted, model=pages.model)
    edge: Edge = Edge(routes, settings.server, counts, logs.tell)
    return edge


class _Server(Server):
    """Granian on a socket of ours, which it closes when it stops."""

    def __init__(self, edge: Edge, settings: Settings, listener: socket.socket) -> None:
        server = settings.server
        super().__init__(
            edge,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            backlog=server.backlog,
            backpressure=server.max_connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(server.header_timeout * 1000), max_buffer_size=64 * 1024
            ),
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # Its type information knows neither the constructor's arguments nor what this holds.
        held = cast("Callable[[int, bool, int], object]", SocketHolder)
        vars(self)["_shd"] = held(self._listener.detach(), False, self.backlog)


def _listen(settings: Settings) -> socket.socket:
    """The socket that callers connect to. Raises `CannotListen`."""
    server = settings.server
    try:
        found = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Connections inherit it: the system ends one whose caller reads nothing, which
                # the HTTP server would keep, place and all, for as long as the caller likes.
                limit = int(server.send_timeout * 1000)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
            listener.bind(where)
            listener.listen(server.backlog)
            listener.setblocking(False)
        except BaseException:  # also when interrupted: nobody else would close it
            listener.close()
            raise
    except OSError as error:
        raise CannotListen(
            f"Cannot listen on {server.host}:{server.port}: {error.strerror or error}. Another"
            " program may be using the port; choose one with --port, in the config under [server]"
            " port, or as MANYWAYS__SERVER__PORT."
        ) from error
    return listener


def _do_not_interrupt() -> None:
    """Threads hand over when they wait, not whenever another wakes up.

    The HTTP server's thread is woken many times a request. On a busy core each wake-up would
    interrupt the event loop, and cost a quarter of all answers. Threads inherit the policy.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # where a sandbox forbids it, it is only slower
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _spare_what_stays() -> None:
    """The garbage collector need not look at modules and settings again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@contextlib.asynccontextmanager
async def _background(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Work that goes on beside requests. What dies is told of, and begun again."""
    tasks = [asyncio.create_task(_going_on(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5.0)


async def _going_on(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await work()
        except Exception:  # whatever it was, it is told of and the work goes on
            log.exception("background work failed, and is begun again", work=repr(work))
            await asyncio.sleep(RESTART_PAUSE)


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """A first signal asks for a clean stop, a later one ends the process."""
    loop = asyncio.get_running_loop()
    first = 0.0

    def heard() -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
        elif loop.time() - first > ONE_SIGNAL:
            os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
