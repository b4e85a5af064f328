"""The catalog, kept true while the gateway runs.

every process     discovery ─┐
                  verified  ─┼─▶ Catalog ─▶ snapshot
                  figures   ─┤
                  rests     ─┘
who leads         remembers what is claimed, has models verified, forgets what is old
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import structlog
from sqlalchemy import Connection

from manyways.app.verifying import Verifier
from manyways.catalog import figures as traffic_figures
from manyways.catalog.catalog import Catalog, Claim, Name
from manyways.catalog.figures import SLICE, Gathered, Traffic
from manyways.catalog.incidents import STALE, Incidents, by_model, uptime
from manyways.catalog.remembering import remember
from manyways.catalog.settings import Settings
from manyways.catalog.verified import Live, Verified
from manyways.errors import StoreError
from manyways.routing.breaker import News
from manyways.routing.health import Health
from manyways.routing.standing import Resting, resting
from manyways.schedule import Schedule
from manyways.store import catalog as catalog_store
from manyways.store import figures, incidents, verifications
from manyways.store.database import Database
from manyways.usage.record import AttemptRecord

LOOK: Final = 1.0
"""Seconds between two looks at what verification has found out elsewhere."""
RESTS: Final = 3.0
"""Seconds between two looks at who rests: the catalog changes no more often for it."""
FIGURES: Final = 20.0
"""Seconds between two looks at what callers' requests have told."""
REMEMBER: Final = 5.0
NEWCOMERS: Final = 60.0
"""Seconds between two looks for models that were never verified."""
RECHECK: Final = 1800.0
"""Seconds between two tries of models that did not answer."""
HOUR: Final = 3600.0
DAY: Final = 86_400.0
KEPT: Final = 90 * DAY
"""Seconds that verifications, incidents and changes are kept; `CHECKS` for single checks."""
CHECKS: Final = 8 * DAY
LIMIT: Final = 15.0
"""Seconds for the database."""

log = structlog.get_logger("manyways")

NO_FAULT: Final = frozenset({"cancelled", "refused"})
"""Outcomes that say nothing about a model."""


class Upkeep:
    """Brings to `catalog` what becomes known. `node` is this process's name."""

    def __init__(
        self,
        catalog: Catalog,
        database: Database,
        health: Health,
        settings: Settings,
        node: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._database = database
        self._health = health
        self._settings = settings
        self._node = node
        self._clock = clock
        # Providers whose claims are to be remembered: those of the configuration at first.
        self._changed = {name for name, claims in catalog.claims.items() if claims}
        self._traffic = Traffic()
        self._gathered = Gathered()
        self._incidents = Incidents(clock=clock)
        self._lives: dict[Name, Live] = {}
        self._resting = Resting()
        self._counter = -1
        self._read_to = 0
        self._settled = 0
        self._began = clock()
        health.share(self._heard)
        catalog.on_change(self._changed.add)

    def __repr__(self) -> str:
        return f"<Upkeep of {self._catalog!r}>"

    # What becomes known

    def saw(self, attempt: AttemptRecord, ended: float) -> None:
        """An attempt of a caller's request has ended, at a moment."""
        outcome = attempt.outcome
        self._traffic.saw(
            attempt.provider,
            attempt.model,
            ok=None if outcome in NO_FAULT else outcome == "answered",
            ms=attempt.latency_ms,
            first_token_ms=attempt.first_token_ms,
            completion_tokens=attempt.usage.completion_tokens,
            ended=ended,
        )

    def live(self, provider: str, model: str) -> Live | None:
        """How a model does with callers."""
        return self._lives.get((provider, model))

    def _heard(self, news: News) -> None:
        if not news.probing:
            self._incidents.tell(news.name, news.why, news.seconds)

    # In every process

    async def follow(self) -> None:
        """Take over what verification finds out, whoever does it; until cancelled."""
        while True:
            try:
                await self._learn()
            except StoreError as error:
                log.debug("verifications cannot be read now", reason=str(error))
            await asyncio.sleep(LOOK)

    async def watch(self) -> None:
        """Take over who rests; until cancelled."""
        while True:
            found = resting(self._health, time.monotonic())
            if found != self._resting:
                self._resting = found
                self._catalog.see(self._lives, found)
            await asyncio.sleep(RESTS)

    async def count(self) -> None:
        """Tell the database how models did here, and take over how they did everywhere; until
        cancelled."""
        while True:
            try:
                await self._exchange_figures(self._clock())
            except StoreError as error:
                log.debug("live figures cannot be exchanged now", reason=str(error))
            await asyncio.sleep(FIGURES)

    async def close(self) -> None:
        """Keep what was seen until now."""
        try:
            await self._tell_figures(self._clock() + SLICE)
        except StoreError as error:
            log.warning("the latest live figures are lost", reason=str(error))

    async def _learn(self) -> None:
        seen = self._counter
        counter, rows = await self._database.call(partial(_verified, seen), limit=LIMIT)
        if counter == seen:
            return
        found = []
        for _, _, document, change in rows:
            counter = max(counter, change)
            try:
                found.append(msgspec.json.decode(document, type=Verified))
            except msgspec.MsgspecError:
                continue  # a newer program wrote it
        self._catalog.learn(found)
        self._counter = counter

    async def _exchange_figures(self, now: float) -> None:
        await self._tell_figures(now)
        sightings = self._incidents.news()
        since = max(self._read_to - SLICE, int(now) - 2 * int(HOUR))
        rows, spans = await self._database.call(
            partial(_figures, sightings, since, now), limit=LIMIT, write=bool(sightings)
        )
        self._gathered.take(rows)
        self._read_to = max((row.at for row in rows), default=self._read_to)
        settled = traffic_figures.settled(now)
        if settled == self._settled:
            return  # between two slices, everybody tells the same
        self._settled = settled
        by_name = by_model(spans)
        lives: dict[Name, Live] = {}
        for row in self._catalog.snapshot.models:
            name = (row.provider, row.id)
            live = self._gathered.live(*name, settled)
            known_since = float(min(row.created, self._began))
            up = uptime(
                [*by_name.get(name, ()), *by_name.get((row.provider, ""), ())],
                provider=row.provider,
                model=row.id,
                known_since=known_since,
                now=settled,
            )
            known = live is not None or name in self._catalog.verified
            if known:
                lives[name] = msgspec.structs.replace(live or Live(), uptime_24h=up)
            if len(lives) % 200 == 0:
                await asyncio.sleep(0)  # others are served meanwhile
        self._lives = lives
        self._catalog.see(lives, self._resting)

    async def _tell_figures(self, now: float) -> None:
        while rows := self._traffic.finished(now):
            await self._database.call(
                partial(_put_figures, self._node, rows), limit=LIMIT, write=True
            )

    # Where this process leads

    def plan(self, schedule: Schedule, verifier: Verifier) -> None:
        """What the one that leads does, and when."""
        settings = self._settings
        schedule.every(REMEMBER, "the catalog is remembered", self._remember)
        schedule.every(HOUR, "old verifications", self._prune)
        schedule.every(0.0, "verification", verifier.look)
        if settings.probe:
            zone = ZoneInfo(settings.timezone)
            schedule.daily(settings.refresh, zone, "daily verification", verifier.due)
            schedule.every(NEWCOMERS, "new models", verifier.newcomers)
            schedule.every(RECHECK, "models that failed", verifier.recheck)

    async def _remember(self) -> None:
        now = self._clock()
        while self._changed:
            provider = self._changed.pop()
            claims = self._catalog.claims.get(provider, ())
            try:
                await self._database.call(
                    partial(_remember, provider, claims, now), limit=LIMIT, write=True
                )
            except StoreError:
                self._changed.add(provider)
                raise

    async def _prune(self) -> None:
        await self._database.call(partial(_prune, self._clock()), limit=LIMIT, write=True)


def _verified(seen: int, connection: Connection) -> tuple[int, list[tuple[str, str, str, int]]]:
    counter = verifications.counted(connection)
    if counter == seen:
        return counter, []
    # Where a backup was restored, the count is behind what was seen.
    return counter, verifications.verified(connection, seen if seen < counter else -1)


def _figures(
    sightings: list[incidents.Sighting], since: int, now: float, connection: Connection
) -> tuple[list[figures.Row], list[incidents.Span]]:
    incidents.record(connection, sightings)
    return list(figures.told(connection, since)), incidents.downtime(connection, now - DAY)


def _put_figures(node: str, rows: list[tuple[str, str, int, str]], connection: Connection) -> None:
    figures.put(connection, node, rows)


def _remember(provider: str, claims: tuple[Claim, ...], now: float, connection: Connection) -> None:
    remember(connection, provider, claims, now)


def _prune(now: float, connection: Connection) -> None:
    verifications.prune(connection, runs_before=int(now - KEPT), checks_before=int(now - CHECKS))
    incidents.end_stale(connection, now - STALE)
    incidents.prune(connection, now - KEPT)
    catalog_store.prune(connection, now - 4 * KEPT)
    figures.prune(connection, int(now - HOUR - 2 * SLICE))
