"""A time limit whose end can be moved for free."""

import asyncio

import pytest

from manyways.watch import TimeLimit
from tests.support.virtual_time import VirtualLoop, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def test_it_ends_what_takes_too_long_and_says_what_that_was() -> None:
    async def wait() -> float:
        began = now()
        expected = pytest.raises(TimeoutError, match=r"the first token took over 5 s")
        with expected, TimeLimit(5.0, "the first token"):
            await asyncio.sleep(60)
        return now() - began

    with virtual_time() as run:
        assert run(wait()) == pytest.approx(5.0, abs=0.051)


def test_what_is_quicker_is_left_alone() -> None:
    async def wait() -> None:
        with TimeLimit(5.0) as limit:
            await asyncio.sleep(4.9)
        assert not limit.expired
        await asyncio.sleep(60)

    with virtual_time() as run:
        run(wait())


def test_each_restart_gives_the_full_time_again() -> None:
    async def wait() -> float:
        began = now()

        async def go_on(limit: TimeLimit) -> None:
            for _ in range(10):
                await asyncio.sleep(4.0)
                limit.restart(5.0)
            await asyncio.sleep(60)

        with pytest.raises(TimeoutError), TimeLimit(5.0) as limit:
            await go_on(limit)
        return now() - began

    with virtual_time() as run:
        assert run(wait()) == pytest.approx(45.0, abs=0.051)


def test_a_restart_may_shorten_the_time() -> None:
    async def wait() -> float:
        began = now()

        async def hurry(limit: TimeLimit) -> None:
            limit.restart(1.0, "the end")
            await asyncio.sleep(60)

        with pytest.raises(TimeoutError), TimeLimit(100.0) as limit:
            await hurry(limit)
        assert limit.why == "the end"
        return now() - began

    with virtual_time() as run:
        assert run(wait()) == pytest.approx(1.0, abs=0.051)


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def wait() -> None:
        with TimeLimit(5.0):
            await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with virtual_time() as run:
        run(cancel())


def test_of_two_nested_limits_only_the_one_that_ran_out_speaks() -> None:
    async def wait() -> list[str]:
        heard: list[str] = []
        try:
            with TimeLimit(5.0, "outer"):
                try:
                    with TimeLimit(50.0, "inner"):
                        await asyncio.sleep(60)
                except TimeoutError:
                    heard.append("inner")
        except TimeoutError as error:
            heard.append(str(error))
        await asyncio.sleep(100)
        return heard

    with virtual_time() as run:
        assert run(wait()) == ["outer took over 5 s"]


def test_its_repr_tells_the_state() -> None:
    async def look() -> list[str]:
        limit = TimeLimit(5.0, "the first token")
        seen = [repr(limit)]
        with limit:
            seen.append(repr(limit))
        return [*seen, repr(limit)]

    with virtual_time() as run:
        assert run(look()) == [
            "<TimeLimit the first token 5 s idle>",
            "<TimeLimit the first token 5 s running>",
            "<TimeLimit the first token 5 s idle>",
        ]


def test_the_time_in_which_the_loop_stood_still_is_not_counted_as_awake() -> None:
    async def wait() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        with TimeLimit(60.0) as limit:
            await asyncio.sleep(1.0)
            seen = [limit.awake]
            loop._jump.now += 20.0  # as when the machine has no time for us
            await asyncio.sleep(1.0)
            seen.append(limit.awake)
        with TimeLimit(60.0) as limit:
            seen.append(limit.awake)
        return seen

    with virtual_time() as run:
        assert run(wait()) == pytest.approx([1.0, 2.0, 0.0], abs=0.051)
