"""Verification, put together: who carries it out, when, and over which way.

Runs are rows of the database, whoever asked for them: the calendar, an operator, a new model. The
process that leads carries them out, one after the other; where it dies, the next one goes on.
What models are asked is imported when the first of them is.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog
from sqlalchemy import Connection

from manyways.app.asking import ProviderAsker, Yielding
from manyways.app.upstreams import Upstreams, upstreams
from manyways.catalog.catalog import Catalog, Claim, Name
from manyways.catalog.remembering import remembered
from manyways.catalog.verified import Check, Verified
from manyways.config import Settings
from manyways.errors import Refusal, StoreError
from manyways.operations.catalog import ASKED, Scope
from manyways.schedule import Due
from manyways.store import verifications as store
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.types import Model, Provider
from manyways.verification.asking import Asker

if TYPE_CHECKING:
    from manyways.verification.pacing import Manners
    from manyways.verification.run import Progress

DUE: Final = "daily"
FIRST: Final = "first start"
NEW: Final = "new models"
RECHECK: Final = "failed before"
"""Why runs are made, beside those that somebody asked for."""
LOOK: Final = 1.0
"""Seconds between two looks for runs that others have asked for."""
SETTLE: Final = 60.0
"""Seconds that providers have to tell their models before a run begins."""
AWAY: Final = 5.0
"""Seconds between two tries while the database is away."""
AGAIN: Final = 1800.0
"""Seconds behind a run that failed, in which none begins that nobody has asked for."""
PATIENCE: Final = (60.0, 300.0, 1800.0, 7200.0, 28_800.0)
"""Seconds until models that did not answer are asked again, behind the first failure in a row,
the second, and so on: a provider is often away for a moment, and sometimes for good."""
SKEW: Final = 60.0
"""Seconds that something may lie in the future; beyond them, a clock was wrong."""
LIMIT: Final = 5.0
"""Seconds for the database."""

log = structlog.get_logger("manyways")


def _no_progress(_: Progress) -> None:
    """Nobody looks."""


class Verifier:
    """Carries out runs, and every `look` seconds looks for some. `progress` is called with how
    far one is."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        catalog: Catalog,
        asker: Asker,
        *,
        progress: Callable[[Progress], None] = _no_progress,
        clock: Callable[[], float] = time.time,
        look: float = LOOK,
    ) -> None:
        self._database = database
        self._settings = settings
        self._providers = {provider.name: provider for provider in settings.providers}
        self._catalog = catalog
        self._asker = asker
        self._progress = progress
        self._clock = clock
        self._look = look
        self._nudged = asyncio.Event()
        self._away: set[bool] = set()  # which looks have found no database
        self._under_way = 0
        self._manners: Manners | None = None  # of all runs that are under way

    def __repr__(self) -> str:
        return f"<Verifier of {self._catalog!r}>"

    def nudge(self) -> None:
        """There may be a run: look at once."""
        self._nudged.set()

    async def due(self, due: Due) -> None:
        """The run of a day is made, where it is not there yet. Raises `StoreError`."""
        await self._plan(DUE, due.day)

    async def newcomers(self) -> None:
        """A run for models that were never verified is made, where there are any. Raises
        `StoreError`."""
        if any(self._is_wanted(NEW, claim) for claim in self._unasked()):
            await self._plan(NEW)

    async def recheck(self) -> None:
        """The same for models that did not answer when they were last asked, a while ago."""
        if any(self._is_wanted(RECHECK, claim) for claim in self._unasked()):
            await self._plan(RECHECK)

    async def look(self, *, asked: bool) -> None:
        """Carry out the runs that somebody has `asked` for, or the others; returns after a while
        where there is none, or where the database is away. Whoever asks for one model does not
        wait until all have been verified: both go on at a time."""
        try:
            unfinished = await self._database.call(store.unfinished, limit=LIMIT)
            rows = [row for row in unfinished if (row.reason == ASKED) is asked]
            if not rows:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._look):
                        await self._nudged.wait()
            self._nudged.clear()
            for row in rows:
                await self.carry_out(row)
        except StoreError as error:
            if not self._away:  # it is looked for often, and told once
                log.warning("verification waits for the database", reason=str(error))
            self._away.add(asked)
            await asyncio.sleep(AWAY)
        else:
            self._away.discard(asked)

    async def carry_out(self, row: store.RunRow) -> None:
        """A run, from where it is to its end. Raises `StoreError`: then it is not over."""
        problem = None
        try:
            await self._carried_out(row)
        except StoreError:
            raise
        except Exception as error:  # a run that fails the same way each time would never end
            log.exception("verification failed", id=row.id)
            problem = f"{type(error).__name__}: {error}"
        await self._database.call(
            lambda connection: store.end_run(
                connection, row.id, problem=problem, now=int(self._clock())
            ),
            limit=LIMIT,
            write=True,
        )

    async def _carried_out(self, row: store.RunRow) -> None:
        from manyways.verification.keeping import Keeping
        from manyways.verification.run import Run, in_turn, manners_of

        scope = msgspec.json.decode(row.scope, type=Scope)
        names = [scope.provider] if scope.provider else list(self._providers)
        # Who is asked before their kinds and prices are known is asked the wrong things, and for
        # more than they may cost.
        await self._catalog.settled(names, SETTLE, all_told=True)
        so_far = await self._database.call(partial(_so_far, row.id), limit=LIMIT)
        done = so_far.cost
        self._catalog.learn(so_far.latest.values())
        models = [one for one in self._wanted(row, scope) if (one.provider, one.id) not in done]
        await self._database.call(
            lambda connection: store.begin_run(
                connection, row.id, models=len(models) + len(done), now=int(self._clock())
            ),
            limit=LIMIT,
            write=True,
        )
        log.info("verification begins", id=row.id, reason=row.reason, models=len(models))
        found: list[Verified] = []  # who follows the database tells of it meanwhile
        keep = Keeping(
            self._database,
            row.id,
            so_far.latest,
            resumed=row.began_at is not None,
            told=found.append,
        )
        if not self._under_way:
            self._manners = manners_of(self._settings.catalog, _pauses(self._settings.providers))
        run = Run(
            self._settings.catalog,
            self._asker,
            keep,
            seed=row.id,
            manners=self._manners,
            spent=so_far.spent,
            briefly=row.reason == RECHECK,
            clock=self._clock,
            progress=self._progress,
        )
        priced = {one.model.provider for one in self._claimed() if one.model.pricing}
        self._under_way += 1
        try:
            await run.run(
                in_turn(models, row.id),
                done=so_far.counts,
                priced=priced & {provider for provider, _ in done},
            )
        finally:
            self._under_way -= 1
        self._catalog.learn(found)
        at_last = run.progress
        log.info("verification ends", id=row.id, cost=round(at_last.cost, 4), **at_last.counts)

    async def _plan(self, reason: str, day: str | None = None) -> None:
        now = self._clock()

        def insert(connection: Connection) -> bool:
            if day is None and store.unfinished(connection):
                return False  # it will be looked for again
            latest = store.runs(connection, 1)
            if day is None and latest and _failed_lately(latest[0], now):
                return False
            return store.insert_run(
                connection,
                store.RunRow(
                    id=new_id(int(now * 1e9)),
                    due=day,
                    reason=reason if latest else FIRST,
                    scope=msgspec.json.encode(Scope()).decode(),
                    status=store.RUNNING,
                    created_at=int(now),
                ),
            )

        if await self._database.call(insert, limit=LIMIT, write=True):
            self.nudge()

    def _wanted(self, row: store.RunRow, scope: Scope) -> Iterable[Model]:
        """The models that a run is about, as they are claimed to be, with when they were verified
        last. Nobody who has asked for none is waiting for what another run has just found out."""
        asked = row.reason == ASKED
        rows = {(one.provider, one.id): one for one in self._catalog.snapshot.models}
        for claim in self._claimed() if asked else self._unasked():
            model = claim.model
            if (
                scope.provider in (None, model.provider)
                and scope.model in (None, model.id)
                and (asked or self._is_wanted(row.reason, claim, since=row.created_at))
            ):
                shown = rows.get(claim.name)
                if shown is None:
                    yield model
                    continue
                yield msgspec.structs.replace(
                    model, last_verified=shown.last_verified, asked_last=shown.asked_last
                )

    def _claimed(self) -> Iterable[Claim]:
        """All models that are listed."""
        for claims in self._catalog.claims.values():
            for claim in claims:
                if claim.gone_since is None:
                    yield claim

    def _unasked(self) -> Iterable[Claim]:
        """Those that may be asked although nobody has asked for it."""
        if not self._settings.catalog.probe:
            return ()
        return (one for one in self._claimed() if self._providers[one.model.provider].probe)

    def _is_wanted(self, reason: str, claim: Claim, *, since: float = math.inf) -> bool:
        """Whether a run for this reason, planned at a moment, is about this model."""
        found = self._catalog.verified.get(claim.name)
        if found is None:
            return reason != RECHECK
        now = self._clock()
        at = found.at if found.at <= now + SKEW else 0.0
        if reason == RECHECK:
            return found.verdict == "failed" and at < min(since, now - _patience(found.failures))
        if reason == NEW:  # it was to be asked, and could not be
            return found.postponed > 0 and at < min(since, now - _patience(found.postponed))
        return at < since


async def verify_here(
    settings: Settings,
    database: Database,
    *,
    provider: str | None,
    model: str | None,
    reason: str = ASKED,
    progress: Callable[[Progress], None] = _no_progress,
) -> str:
    """Carry out a run in this process; one of the same scope that broke off is gone on with.
    Returns its id. Until the database is closed, nobody else may serve it: no run is carried out
    twice. Raises `Refusal` for a provider or a model that is not there, `StoreError`, also where
    somebody serves the database."""
    from manyways.operations import catalog as operations

    database.lock_for_serving()
    async with _reached(settings, database) as (catalog, asker):
        _see_that_it_is_there(catalog, provider, model)
        run_id = operations.refresh(
            database, Scope(provider=provider, model=model), now=time.time()
        ).id
        row = database.run(lambda connection: store.run(connection, run_id))
        if row is not None:
            verifier = Verifier(database, settings, catalog, asker, progress=progress)
            await verifier.carry_out(row._replace(reason=reason))
        return run_id


async def probe(
    settings: Settings, name: str, *, checks: Collection[str] = (), quality: bool = False
) -> AsyncIterator[Check]:
    """Ask one model (`provider/model`, or an id: then the first provider that has it) here and
    now, and give each check as it is made: all, or `checks` by their names; with `quality`, the
    tasks of the quality set, too. Nothing is kept. Raises `Refusal`."""
    from manyways.verification import examination
    from manyways.verification.interview import Interview
    from manyways.verification.pacing import Pace, Places, Purse

    wanted = set(checks)
    _see_that_checks_exist(wanted)
    async with _reached(settings, None) as (catalog, asker):
        rows = catalog.snapshot.resolve_name(name)
        if not rows:
            _see_that_it_is_there(catalog, None, name)
        model = rows[0]
        made: asyncio.Queue[Check | None] = asyncio.Queue()
        interview = Interview(
            model,
            asker,
            pace=Pace(0.0),
            places=Places(1, 1),
            purse=Purse(settings.catalog.probe_budget),
            timeout=settings.catalog.probe_timeout,
            chance=Random(),  # noqa: S311 - what is asked is no secret
        )
        brief = examination.Brief(
            model=model, scores=quality, scores_nothing=not quality, only=frozenset(wanted) or None
        )

        async def examine() -> None:
            try:
                await examination.examine(brief, interview, made.put, seed=new_id(), now=time.time)
            finally:
                made.put_nowait(None)

        task = asyncio.create_task(examine())
        try:
            while (check := await made.get()) is not None:
                yield check
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])


@contextlib.asynccontextmanager
async def _reached(
    settings: Settings, database: Database | None
) -> AsyncIterator[tuple[Catalog, Asker]]:
    """The providers of the configuration, asked for their models once."""
    async with upstreams(settings) as reached:
        known = [] if database is None else database.run(remembered)
        catalog = Catalog(settings.catalog, settings.providers, reached.ask, remembered=known)
        discovery = asyncio.create_task(catalog.run())
        try:
            await catalog.settled((one.name for one in settings.providers), SETTLE, all_told=True)
            yield catalog, asker_of(settings, reached)
        finally:
            discovery.cancel()
            await asyncio.wait([discovery])


def asker_of(
    settings: Settings, reached: Upstreams, yielding: Yielding | None = None
) -> ProviderAsker:
    """The way to all models of a configuration."""
    return ProviderAsker(
        reached.providers,
        {one.name: one for one in settings.providers},
        reached.outside,
        yielding=yielding,
    )


def _failed_lately(row: store.RunRow, now: float) -> bool:
    """Whether another run would fail the same way."""
    return row.status == store.FAILED and now - (row.ended_at or 0) < AGAIN


class _SoFar(NamedTuple):
    """The latest word on each model; what those came to, in USD, that a run has done with, and
    how many they are by verdict."""

    latest: dict[Name, Verified]
    cost: dict[Name, float]
    counts: dict[str, int]

    @property
    def spent(self) -> dict[str, float]:
        """By provider."""
        found: dict[str, float] = {}
        for (provider, _), cost in self.cost.items():
            found[provider] = found.get(provider, 0.0) + cost
        return found


class _Cost(msgspec.Struct):
    """As much of a `Verified` as a budget is about."""

    cost: float = 0.0


def _so_far(run_id: str, connection: Connection) -> _SoFar:
    done = {
        (row.provider, row.model): msgspec.json.decode(row.document, type=_Cost).cost
        for row in store.verifications(connection, run_id)
    }
    return _SoFar(_latest(connection), done, store.counts(connection, run_id))


def _patience(times: int) -> float:
    return PATIENCE[min(max(times, 1), len(PATIENCE)) - 1]


def _latest(connection: Connection) -> dict[Name, Verified]:
    found = {}
    for provider, model, document, _ in store.verified(connection):
        with contextlib.suppress(msgspec.MsgspecError):
            found[provider, model] = msgspec.json.decode(document, type=Verified)
    return found


def _pauses(providers: Iterable[Provider]) -> Mapping[str, float]:
    return {one.name: one.probe_pause for one in providers if one.probe_pause is not None}


def _see_that_it_is_there(catalog: Catalog, provider: str | None, model: str | None) -> None:
    from manyways.catalog.selection import named, unknown_provider

    if provider is not None and provider not in catalog.snapshot.provider_names:
        raise unknown_provider(catalog.snapshot, provider, param="provider")
    if model is None:
        return
    try:
        named(catalog.snapshot, model, provider)
    except Refusal as refusal:
        if untold := catalog.snapshot.untold:
            refusal.message += (
                f" {', '.join(untold)} could not be asked for models, and may have it:"
                " `manyways doctor` says why."
            )
            refusal.args = (refusal.message,)
        raise


def _see_that_checks_exist(wanted: Collection[str]) -> None:
    from manyways.verification import examination, quality

    known = {*examination.NAMES, *(f"task:{task.id}" for task in quality.TASKS)}
    for name in wanted:
        if name not in known:
            raise Refusal(
                "invalid_request",
                f"There is no check {name}; there are {', '.join(examination.NAMES)}.",
                param="check",
            )
