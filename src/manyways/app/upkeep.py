"""The catalog, kept true while the gateway runs.

every process     discovery ─┐
                  verified  ─┼─▶ Catalog ─▶ snapshot
                  figures   ─┤
                  rests     ─┘
who leads         remembers what is claimed, has models verified, forgets what is old
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import structlog
from sqlalchemy import Connection

from manyways.app.verifying import Verifier
from manyways.catalog import figures as traffic_figures
from manyways.catalog.catalog import Catalog, Name
from manyways.catalog.figures import SLICE, Gathered, Traffic
from manyways.catalog.incidents import MOST, STALE, Incidents, by_model, uptime
from manyways.catalog.remembering import Told, forget, remember, remembered
from manyways.catalog.verified import Live, Verified
from manyways.config import Settings
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
REMEMBER: Final = 5
"""Seconds between two looks for what is to be remembered, and for what others have."""
TAKEOVER: Final = 60.0
"""Seconds without leading in which another may have led."""
NEWCOMERS: Final = 60.0
"""Seconds between two looks for models that were never verified."""
RECHECK: Final = 60.0
"""Seconds between two tries of models that did not answer."""
HOUR: Final = 3600.0
DAY: Final = 86_400.0
KEPT: Final = 90 * DAY
"""Seconds that verifications, incidents and changes are kept; `CHECKS` for single checks."""
CHECKS: Final = 8 * DAY
LIMIT: Final = 5.0
"""Seconds for the database."""
HAND_OVER: Final = 3.0
"""The same at a start and at a stop, which wait for it."""

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
        self._settings = settings.catalog
        self._providers = {provider.name: provider for provider in settings.providers}
        self._node = node
        self._clock = clock
        # Providers whose claims are to be remembered, the next one first, and those that have
        # told their own. What others had came out of memory.
        self._changed = {
            provider.name: None for provider in settings.providers if provider.models is not None
        }
        self._told: set[str] = set()
        self._agreed: set[Name] = set()
        self._began = int(clock())
        self._led_at = -math.inf
        self._traffic = Traffic()
        self._gathered = Gathered()
        self._incidents = Incidents(clock=clock)
        self._lives: dict[Name, Live] = {}
        self._resting = Resting()
        self._counter = -1
        self._settled = 0
        # What the database has not taken yet.
        self._rows: list[tuple[str, str, int, str]] = []
        self._sightings: list[incidents.Sighting] = []
        health.share(self._heard)
        catalog.on_change(self._has_told)

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

    def _has_told(self, provider: str) -> None:
        self._told.add(provider)
        self._changed[provider] = None

    # In every process

    async def begin(self) -> None:
        """Take over what is known already, before anybody is served: the catalog tells the same
        after a restart as before it."""
        try:
            await self._learn(limit=HAND_OVER)
            await self._exchange_figures(self._clock(), limit=HAND_OVER)
        except StoreError as error:
            log.warning("what was known of models is read later", reason=str(error))

    async def follow(self) -> None:
        """Take over what verification finds out, whoever does it; until cancelled."""
        for look in itertools.count():
            try:
                await self._learn()
                if look % REMEMBER == 0:
                    await self._agree()
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
            await self._tell(self._clock() + SLICE, limit=HAND_OVER)
        except StoreError as error:
            log.warning("the latest live figures are lost", reason=str(error))

    async def _learn(self, *, limit: float = LIMIT) -> None:
        seen = self._counter
        counter, rows = await self._database.call(partial(_verified, seen), limit=limit)
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

    async def _exchange_figures(self, now: float, *, limit: float = LIMIT) -> None:
        await self._tell(now, limit=limit)
        settled = traffic_figures.settled(now)
        if settled == self._settled:
            return  # between two slices, everybody tells the same
        rows, spans, first_seen = await self._database.call(
            partial(_figures, settled - int(HOUR) - SLICE, now), limit=limit
        )
        self._gathered.take(rows)
        by_name = by_model(span for span in spans if span.began < settled)
        lives: dict[Name, Live] = {}
        for count, row in enumerate(self._catalog.snapshot.models):
            name = (row.provider, row.id)
            live = self._gathered.live(*name, settled)
            if live is not None or name in self._lives or self._was_verified(name, settled):
                since = first_seen.get(name, settled)
                spans_of = [*by_name.get(name, ()), *by_name.get((row.provider, ""), ())]
                up = None
                if since < settled:
                    up = uptime(
                        spans_of,
                        provider=row.provider,
                        model=row.id,
                        known_since=float(since),
                        now=settled,
                    )
                lives[name] = msgspec.structs.replace(live or Live(), uptime_24h=up)
            if count % 200 == 0:
                await asyncio.sleep(0)  # others are served meanwhile
        self._settled = settled
        self._lives = lives
        self._catalog.see(lives, self._resting)
        await self._end_lifted(settled)

    async def _end_lifted(self, now: int) -> None:
        """What callers have had answers of since its verification failed is no incident now."""
        rows = {(one.provider, one.id): one for one in self._catalog.snapshot.models}
        lifted = [
            name
            for name, found in self._catalog.verified.items()
            if found.verdict == "failed" and name in rows and not rows[name].asked_last
        ]
        if lifted:
            await self._database.call(
                lambda connection: incidents.end(connection, "verification", lifted, now),
                limit=LIMIT,
                write=True,
            )

    def _was_verified(self, name: Name, before: float) -> bool:
        """At a moment that all processes see alike."""
        found = self._catalog.verified.get(name)
        return found is not None and (found.at < before or found.failures > 1)

    async def _agree(self) -> None:
        """On when models were seen first: what is remembered counts."""
        new = {
            claim.name
            for claims in self._catalog.claims.values()
            for claim in claims
            if claim.model.created >= self._began and claim.name not in self._agreed
        }
        if not new:
            return
        known = await self._database.call(remembered, limit=LIMIT)
        created = {one.name: one.model.created for one in known if one.name in new}
        self._agreed.update(created)
        self._catalog.agree(created)

    async def _tell(self, now: float, *, limit: float) -> None:
        """What was seen here. What the database does not take is kept for the next time."""
        while rows := self._rows or self._traffic.finished(now):
            self._rows = rows
            await self._database.call(
                partial(_put_figures, self._node, rows), limit=limit, write=True
            )
            self._rows = []
        self._sightings = [*self._sightings, *self._incidents.news()][-MOST:]
        if sightings := self._sightings:
            await self._database.call(partial(_put_sightings, sightings), limit=limit, write=True)
            self._sightings = []

    # Where this process leads

    def plan(self, schedule: Schedule, verifier: Verifier) -> None:
        """What the one that leads does, and when."""
        settings = self._settings
        schedule.every(REMEMBER, "the catalog is remembered", self._remember)
        schedule.every(HOUR, "old verifications", self._prune)
        schedule.every(0.0, "verification", partial(verifier.look, asked=False))
        schedule.every(0.0, "asked for", partial(verifier.look, asked=True))
        if settings.probe:
            zone = ZoneInfo(settings.timezone)
            schedule.daily(settings.refresh, zone, "daily verification", verifier.due)
            schedule.every(NEWCOMERS, "new models", verifier.newcomers)
            schedule.every(RECHECK, "models that failed", verifier.recheck)

    async def _remember(self) -> None:
        if self._clock() - self._led_at > TAKEOVER:
            # Another may have remembered what it heard later than this process.
            stale = [name for name in self._changed if name in self._told]
            await asyncio.gather(*map(self._catalog.refresh, stale))
        self._led_at = self._clock()
        for name in tuple(self._changed):
            asked = self._catalog.has_told(name)
            if asked is None:
                continue  # in a moment more is known of them than the configuration says
            del self._changed[name]
            told = Told(provider=name, claims=self._catalog.claims[name], asked=asked)
            try:
                await self._database.call(
                    partial(_remember, told, self._clock()), limit=LIMIT, write=True
                )
            except BaseException:  # also cancelled: the next time, behind the others
                self._changed[name] = None
                raise

    async def _prune(self) -> None:
        claimed = {claim.name for claims in self._catalog.claims.values() for claim in claims}
        work = partial(
            _prune, claimed, self._providers.keys(), self._settings.forget_after, self._clock()
        )
        await self._database.call(work, limit=LIMIT, write=True)


def _verified(seen: int, connection: Connection) -> tuple[int, list[tuple[str, str, str, int]]]:
    counter = verifications.counted(connection)
    if counter == seen:
        return counter, []
    # Where a backup was restored, the count is behind what was seen.
    return counter, verifications.verified(connection, seen if seen < counter else -1)


def _figures(
    since: int, now: float, connection: Connection
) -> tuple[list[figures.Row], list[incidents.Span], dict[Name, int]]:
    rows = list(figures.told(connection, since))
    spans = incidents.downtime(connection, now - DAY)
    return rows, spans, catalog_store.first_seen(connection)


def _put_figures(node: str, rows: list[tuple[str, str, int, str]], connection: Connection) -> None:
    figures.put(connection, node, rows)


def _put_sightings(sightings: list[incidents.Sighting], connection: Connection) -> None:
    incidents.record(connection, sightings)


def _remember(told: Told, now: float, connection: Connection) -> None:
    remember(connection, told, now)


def _prune(
    claimed: Collection[Name],
    providers: Collection[str],
    keep: float,
    now: float,
    connection: Connection,
) -> None:
    forget(connection, claimed, providers, now, keep=keep)
    verifications.prune(connection, runs_before=int(now - KEPT), checks_before=int(now - CHECKS))
    incidents.end_stale(connection, now - STALE)
    incidents.prune(connection, now - KEPT)
    catalog_store.prune(connection, now - 4 * KEPT)
    figures.prune(connection, int(now - HOUR - 2 * SLICE))
