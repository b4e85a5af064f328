"""How fast, and for how much money: a provider is asked in its pace, whatever happens."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.verification.pacing import (
    FIRST_PAUSE,
    MOST_REFUSALS,
    SLOWEST,
    Pace,
    Places,
    Postponed,
    Purse,
)
from tests.support.virtual_time import virtual_time

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Iterator[Run]:
    with virtual_time() as run:
        yield run


def now() -> float:
    return asyncio.get_running_loop().time()


class Provider:
    """Notes when requests begin, in seconds since it was made."""

    def __init__(self, pace: Pace, *, places: int = 100) -> None:
        self.pace = pace
        self.places = asyncio.Semaphore(places)
        self.began: list[float] = []
        self.names: list[str] = []
        self.under_way = 0
        self.most = 0
        self._since = now()

    async def ask(self, name: str = "", *, takes: float = 0.0) -> None:
        async with self.pace.turn(self.places):
            self.began.append(round(now() - self._since, 6))
            self.names.append(name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                await asyncio.sleep(takes)
            finally:
                self.under_way -= 1

    async def ask_often(self, count: int, *, takes: float = 0.0) -> list[float]:
        """When these began, all of them asked for at once."""
        start = len(self.began)
        await asyncio.gather(*(self.ask(str(number), takes=takes) for number in range(count)))
        return self.began[start:]


class TestPace:
    def test_requests_begin_a_pause_apart_in_the_order_they_came(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(0.5))
            assert await provider.ask_often(5, takes=3.0) == [0.0, 0.5, 1.0, 1.5, 2.0]
            assert provider.names == ["0", "1", "2", "3", "4"]

        run(scene())

    def test_no_pause_is_no_wait(self, run: Run) -> None:
        async def scene() -> None:
            assert await Provider(Pace(0.0)).ask_often(100) == [0.0] * 100

        run(scene())

    def test_time_that_nobody_used_is_not_made_up_for(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            await provider.ask()
            await asyncio.sleep(60.0)
            assert await provider.ask_often(3) == [60.0, 61.0, 62.0]

        run(scene())

    def test_who_waits_for_a_place_keeps_the_pause_all_the_same(self, run: Run) -> None:
        """Places that become free together are no reason for requests that begin together."""

        async def scene() -> None:
            provider = Provider(Pace(0.5), places=2)
            other = Provider(Pace(0.0))
            other.places = provider.places
            taken = [asyncio.create_task(other.ask(takes=10.0)) for _ in range(2)]
            await asyncio.sleep(0)
            assert await provider.ask_often(3) == [10.0, 10.5, 11.0]
            await asyncio.gather(*taken)

        run(scene())

    def test_a_provider_with_many_requests_leaves_places_to_the_others(self, run: Run) -> None:
        async def scene() -> None:
            busy, idle = Provider(Pace(0.0), places=1), Provider(Pace(0.0))
            idle.places = busy.places
            flood = asyncio.create_task(busy.ask_often(50, takes=1.0))
            await asyncio.sleep(0.5)
            await idle.ask()
            assert idle.began == [1.0 + 1.0]  # the one under way, the one that waited, then ours
            await flood

        run(scene())

    def test_no_place_is_lost_whoever_is_cancelled_wherever(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(0.5), places=2)
            tasks = [asyncio.create_task(provider.ask(takes=1.2)) for _ in range(12)]
            for number, task in enumerate(tasks):
                await asyncio.sleep(0.3)
                if number % 2:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert provider.most == 2
            assert provider.under_way == 0
            await asyncio.sleep(100.0)
            before = now()
            await provider.ask_often(2, takes=9.0)
            assert now() - before == pytest.approx(9.5)  # two at a time, as at first

        run(scene())

    def test_a_provider_that_wants_fewer_is_left_alone_and_then_asked_half_as_often(
        self, run: Run
    ) -> None:
        async def scene() -> None:
            provider = Provider(Pace(0.5))
            await provider.ask()
            provider.pace.limited(7.0)
            assert await provider.ask_often(3) == [7.0, 8.0, 9.0]

        run(scene())

    def test_a_rest_also_binds_who_is_waiting_already(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            waiting = asyncio.create_task(provider.ask_often(3))
            await asyncio.sleep(0.5)
            provider.pace.limited(10.0)
            assert await waiting == [0.0, 10.5, 12.5]

        run(scene())

    def test_a_rest_also_binds_who_waits_for_a_place(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(0.0), places=1)
            tasks = [asyncio.create_task(provider.ask(takes=2.0)) for _ in range(2)]
            await asyncio.sleep(1.0)
            provider.pace.limited(10.0)
            await asyncio.gather(*tasks)
            assert provider.began == [0.0, 11.0]

        run(scene())

    def test_requests_refused_together_make_it_slower_once(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            for _ in range(4):
                provider.pace.limited(5.0)
            assert repr(provider.pace) == "<Pace 1 s × 2>"
            await asyncio.sleep(5.0)
            provider.pace.limited(5.0)
            assert repr(provider.pace) == "<Pace 1 s × 4>"

        run(scene())

    def test_the_longest_rest_counts(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            provider.pace.limited(30.0)
            provider.pace.limited(5.0)
            assert await provider.ask_often(1) == [30.0]

        run(scene())

    def test_a_provider_without_a_pause_gets_one_where_it_wants_fewer(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(0.0))
            provider.pace.limited(3.0)
            first, second = await provider.ask_often(2)
            assert (first, second) == (3.0, 3.0 + 2 * FIRST_PAUSE)

        run(scene())

    def test_it_never_gets_slower_than_so_much_and_quicker_with_each_success(
        self, run: Run
    ) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            for _ in range(12):
                provider.pace.limited(1.0)
                await asyncio.sleep(1.0)
            assert repr(provider.pace) == f"<Pace 1 s × {SLOWEST:g}>"
            provider.pace.went_well()
            await asyncio.sleep(1000.0)
            first, second = await provider.ask_often(2)
            assert SLOWEST * 0.9 < second - first < SLOWEST
            for _ in range(200):
                provider.pace.went_well()
            assert repr(provider.pace) == "<Pace 1 s × 1>"

        run(scene())

    def test_a_provider_that_refuses_everything_is_asked_no_more(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            for _ in range(MOST_REFUSALS - 1):
                provider.pace.limited(5.0)
            waiting = asyncio.create_task(provider.ask_often(1))
            await asyncio.sleep(1.0)
            provider.pace.limited(5.0)
            with pytest.raises(Postponed, match="in a row") as postponed:
                await waiting
            assert not postponed.value.asked
            assert provider.began == []

        run(scene())

    def test_one_success_between_refusals_keeps_it_in_use(self, run: Run) -> None:
        async def scene() -> None:
            provider = Provider(Pace(1.0))
            for _ in range(3):
                for _ in range(MOST_REFUSALS - 1):
                    provider.pace.limited(5.0)
                provider.pace.went_well()
            assert len(await provider.ask_often(1)) == 1

        run(scene())

    @given(
        pause=st.sampled_from([0.0, 0.1, 1.0]),
        places=st.integers(1, 3),
        steps=st.lists(
            st.tuples(
                st.floats(0, 3),
                st.sampled_from(["ask", "leave", "limited", "well"]),
                st.floats(0, 5),
            ),
            max_size=40,
        ),
    )
    def test_whatever_happens_no_two_begin_within_a_pause(
        self, pause: float, places: int, steps: list[tuple[float, str, float]]
    ) -> None:
        async def scene() -> None:
            provider = Provider(Pace(pause), places=places)
            tasks: list[asyncio.Task[None]] = []
            for wait, what, seconds in steps:
                await asyncio.sleep(wait)
                if what == "ask":
                    tasks.append(asyncio.create_task(provider.ask(takes=seconds)))
                elif what == "leave" and tasks:
                    tasks.pop().cancel()
                elif what == "limited" and pause:
                    provider.pace.limited(seconds)
                elif what == "well":
                    provider.pace.went_well()
            for task in tasks:
                with contextlib.suppress(Postponed):
                    await task
            began = provider.began
            gaps = [after - before for before, after in itertools.pairwise(began)]
            assert all(gap >= pause - 1e-5 for gap in gaps)
            assert provider.most <= places

        with virtual_time() as run:
            run(scene())


class TestPurse:
    def test_what_fits_may_be_spent_and_what_does_not_may_not(self, run: Run) -> None:
        async def scene() -> None:
            purse = Purse(1.0, spent=0.25)
            async with purse.hold(0.75) as fits:
                assert fits
            async with purse.hold(0.76) as fits:
                assert not fits
            purse.pay(0.7)
            async with purse.hold(0.06) as fits:
                assert not fits
            assert repr(purse) == "<Purse 0.9500 of 1 USD spent>"

        run(scene())

    def test_what_costs_nothing_is_always_allowed(self, run: Run) -> None:
        async def scene() -> None:
            purse = Purse(0.0, spent=2.0)
            async with purse.hold(0.0) as fits:
                assert fits

        run(scene())

    def test_what_others_hold_is_waited_for_as_long_as_it_may_come_back(self, run: Run) -> None:
        async def scene() -> None:
            purse = Purse(1.0)

            async def spend(bound: float, cost: float) -> tuple[bool, float]:
                async with purse.hold(bound) as fits:
                    at = now() - began
                    await asyncio.sleep(1.0)
                if fits:
                    purse.pay(cost)
                return fits, at

            began = now()
            cheap = [asyncio.create_task(spend(0.4, 0.01)) for _ in range(4)]
            assert await asyncio.gather(*cheap) == [
                (True, 0.0),
                (True, 0.0),
                (True, 1.0),
                (True, 1.0),
            ]
            began = now()
            dear = [asyncio.create_task(spend(0.6, 0.6)) for _ in range(2)]
            assert await asyncio.gather(*dear) == [(True, 0.0), (False, 1.0)]

        run(scene())

    def test_who_leaves_gives_back_what_was_held(self, run: Run) -> None:
        async def scene() -> None:
            purse = Purse(1.0)

            async def hold() -> None:
                async with purse.hold(0.7):
                    await asyncio.sleep(1e6)

            tasks = [asyncio.create_task(hold()) for _ in range(3)]
            await asyncio.sleep(1.0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with purse.hold(1.0) as fits:
                assert fits

        run(scene())

    @given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 1)), max_size=30))
    def test_it_is_never_overspent(self, prices: list[tuple[float, float]]) -> None:
        """Where nothing costs more than was held for it."""

        async def scene() -> None:
            purse = Purse(1.0)

            async def buy(bound: float, share: float) -> None:
                async with purse.hold(bound) as fits:
                    await asyncio.sleep(bound)
                if fits:
                    purse.pay(bound * share)

            await asyncio.gather(*(buy(*price) for price in prices))
            assert purse.spent <= 1.0 + 1e-9

        with virtual_time() as run:
            run(scene())


class TestPlaces:
    def test_each_provider_has_its_own(self) -> None:
        places = Places(3, 1)
        assert places.of("A") is places.of("A")
        assert places.of("A") is not places.of("B")

    async def test_so_many_each_and_so_many_in_all(self) -> None:
        places = Places(3, 1)
        await places.of("A").acquire()
        assert places.of("A").locked()
        assert not places.of("B").locked()
        for _ in range(3):
            assert not places.all.locked()
            await places.all.acquire()
        assert places.all.locked()
