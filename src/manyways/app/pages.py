"""Every route of the gateway, and what stands behind it."""

import time

from msgspec import Struct

from manyways import logs
from manyways.access.idempotency import Claims
from manyways.access.keys import KeyRing
from manyways.attempts.bill import Books
from manyways.attempts.tally import Tally
from manyways.catalog.catalog import Catalog
from manyways.config import Settings
from manyways.edge.admin import AdminPages
from manyways.edge.catalog import CatalogPages
from manyways.edge.exchange import Exchange
from manyways.edge.http import Edge
from manyways.edge.idempotency import Repeats
from manyways.edge.metrics import MetricsPage, RequestCounts
from manyways.edge.readiness import ReadinessPage
from manyways.edge.routes import NOT_YET, Endpoint, Routes
from manyways.errors import Refusal
from manyways.flow import Flow
from manyways.routing.health import Health
from manyways.routing.standing import Standing, standings
from manyways.schedule import Leader
from manyways.store.database import Database
from manyways.store.shared import Shared
from manyways.types import Caller
from manyways.upstream.openai import OpenAIProvider
from manyways.usage.ledger import Ledger


class Parts(Struct, frozen=True, kw_only=True):
    """What the pages show and steer."""

    settings: Settings
    database: Database
    flow: Flow
    catalog: Catalog
    ring: KeyRing
    health: Health
    providers: dict[str, OpenAIProvider]
    books: Books
    tally: Tally
    ledger: Ledger
    claims: Claims
    shared: Shared | None
    leader: Leader


def edge_of(parts: Parts) -> Edge:
    """Every route, and what counts the requests to it."""
    settings, flow, catalog = parts.settings, parts.flow, parts.catalog
    admin_types = {name for name, kind in settings.keys.types.items() if kind.admin}
    pages = CatalogPages(catalog, settings.catalog.title)
    ready = ReadinessPage(
        catalog, journal=parts.books.journal, ledger=parts.ledger, shared=parts.shared
    )

    def standing() -> tuple[Standing, ...]:
        return standings(parts.health, time.monotonic())

    admin = AdminPages(
        authenticate=flow.authenticate,
        admin_types=admin_types,
        catalog=catalog,
        providers=settings.providers,
        standings=standing,
        label=lambda name, credential: parts.providers[name].label(credential),
    )
    repeats = Repeats(
        parts.claims,
        authenticate=flow.authenticate,
        owner=_owner,
        patience=settings.routing.deadline,
        send_timeout=settings.server.send_timeout,
    )
    mounted: dict[str, dict[str, Endpoint]] = {
        "/chat/completions": {"POST": repeats.once(flow.chat)},
        "/models": _reading(pages.models),
        "/models/list": _reading(pages.text),
        "/providers": _reading(pages.providers),
        **{path: {"POST": _not_yet(flow, path, what)} for path, what in NOT_YET.items()},
    }
    rooted: dict[str, dict[str, Endpoint]] = {
        "/healthz": _reading(_alive),
        "/readyz": _reading(ready.ready),
        "/openapi.json": _reading(_described(settings)),
        "/admin/v1/providers": _reading(admin.providers),
    }
    counts = RequestCounts(
        (mount.path for mount in settings.server.mounts), mounted, (*rooted, "/metrics")
    )

    def active() -> int:
        return len(edge.active)

    metrics = MetricsPage(
        counts=counts,
        standings=standing,
        tally=parts.tally,
        active=active,
        catalog=lambda: catalog.snapshot,
    )
    rooted["/metrics"] = _reading(metrics.metrics)
    routes = Routes(settings.server, mounted, rooted, model=pages.model)
    edge: Edge = Edge(routes, settings.server, counts, logs.tell)
    return edge


def _owner(caller: Caller) -> str:
    """Whose requests a repeat may be of: the key's, and of those it replaced."""
    return caller.line or caller.key_id


def _reading(endpoint: Endpoint) -> dict[str, Endpoint]:
    return {"GET": endpoint, "HEAD": endpoint}


async def _alive(exchange: Exchange) -> None:
    await exchange.answer(b'{"status":"ok"}')


def _described(settings: Settings) -> Endpoint:
    async def described(exchange: Exchange) -> None:
        from manyways.edge import openapi

        await exchange.answer(openapi.document(mount.path for mount in settings.server.mounts))

    return described


def _not_yet(flow: Flow, path: str, what: str) -> Endpoint:
    async def refuse(exchange: Exchange) -> None:
        await flow.open(exchange, path)
        raise Refusal(
            "not_supported",
            f"There is no way to {what} yet; POST /v1/chat/completions is served.",
        )

    return refuse
