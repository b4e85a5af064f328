"""Every route of the gateway, and what stands behind it."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from msgspec import Struct

from manyways import logs
from manyways.access.idempotency import Claims
from manyways.access.keys import KeyRing
from manyways.access.last_use import LastUse
from manyways.app.upkeep import Upkeep
from manyways.app.verifying import Verifier
from manyways.attempts.bill import Books
from manyways.attempts.tally import Tally
from manyways.catalog.catalog import Catalog
from manyways.config import Settings
from manyways.edge.admin import AdminPages
from manyways.edge.admin_accounts import AccountPages
from manyways.edge.admin_catalog import CatalogAdminPages
from manyways.edge.admin_keys import KeyPages
from manyways.edge.catalog import CatalogPages
from manyways.edge.clerk import Clerk
from manyways.edge.exchange import Exchange
from manyways.edge.http import Edge
from manyways.edge.idempotency import Repeats
from manyways.edge.metrics import MetricsPage, RequestCounts, UsageReading
from manyways.edge.readiness import ReadinessPage
from manyways.edge.routes import NOT_YET, Endpoint, EndpointOf, Routes
from manyways.edge.team import Team
from manyways.edge.usage import UsagePages
from manyways.errors import Refusal
from manyways.flow import Flow
from manyways.operations.desk import Desk
from manyways.routing.health import Health
from manyways.routing.standing import Standing, standings
from manyways.schedule import Leader
from manyways.store.database import Database
from manyways.store.shared import Shared
from manyways.types import Caller, Provider
from manyways.upstream import proxies
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.outlets import outlet_of
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
    last_use: LastUse
    desk: Desk
    callers_desk: Desk
    shared: Shared | None
    leader: Leader
    upkeep: Upkeep
    verifier: Verifier
    team: Team | None


Work = Callable[[], Awaitable[None]]
_CHAT: Final = "/chat/completions"


def edge_of(parts: Parts) -> tuple[Edge, list[Work]]:
    """Every route, and what counts the requests to it; and work that goes on for the pages."""
    settings, flow, catalog = parts.settings, parts.flow, parts.catalog
    admin_types = {name for name, kind in settings.keys.types.items() if kind.admin}
    pages = CatalogPages(catalog, settings.catalog.title)
    ready = ReadinessPage(
        catalog, journal=parts.books.journal, ledger=parts.ledger, shared=parts.shared
    )

    def standing() -> tuple[Standing, ...]:
        return standings(parts.health, time.monotonic())

    def proxied(provider: Provider) -> str | None:
        url = outlet_of(provider, settings.upstream).proxy
        return str(proxies.parse(url)) if url else None

    async def authenticate(exchange: Exchange) -> Caller:
        caller = await flow.authenticate(exchange)
        parts.last_use.saw(caller)
        exchange.limited_to(parts.books.limits.peek(caller))
        return caller

    async def opened(exchange: Exchange) -> Caller:
        caller = await flow.authenticate(exchange)
        await flow.open(exchange, _CHAT, repeatable=True)
        return caller

    admin = AdminPages(
        authenticate=authenticate,
        admin_types=admin_types,
        catalog=catalog,
        providers=settings.providers,
        standings=standing,
        label=lambda name, credential: parts.providers[name].label(credential),
        failed=lambda name: parts.providers[name].failed,
        proxied=proxied,
    )
    clerk = Clerk(parts.database, admit=admin.admit, changed=parts.ring.poll)
    usage = UsagePages(
        parts.desk,
        callers=parts.callers_desk,
        authenticate=authenticate,
        admit=admin.admit,
    )
    keys = KeyPages(clerk, settings.keys, accounts=settings.accounts)
    verified = CatalogAdminPages(clerk, catalog, nudge=parts.verifier.nudge, live=parts.upkeep.live)
    accounts = AccountPages(clerk, usual=settings.accounts)
    repeats = Repeats(
        parts.claims,
        authenticate=opened,
        owner=_owner,
        patience=settings.routing.deadline,
        send_timeout=settings.server.send_timeout,
        standing=parts.books.limits.peek,
    )
    mounted: dict[str, dict[str, Endpoint]] = {
        _CHAT: {"POST": repeats.once(flow.chat)},
        "/models": _reading(pages.models),
        "/models/list": _reading(pages.text),
        "/providers": _reading(pages.providers),
        "/usage": _reading(usage.own),
        **{path: {"POST": _not_yet(parts, path, what)} for path, what in NOT_YET.items()},
    }
    rooted: dict[str, dict[str, Endpoint]] = {
        "/healthz": _reading(_alive),
        "/readyz": _reading(ready.ready),
        "/openapi.json": _reading(_described(settings)),
        "/admin/v1/providers": _reading(admin.providers),
        "/admin/v1/keys": {**_reading(keys.list), "POST": keys.create},
        "/admin/v1/usage": _reading(usage.report),
        "/admin/v1/usage/records": _reading(usage.records),
        "/admin/v1/catalog/refresh": {**_reading(verified.runs), "POST": verified.refresh},
        "/admin/v1/catalog/changes": _reading(verified.changes),
        "/admin/v1/catalog/incidents": _reading(verified.incidents),
        "/admin/v1/catalog/verifications": _reading(verified.verifications),
        "/admin/v1/accounts": {**_reading(accounts.list), "POST": accounts.create},
    }
    with_id: dict[str, dict[str, EndpointOf]] = {
        "/admin/v1/keys/{id}": {"GET": keys.show, "HEAD": keys.show, "PATCH": keys.change},
        "/admin/v1/keys/{id}/revoke": {"POST": keys.revoke},
        "/admin/v1/keys/{id}/rotate": {"POST": keys.rotate},
        "/admin/v1/accounts/{id}": {
            "GET": accounts.show,
            "HEAD": accounts.show,
            "PATCH": accounts.change,
        },
        "/admin/v1/catalog/refresh/{id}": {"GET": verified.status, "HEAD": verified.status},
        "/admin/v1/accounts/{id}/suspend": {"POST": accounts.suspend},
        "/admin/v1/accounts/{id}/resume": {"POST": accounts.resume},
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
        usage=lambda: _usage(parts),
        resends=lambda: {name: one.resends for name, one in parts.providers.items()},
        team=parts.team,
    )
    rooted["/metrics"] = _reading(metrics.metrics)
    routes = Routes(settings.server, mounted, rooted, model=pages.model, with_id=with_id)
    edge: Edge = Edge(routes, settings.server, counts, logs.tell)
    works: list[Work] = []
    if parts.team is not None:
        works.append(partial(parts.team.follow, metrics.page))
    return edge, works


def _usage(parts: Parts) -> UsageReading:
    backlog, journal = parts.ledger.backlog, parts.books.journal
    return UsageReading(
        records=backlog.lines,
        bytes=backlog.bytes,
        age=backlog.age,
        waiting=journal.waiting,
        lost=journal.lost,
        set_aside=parts.ledger.set_aside,
        refusals=dict(parts.books.refusals.by_code),
        redis=None if parts.shared is None else not parts.shared.away,
        leads=parts.leader.leads,
    )


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


def _not_yet(parts: Parts, path: str, what: str) -> Endpoint:
    async def refuse(exchange: Exchange) -> None:
        bill = await parts.flow.open(exchange, path)
        exchange.limited_to(bill.standing)
        raise Refusal(
            "not_supported",
            f"There is no way to {what} yet; POST /v1/chat/completions is served.",
        )

    return refuse
