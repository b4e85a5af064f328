"""Many models, examined: bounded, in the pace of each provider, to be gone on with."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from typing import Any

import msgspec
import pytest

from manyways.catalog.settings import Settings
from manyways.catalog.verified import Check, Verified
from manyways.errors import AttemptFailed, StoreError
from manyways.types import Model
from manyways.verification.asking import JSON, Answer
from manyways.verification.run import EACH, Progress, Run, in_turn, manners_of
from tests.support.asked import Asked, chat, model
from tests.support.virtual_time import virtual_time
from tests.verification.test_examination import able

PROVIDERS = 40
LATENCY = 0.05
Virtually = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def virtually() -> Iterator[Virtually]:
    with virtual_time() as run:
        yield run


def now() -> float:
    return asyncio.get_running_loop().time()


class Memory:
    """Keeps what is found out, as a database does: over a kill of whoever found it."""

    def __init__(self) -> None:
        self.checks: dict[tuple[str, str], dict[str, Check]] = defaultdict(dict)
        self.found: dict[tuple[str, str], Verified] = {}
        self.full = False
        self.has_passed = False
        self.under_way: set[tuple[str, str]] = set()
        self.most: Counter[str] = Counter()

    async def made(self, model: Model) -> Mapping[str, Check]:
        name = (model.provider, model.id)
        self.under_way.add(name)
        count = sum(1 for provider, _ in self.under_way if provider == model.provider)
        self.most[model.provider] = max(self.most[model.provider], count)
        return dict(self.checks[name])

    async def before(self, model: Model) -> Verified | None:
        if not self.has_passed:
            return None
        known = Verified(provider=model.provider, model=model.id, at=0.0, verdict="failed")
        return msgspec.structs.replace(known, proven=("tools",))

    async def check(self, model: Model, check: Check) -> None:
        await asyncio.sleep(0.001)
        if self.full:
            raise StoreError("full")
        assert check.name not in self.checks[model.provider, model.id]
        self.checks[model.provider, model.id][check.name] = check

    async def verified(self, found: Verified) -> None:
        await asyncio.sleep(0.001)
        name = (found.provider, found.model)
        self.under_way.discard(name)
        assert name not in self.found
        self.found[name] = found

    def left(self, models: list[Model]) -> list[Model]:
        """Those that are not done."""
        return [one for one in models if (one.provider, one.id) not in self.found]


class Providers(Asked):
    """Answers each request a while later, and notes when each began, and what they were."""

    def __init__(self) -> None:
        super().__init__(able)
        self.began: dict[str, list[float]] = defaultdict(list)
        self.bodies_of: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self.most_each = 0

    async def _late(self, model: Model, body: bytes) -> None:
        self.began[model.provider].append(now())
        self.bodies_of[model.provider, model.id].append(body)
        self.under_way[model.provider] += 1
        self.most = max(self.most, self.under_way.total())
        self.most_each = max(self.most_each, self.under_way[model.provider])
        try:
            await asyncio.sleep(LATENCY)
        finally:
            self.under_way[model.provider] -= 1

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        await self._late(model, body)
        return await super().whole(
            model, path, body, content_type=content_type, limit=limit, largest=largest
        )

    async def stream(
        self, model: Model, path: str, body: bytes, *, limit: float, largest: int
    ) -> AsyncGenerator[bytes, None]:
        await self._late(model, body)
        async for piece in super().stream(model, path, body, limit=limit, largest=largest):
            yield piece

    def shortest_gap(self) -> float:
        """Between two requests to the same provider."""
        return min(
            after - before
            for began in self.began.values()
            for before, after in itertools.pairwise(began)
        )

    def asked_again(self) -> Counter[tuple[str, str]]:
        """How many requests to each model were the same as one before."""
        return Counter(
            {
                name: len(bodies) - len(set(bodies))
                for name, bodies in self.bodies_of.items()
                if len(bodies) > len(set(bodies))
            }
        )


def models(count: int, providers: int = PROVIDERS) -> list[Model]:
    one = model(capabilities=("tools",))
    return [
        Model(
            id=f"m{number}",
            upstream_id=f"m{number}",
            provider=f"P{number % providers}",
            created=1,
            capabilities=one.capabilities,
        )
        for number in range(count)
    ]


def verification(memory: Memory, providers: Asked, **how: Any) -> Run:
    settings = how.pop("settings", Settings(probe_pause=0.5, probe_concurrency=16))
    return Run(settings, providers, memory, seed="run-1", clock=now, **how)


class TestPace:
    def test_a_pause_lies_between_any_two_requests_to_a_provider(
        self, virtually: Virtually
    ) -> None:
        async def scene() -> None:
            memory, providers = Memory(), Providers()
            began = now()
            await verification(memory, providers).run(models(2 * PROVIDERS))
            seconds = now() - began
            requests = max(map(len, providers.began.values()))
            assert len(memory.found) == 2 * PROVIDERS
            assert providers.shortest_gap() >= 0.5 - 1e-6
            assert providers.most <= 16
            assert providers.most_each <= EACH
            assert seconds < 1.1 * 0.5 * requests, "providers do not wait for each other"

        virtually(scene())

    def test_the_pause_holds_where_places_are_what_is_rare(self, virtually: Virtually) -> None:
        async def scene() -> None:
            memory, providers = Memory(), Providers()
            settings = Settings(probe_pause=0.2, probe_concurrency=2)
            await verification(memory, providers, settings=settings).run(models(PROVIDERS))
            assert providers.most == 2
            assert providers.shortest_gap() >= 0.2 - 1e-6

        virtually(scene())

    def test_a_provider_may_have_a_pause_of_its_own(self, virtually: Virtually) -> None:
        async def scene() -> None:
            memory, providers = Memory(), Providers()
            manners = manners_of(Settings(probe_pause=0.5), {"P1": 3.0})
            run = verification(memory, providers, manners=manners)
            await run.run(models(2, providers=2))
            gaps = {
                name: min(b - a for a, b in itertools.pairwise(began))
                for name, began in providers.began.items()
            }
            assert gaps["P0"] == pytest.approx(0.5)
            assert gaps["P1"] == pytest.approx(3.0)

        virtually(scene())

    def test_one_provider_that_hangs_holds_up_nobody_else(self, virtually: Virtually) -> None:
        class Hanging(Providers):
            async def _late(self, model: Model, body: bytes) -> None:
                if model.provider == "P0":
                    await asyncio.sleep(60.0)
                    raise AttemptFailed("timeout", "silence")
                await super()._late(model, body)

        async def scene() -> None:
            memory, providers = Memory(), Hanging()
            ends: dict[str, float] = {}

            def note(_: Progress) -> None:
                for provider, name in memory.found:
                    ends.setdefault(f"{provider}/{name}", now() - began)

            began = now()
            await verification(memory, providers, progress=note).run(models(20, providers=5))
            assert max(end for name, end in ends.items() if not name.startswith("P0/")) < 100.0
            assert ends["P0/m0"] == pytest.approx(120.0, abs=1.0)
            assert memory.found["P0", "m0"].verdict == "failed"

        virtually(scene())


class TestBounds:
    def test_at_a_provider_a_few_models_are_under_way(self, virtually: Virtually) -> None:
        async def scene() -> None:
            memory, providers = Memory(), Providers()
            await verification(memory, providers).run(models(60, providers=3))
            assert dict(memory.most) == {"P0": EACH, "P1": EACH, "P2": EACH}
            assert memory.under_way == set()

        virtually(scene())

    def test_no_more_tasks_than_models_under_way(self, virtually: Virtually) -> None:
        async def scene() -> None:
            seen = 0

            def look(_: Progress) -> None:
                nonlocal seen
                seen = max(seen, len(asyncio.all_tasks()))

            before = len(asyncio.all_tasks())
            run = verification(Memory(), Providers(), progress=look)
            await run.run(models(400, providers=4))
            assert seen - before <= 4 * EACH

        virtually(scene())


class TestProgress:
    def test_it_adds_up(self, virtually: Virtually) -> None:
        async def scene() -> None:
            told: list[Progress] = []
            memory, providers = Memory(), Providers()
            run = verification(memory, providers, progress=told.append)
            await run.run(models(12, providers=3), done={"passed": 5, "failed": 3})
            assert told[0].done == 8
            assert {one.models for one in told} == {20}
            assert [one.done for one in told] == sorted(one.done for one in told)
            assert all(len(one.current) <= 3 * EACH for one in told)
            last = run.progress
            assert (dict(last.counts), last.current) == ({"passed": 17, "failed": 3}, ())
            assert last.requests == sum(map(len, providers.began.values()))

        virtually(scene())

    def test_what_is_under_way_is_named(self, virtually: Virtually) -> None:
        async def scene() -> None:
            named: set[str] = set()
            run = verification(
                Memory(), Providers(), progress=lambda one: named.update(one.current)
            )
            every = models(6, providers=2)
            await run.run(every)
            assert named == {f"{one.provider}/{one.id}" for one in every}

        virtually(scene())

    def test_nothing_to_do_is_done(self, virtually: Virtually) -> None:
        async def scene() -> None:
            run = verification(Memory(), Providers())
            await run.run([])
            assert run.progress.done == run.progress.models == 0

        virtually(scene())

    def test_those_that_were_never_verified_come_first(self) -> None:
        new, old = model("new"), model("old", last_verified="2027-01-01T00:00:00Z")
        for seed in "abcdef":
            assert in_turn([old, new], seed) == [new, old]


class TestBreakingOff:
    def test_cancelled_at_any_moment_nothing_leaks_and_nothing_kept_is_asked_again(
        self, virtually: Virtually
    ) -> None:
        async def scene() -> None:
            every = models(9, providers=3)
            memory, providers = Memory(), Providers()
            kills = 0
            while left := memory.left(every):
                run = asyncio.create_task(verification(memory, providers).run(left))
                done, _ = await asyncio.wait([run], timeout=3.3 + 0.17 * kills)
                memory.under_way.clear()
                if not done:
                    kills += 1
                    run.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await run
                assert asyncio.all_tasks() == {asyncio.current_task()}
                assert providers.under_way.total() == 0
            assert kills > 10
            again = providers.asked_again()
            assert again.total() <= kills * 3 * EACH
            assert max(again.values()) <= kills
            assert all(found.verdict == "passed" for found in memory.found.values())
            assert all(
                found.quality is not None and found.quality.score == 10.0
                for found in memory.found.values()
            )

        virtually(scene())

    def test_a_whole_run_asks_nothing_twice(self, virtually: Virtually) -> None:
        async def scene() -> None:
            providers = Providers()
            await verification(Memory(), providers).run(models(9, providers=3))
            assert not providers.asked_again()

        virtually(scene())

    def test_where_nothing_can_be_kept_it_ends_with_that(self, virtually: Virtually) -> None:
        async def scene() -> None:
            memory, providers = Memory(), Providers()
            memory.full = True
            with pytest.raises(StoreError, match="full"):
                await verification(memory, providers).run(models(30, providers=3))
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert sum(map(len, providers.began.values())) <= 3 * EACH

        virtually(scene())


class TestMoney:
    PRICED = Settings(probe_pause=0.0, probe_budget=0.01)

    @staticmethod
    def priced(count: int) -> list[Model]:
        prices = {"prompt": 0.0, "completion": 1e-6, "request": 1e-4}
        return [model(f"m{n}", capabilities=("tools",), pricing=prices) for n in range(count)]

    def test_a_run_costs_what_it_may_and_no_more(self, virtually: Virtually) -> None:
        async def scene() -> None:
            memory = Memory()
            run = verification(memory, Providers(), settings=self.PRICED)
            await run.run(self.priced(20))
            assert run.progress.cost <= self.PRICED.probe_budget
            assert run.progress.cost > 0.9 * self.PRICED.probe_budget
            counts = Counter(found.verdict for found in memory.found.values())
            assert counts["skipped"] > 10

        virtually(scene())

    def test_what_was_spent_before_a_kill_is_spent(self, virtually: Virtually) -> None:
        async def scene() -> None:
            every = self.priced(4)
            memory, providers = Memory(), Providers()
            run = verification(memory, providers, settings=self.PRICED)
            task = asyncio.create_task(run.run(every))
            await asyncio.sleep(0.4)
            task.cancel()
            await asyncio.wait([task])
            kept = sum(one.cost for checks in memory.checks.values() for one in checks.values())
            assert kept > 0.0
            again = verification(memory, providers, settings=self.PRICED)
            await again.run(memory.left(every))
            total = sum(one.cost for checks in memory.checks.values() for one in checks.values())
            assert again.progress.cost == pytest.approx(total)
            assert total <= self.PRICED.probe_budget

        virtually(scene())


class TestBriefly:
    def test_who_has_passed_before_is_only_asked_whether_it_answers(
        self, virtually: Virtually
    ) -> None:
        async def scene() -> None:
            asker = Asked(lambda *_: chat("yes"))
            memory = Memory()
            memory.has_passed = True
            await verification(memory, asker, briefly=True).run(models(10))
            assert len(asker.requests) == 10
            assert all(found.verdict == "passed" for found in memory.found.values())

        virtually(scene())
