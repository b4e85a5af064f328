"""Everything behind the socket, put together: made in this order, and taken apart in the other.

providers ─▶ catalog, keys, health ─▶ limits, journal ─▶ flow ─▶ pages and routes
"""

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from manyways import tokens
from manyways.access.idempotency import Claims
from manyways.access.keys import KeyRing
from manyways.access.last_use import LastUse
from manyways.access.limits import Limits, LocalLimits
from manyways.access.past import Records
from manyways.app.background import background
from manyways.app.pages import Parts, edge_of
from manyways.app.upkeep import Upkeep
from manyways.app.upstreams import upstreams
from manyways.app.verifying import Verifier, asker_of
from manyways.app.yielding import yielding_to
from manyways.attempts import Means
from manyways.attempts.bill import Books
from manyways.attempts.tally import Tally
from manyways.catalog.catalog import Catalog
from manyways.catalog.remembering import remembered
from manyways.config import Settings
from manyways.edge.http import Edge
from manyways.edge.team import Team
from manyways.flow import Flow
from manyways.operations import retention
from manyways.operations.desk import Desk
from manyways.routing.breaker import Name
from manyways.routing.health import Health
from manyways.schedule import Leader, Schedule
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.shared import Shared
from manyways.usage.journal import Journal
from manyways.usage.ledger import Ledger

CATCH_UP = 10.0
"""Seconds in which what an earlier process left in its journal is moved, before anybody is
served: limits are counted from the records. Where it takes longer, whoever is limited by what was
used before has to wait for it, and gets 503."""
HAND_OVER = 5.0
"""Seconds at a stop for the last records. What is left is moved at the next start."""
_HOUR = 3600.0
_CALLERS = 10
"""Questions of callers about their own usage that may wait or be worked on, one at a time."""
_OF_A_KEY = 2
"""So many of them may be of one key: one that waits for the one that is worked on."""
_AT_ONCE = 200
"""Answers that are deleted in one go."""

log = structlog.get_logger("manyways")


class Worker(NamedTuple):
    """One of several processes at one address: its number, from 1, and how many they are."""

    number: int
    of: int


@contextlib.asynccontextmanager
async def gateway(
    settings: Settings, database: Database, worker: Worker | None = None
) -> AsyncIterator[Edge]:
    """A running gateway, but for its socket."""
    async with contextlib.AsyncExitStack() as stack:
        reached = await stack.enter_async_context(upstreams(settings))
        providers = reached.providers
        node = new_id()
        ring = KeyRing(database, settings.keys, accounts=settings.accounts)
        health = Health(
            settings.routing,
            {name: provider.credentials for name, provider in providers.items()},
            chance=random.random,
            tell=_tell_of_health,
        )
        known = await database.call(remembered, limit=CATCH_UP)
        catalog = Catalog(settings.catalog, settings.providers, reached.ask, remembered=known)
        upkeep = Upkeep(catalog, database, health, settings, node)
        journal = Journal(journal_folder(settings, database), settings.usage)
        journal.open()
        stack.callback(journal.close)
        ledger = Ledger(journal, database, retention=settings.usage.retention)
        shared: Shared | None = None
        if settings.cluster.redis:
            shared = await Shared.open(settings.cluster.redis)
            stack.push_async_callback(shared.aclose)
        workers = 1 if worker is None else worker.of
        limits, works = _limits(database, ledger, health, shared, node=node, workers=workers)
        works += [
            catalog.run,
            upkeep.follow,
            upkeep.watch,
            upkeep.count,
            ring.follow,
            ledger.run,
        ]
        tally = Tally()
        books = Books(journal, limits, settings.limits.output_tokens, tally, upkeep.saw)
        leader = Leader(shared, node)
        schedule = Schedule(leader)
        claims = Claims(database)
        last_use = LastUse(database)
        schedule.every(_HOUR, "retention", partial(_retain, database, settings))
        verifier = Verifier(
            database, settings, catalog, asker_of(settings, reached, yielding_to(health, settings))
        )
        upkeep.plan(schedule, verifier)
        schedule.every(_HOUR, "answers kept for repeats", partial(_expire, database))
        works += [
            partial(books.refusals.follow, journal.write),
            leader.run,
            schedule.run,
            claims.follow,
            last_use.follow,
        ]
        flow = Flow(
            ring=ring,
            catalog=catalog,
            health=health,
            means=Means(
                providers, settings.routing, settings.server.send_timeout, tally, books.drains
            ),
            books=books,
            defaults={
                name: value
                for name in settings.defaults.__struct_fields__
                if (value := getattr(settings.defaults, name)) is not None
            },
        )
        desk = stack.enter_context(closing(Desk(database)))
        callers_desk = stack.enter_context(
            closing(Desk(database, at_once=1, waiting=_CALLERS, each=_OF_A_KEY))
        )
        parts = Parts(
            settings=settings,
            database=database,
            flow=flow,
            catalog=catalog,
            ring=ring,
            health=health,
            providers=providers,
            books=books,
            tally=tally,
            ledger=ledger,
            claims=claims,
            last_use=last_use,
            desk=desk,
            callers_desk=callers_desk,
            shared=shared,
            leader=leader,
            upkeep=upkeep,
            verifier=verifier,
            team=None if worker is None else Team(journal.folder, worker.number, str(os.getppid())),
        )
        if any(
            kind.tokens or kind.quota for kind in (*settings.keys.types.values(), settings.accounts)
        ):
            tokens.count(".")  # loads what counting needs, before anybody waits for it
        await ledger.drain(CATCH_UP)
        # So that keys that are looked up from now on stay in memory, though the database may go.
        await ring.poll()
        await upkeep.begin()
        edge, page_works = edge_of(parts)
        async with background(*works, *page_works):
            try:
                yield edge
            finally:
                await books.drains.aclose()
                books.refusals.flush(journal.write)
                await asyncio.gather(ledger.drain(HAND_OVER), upkeep.close(), last_use.flush())


def _limits(
    database: Database,
    ledger: Ledger,
    health: Health,
    shared: Shared | None,
    *,
    node: str,
    workers: int,
) -> tuple[Limits, list[Callable[[], Awaitable[None]]]]:
    """What counts, here or together with others, and the work that goes with it."""
    if shared is None:
        past = Records(database, left_over=lambda: ledger.left_over).past
        return LocalLimits(past, evictable=lambda: ledger.caught_up), []
    past = Records(database).past
    from manyways.access.shared_limits import SharedLimits
    from manyways.attempts.shared_health import SharedHealth

    counted = SharedLimits(shared, past, node=node, at_least=workers)
    return counted, [counted.run, SharedHealth(shared, health, node).run]


def journal_folder(settings: Settings, database: Database) -> Path:
    """Where records are written first."""
    if settings.usage.journal:
        return Path(settings.usage.journal)
    if database.shared:
        return Path("manyways-journal")
    return database.path.with_name(f"{database.path.stem}-journal")


async def _retain(database: Database, settings: Settings) -> None:
    """Records that are kept no longer. The work takes its time in a thread of its own, which
    nobody waits for at a stop: the database may hang."""
    stop = threading.Event()
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()

    def work() -> None:
        try:
            retention.run(database, settings.usage, time.time(), going_on=lambda: not stop.is_set())
        except BaseException as error:  # noqa: BLE001 - not swallowed: it is raised below
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="retention", daemon=True).start()
    try:
        await asyncio.wrap_future(done)
    finally:
        stop.set()


async def _expire(database: Database) -> None:
    """Answers that nobody may ask for again."""
    from manyways.store import idempotency

    now = time.time()
    more = 1
    while more:
        more = await database.call(
            lambda connection: idempotency.expire(connection, now, _AT_ONCE), limit=10.0, write=True
        )


def _tell_of_health(name: Name, why: str, seconds: float | None) -> None:
    provider, model, credential = name
    key = None if credential is None else credential + 1
    facts = {"provider": provider, "model": model, "key": key, "why": why}
    if seconds is None:
        log.info("back in use", **facts)
    else:
        log.warning("resting", **facts, seconds=round(seconds, 1))
