"""What a run finds out, kept in the database: at once, and many a transaction.

Whoever comes while others are being written waits for the next transaction, which takes all that
came meanwhile. So a check is kept before the next one is made, and a thousand models under way
cost the database little.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from manyways.catalog import history, known
from manyways.catalog.verified import Check, Verified
from manyways.errors import StoreError
from manyways.store import catalog as catalog_store
from manyways.store import incidents
from manyways.store import verifications as store
from manyways.store.database import Database
from manyways.types import Model
from manyways.verification import quality
from manyways.verification.impostor import impostor

LIMIT: Final = 5.0
"""Seconds for a transaction."""
PAUSES: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds between tries while the database is away."""

Name = tuple[str, str]
T = TypeVar("T")


class _Result(Struct):
    """A model that is done: the row of this run, and the latest word on it, if that is new."""

    row: store.VerificationRow
    latest: Verified | None
    before: Verified | None
    cost: float


class _Batch:
    """What is written in one transaction. One that was tried may have been written, although
    nobody heard of it."""

    def __init__(self) -> None:
        self.checks: list[store.CheckRow] = []
        self.results: list[_Result] = []
        self.was_tried = False
        self.is_over = False
        self.error: StoreError | None = None


class Keeping:
    """See `run.Keep`. `latest` is the latest word on each model, as this run found it; `resumed`
    says whether the run has kept something already. `told` is called with each latest word."""

    def __init__(
        self,
        database: Database,
        run_id: str,
        latest: Mapping[Name, Verified],
        *,
        resumed: bool,
        told: Callable[[Verified], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._run_id = run_id
        self._latest = dict(latest)
        self._resumed = resumed
        self._told = told
        self._sleep = sleep
        self._batch = _Batch()
        self._turn = asyncio.Lock()
        self._claims: dict[Name, Model] = {}

    async def made(self, model: Model) -> Mapping[str, Check]:
        """See `run.Keep`."""
        self._claims[model.provider, model.id] = model
        if not self._resumed:
            return {}
        rows = await self._patiently(
            lambda connection: store.checks(connection, self._run_id, model.provider, model.id),
            write=False,
        )
        return {row.name: msgspec.json.decode(row.document, type=Check) for row in rows}

    async def before(self, model: Model) -> Verified | None:
        """See `run.Keep`."""
        return self._latest.get((model.provider, model.id))

    async def check(self, model: Model, check: Check) -> None:
        """See `run.Keep`."""
        document = msgspec.json.encode(check).decode()
        row = store.CheckRow(model.provider, model.id, check.name, document)
        batch = self._batch
        batch.checks.append(row)
        await self._written(batch)

    async def verified(self, found: Verified) -> None:
        """See `run.Keep`."""
        name = (found.provider, found.model)
        before = self._latest.get(name)
        found = self._looked_at(found)
        says_something = _tells(found) or before is None or not _tells(before)
        row = store.VerificationRow(
            run_id=self._run_id,
            provider=found.provider,
            model=found.model,
            at=int(found.at),
            verdict=found.verdict,
            latency_ms=found.latency_ms,
            quality=None if found.quality is None else found.quality.score,
            document=msgspec.json.encode(found).decode(),
        )
        batch = self._batch
        batch.results.append(_Result(row, found if says_something else None, before, found.cost))
        await self._written(batch)
        self._claims.pop(name, None)
        if says_something:
            self._latest[name] = found
            self._told(found)

    def _looked_at(self, found: Verified) -> Verified:
        """The same with the suspicion that somebody else answers, if there is any."""
        if found.verdict != "passed":
            return found
        model = self._claims[found.provider, found.model]
        others = [
            one
            for (provider, model_id), one in self._latest.items()
            if model_id == found.model and provider != found.provider
        ]
        real = known.find(model.upstream_id) or known.find(model.id)
        why = impostor(
            model,
            found,
            others,
            None if real is None else real.quality_floor,
            tokenizer=None if real is None else real.tokenizer,
        )
        flags = {name: reason for name, reason in found.flags.items() if name != "impostor"}
        if why is not None:
            flags["impostor"] = why
        return msgspec.structs.replace(found, flags=flags)

    async def _written(self, batch: _Batch) -> None:
        async with self._turn:
            if not batch.is_over:
                if batch is self._batch:
                    self._batch = _Batch()
                try:
                    await self._patiently(partial(_write, self._run_id, batch), write=True)
                except StoreError as error:
                    batch.error = error
                batch.is_over = True  # who is cancelled meanwhile leaves it to the next one
        if batch.error is not None:
            raise batch.error

    async def _patiently(self, work: Callable[[Connection], T], *, write: bool) -> T:
        for pause in PAUSES:
            try:
                return await self._database.call(work, limit=LIMIT, write=write)
            except StoreError:
                await self._sleep(pause)
        return await self._database.call(work, limit=LIMIT, write=write)


def _write(run_id: str, batch: _Batch, connection: Connection) -> None:
    store.save_checks(connection, run_id, batch.checks)
    results = batch.results
    if batch.was_tried and results:
        known = store.verified_in(connection, run_id)
        results = [one for one in results if (one.row.provider, one.row.model) not in known]
    batch.was_tried = True
    if not results:
        return
    rows = [result.row for result in results]
    silent = {(one.row.provider, one.row.model) for one in results if one.latest is None}
    cost = sum(result.cost for result in results)
    store.save_verifications(connection, rows, cost=cost, silent=silent)
    changes: list[history.Change] = []
    failed: list[Verified] = []
    well: list[Verified] = []
    for result in results:
        if (found := result.latest) is not None:
            changes += history.verification_changes(result.before, found, differ=quality.differ)
            if _tells(found):
                (well if found.verdict == "passed" else failed).append(found)
    at = max(row.at for row in rows)
    if changes:
        rows_of = (catalog_store.Noted(*history.stored(one)) for one in changes)
        catalog_store.note(connection, rows_of, at)
    incidents.end(connection, "verification", [(one.provider, one.model) for one in well], at)
    incidents.record(connection, [_incident(one) for one in failed])


def _tells(found: Verified) -> bool:
    """Whether the model was asked, and it is known what came of it."""
    return found.verdict in ("passed", "failed")


def _incident(found: Verified) -> incidents.Sighting:
    return incidents.Sighting(
        provider=found.provider,
        model=found.model,
        source="verification",
        began=int(found.at),
        seen=int(found.at),
        why=found.reason,
    )
