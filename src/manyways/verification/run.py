"""Many models, examined: bounded, paced, for no more than a run may cost.

At each provider a few models are examined at a time; what is not under way yet is only a name in
a queue. Every check is kept before the next one is made, so a run that breaks off goes on where
it was.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Final, Protocol

import structlog
from msgspec import Struct

from manyways.catalog.settings import Settings
from manyways.catalog.verified import Check, Verified
from manyways.types import Model
from manyways.verification.asking import Asker
from manyways.verification.examination import Brief, examine
from manyways.verification.interview import Interview
from manyways.verification.pacing import Manners, Purse

log = structlog.get_logger("manyways")

EACH: Final = 4
"""Models that are examined at one provider at a time, each with a request under way at most."""


SHARE: Final = 0.5
"""The part of the budget that one provider gets at most, where several have prices."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a run is. `current` are the models at work, `counts` those that are done, by
    verdict."""

    models: int
    counts: Mapping[str, int]
    current: tuple[str, ...]
    cost: float
    requests: int

    @property
    def done(self) -> int:
        """Models that are done."""
        return sum(self.counts.values())


class Keep(Protocol):
    """Where what was found out is kept. Everything returns once it is kept for good, and raises
    `StoreError` where that cannot be."""

    async def made(self, model: Model) -> Mapping[str, Check]:
        """The checks that this run has made of a model already."""
        ...

    async def before(self, model: Model) -> Verified | None:
        """What the verification before this run found."""
        ...

    async def check(self, model: Model, check: Check) -> None: ...

    async def verified(self, found: Verified) -> None: ...


class Run:
    """One verification. `seed` is its id; `manners` are shared with whatever else asks meanwhile;
    `spent` is what it has cost so far, in USD by provider, the models at work left out; `briefly`
    asks only whether models answer.

    `run` may be cancelled at any moment: what was kept stays.
    """

    def __init__(
        self,
        settings: Settings,
        asker: Asker,
        keep: Keep,
        *,
        seed: str,
        manners: Manners | None = None,
        spent: Mapping[str, float] | None = None,
        briefly: bool = False,
        clock: Callable[[], float] = time.time,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._asker = asker
        self._keep = keep
        self._seed = seed
        self._briefly = briefly
        self._clock = clock
        self._tell = progress
        self._purse = Purse(settings.probe_budget)
        for provider, cost in (spent or {}).items():
            self._purse.pay(cost, provider)
        self._manners = manners or manners_of(settings)
        self._counts: dict[str, int] = {}
        self._current: dict[str, None] = {}
        self._models = 0
        self._requests = 0

    def __repr__(self) -> str:
        return f"<Run {self._seed}, {sum(self._counts.values())} of {self._models} done>"

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(
            models=self._models,
            counts=dict(self._counts),
            current=tuple(self._current),
            cost=self._purse.spent,
            requests=self._requests,
        )

    async def run(
        self,
        models: Sequence[Model],
        done: Mapping[str, int] | None = None,
        priced: Collection[str] = (),
    ) -> None:
        """Examine these. `done` are the counts of those that this run has done with already, and
        `priced` the providers of those among them that have prices. Raises `StoreError`."""
        self._counts = dict(done or {})
        self._models = len(models) + sum(self._counts.values())
        queues: dict[str, deque[Model]] = {}
        for model in models:
            queues.setdefault(model.provider, deque()).append(model)
        if len({model.provider for model in models if model.pricing}.union(priced)) > 1:
            self._purse.share = SHARE
        for provider in queues:
            self._manners.pace(provider).trust()
        try:
            async with asyncio.TaskGroup() as group:
                for queue in queues.values():
                    for _ in range(min(EACH, len(queue))):
                        group.create_task(self._work(queue))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        if self._purse.refused:
            log.warning(
                "the budget of a verification is used up",
                id=self._seed,
                budget=self._settings.probe_budget,
                not_asked=self._purse.refused,
            )
        for provider in queues:
            if (trouble := self._manners.pace(provider).trouble) is not None:
                log.warning(
                    "a verification leaves a provider alone",
                    id=self._seed,
                    provider=provider,
                    reason=trouble,
                )

    async def _work(self, queue: deque[Model]) -> None:
        while queue:
            model = queue.popleft()
            name = f"{model.provider}/{model.id}"
            self._current[name] = None
            self._tell(self.progress)
            try:
                found = await self._examine(model)
            finally:
                del self._current[name]
            self._counts[found.verdict] = self._counts.get(found.verdict, 0) + 1
            self._tell(self.progress)

    async def _examine(self, model: Model) -> Verified:
        keep = self._keep

        async def save(check: Check) -> None:
            self._requests += check.requests
            await keep.check(model, check)

        made = await keep.made(model)
        self._purse.pay(sum(check.cost for check in made.values()), model.provider)
        before = await keep.before(model)
        # Who has never passed is looked at whole.
        briefly = self._briefly and before is not None and bool(before.proven or before.quality)
        found = await examine(
            Brief(
                model=model,
                before=before,
                made=made,
                briefly=briefly,
                score_every=self._settings.quality_interval,
            ),
            self.interview(model),
            save,
            seed=f"{self._seed} {model.provider}/{model.id}",
            now=self._clock,
        )
        await keep.verified(found)
        return found

    def interview(self, model: Model) -> Interview:
        """An interview with a model that keeps to the pace and the budget of this run."""
        return Interview(
            model,
            self._asker,
            pace=self._manners.pace(model.provider),
            places=self._manners.places,
            purse=self._purse,
            timeout=self._settings.probe_timeout,
            chance=Random(self._seed),  # noqa: S311 - so that a run can be repeated
        )


def manners_of(settings: Settings, pauses: Mapping[str, float] | None = None) -> Manners:
    """As they are set. `pauses` are those of providers that have their own."""
    return Manners(
        count=settings.probe_concurrency, each=EACH, pause=settings.probe_pause, pauses=pauses
    )


def in_turn(models: Iterable[Model], seed: str) -> list[Model]:
    """Those that were never verified first, those that did not answer last; else as chance has
    it, the same for one `seed`: several that hang and stand side by side in the catalog would
    make it look as if their provider did."""

    def turn(model: Model) -> tuple[bool, bool, float]:
        chance = Random(f"{seed} {model.provider}/{model.id}")  # noqa: S311
        return model.last_verified is not None, model.asked_last, chance.random()

    return sorted(models, key=turn)
