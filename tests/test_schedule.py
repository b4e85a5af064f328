"""Who leads, and what runs there: against a real server, with real processes."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from manyways.errors import StoreError
from manyways.schedule import Due, Leader, Schedule, latest_due, next_due
from manyways.store.shared import Shared
from tests.support.valkey import eventually, running_valkey
from tests.support.virtual_time import virtual_time

LEASE = 1.0


@contextlib.asynccontextmanager
async def node(url: str, name: str, lease: float = LEASE) -> AsyncIterator[Leader]:
    """A gateway that would lead."""
    shared = await Shared.open(url)
    leader = Leader(shared, name, lease=lease)
    work = asyncio.create_task(leader.run())
    try:
        yield leader
    finally:
        work.cancel()
        await asyncio.wait([work])
        await shared.aclose()


def test_a_process_alone_leads_and_its_work_runs_again_and_again() -> None:
    runs: list[float] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()

        async def work() -> None:
            runs.append(loop.time())
            await asyncio.sleep(5)

        schedule = Schedule(Leader(None, "a"))
        schedule.every(60.0, "work", work)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(200):
                await schedule.run()

    with virtual_time() as run:
        run(play())
    assert [moment - runs[0] for moment in runs] == [0, 65, 130, 195]


def test_work_that_fails_is_tried_again_and_disturbs_no_other() -> None:
    runs: list[str] = []

    async def fails() -> None:
        runs.append("fails")
        raise RuntimeError("no")

    async def other() -> None:
        runs.append("other")

    async def play() -> None:
        schedule = Schedule(Leader(None, "a"))
        schedule.every(10.0, "fails", fails)
        schedule.every(10.0, "other", other)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                await schedule.run()

    with virtual_time() as run:
        run(play())
    assert runs == ["fails", "other"] * 2


@pytest.mark.process
async def test_one_of_several_leads_and_hands_over_when_it_ends(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        with capture_logs() as log:
            async with node(valkey.url, "b") as other:
                await eventually(lambda: other.leads)
                async with node(valkey.url, "c") as third:
                    assert [other.leads, third.leads] == [True, False]
        assert {line["log_level"] for line in log} == {"info"}, "a stop is no cause for alarm"
        async with node(valkey.url, "d") as next_one:
            await eventually(lambda: next_one.leads, limit=LEASE / 2)


CHILD = """
import asyncio, sys
from manyways.schedule import Leader
from manyways.store.shared import Shared

async def main():
    leader = Leader(await Shared.open(sys.argv[1]), "child", lease=float(sys.argv[2]))
    work = asyncio.create_task(leader.run())
    await leader.until(leads=True)
    print("leads", flush=True)
    await work

asyncio.run(main())
"""


@pytest.mark.process
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_lease_of_a_holder_that_dies_or_hangs_is_taken_over(
    tmp_path: Path, how: signal.Signals
) -> None:
    with running_valkey(tmp_path) as valkey:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, valkey.url, str(LEASE)), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            while await child.stdout.readline() != b"leads\n":
                pass
            async with node(valkey.url, "heir") as heir:
                assert not heir.leads
                os.kill(child.pid, how)
                await eventually(lambda: heir.leads, limit=3 * LEASE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.communicate()


@pytest.mark.process
async def test_a_leader_without_redis_stops_before_another_can_have_the_lease(
    tmp_path: Path,
) -> None:
    stopped: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("work")

    with running_valkey(tmp_path, durable=True) as valkey:
        async with node(valkey.url, "a") as leader:
            schedule = Schedule(leader)
            schedule.every(60.0, "work", work)
            running = asyncio.create_task(schedule.run())
            await eventually(lambda: leader.leads)
            valkey.pause()
            await eventually(lambda: not leader.leads, limit=LEASE)
            await eventually(lambda: stopped == ["work"])
            valkey.resume()
            await eventually(lambda: leader.leads, limit=5 * LEASE)
            running.cancel()
            await asyncio.wait([running])
        assert stopped == ["work", "work"]


@pytest.mark.process
async def test_when_redis_forgets_the_lease_there_are_never_two_leaders(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with (
            node(valkey.url, "a", lease=2.0) as one,
            node(valkey.url, "b", lease=2.0) as other,
        ):
            await eventually(lambda: one.leads or other.leads)
            for _ in range(3):
                valkey.kill()
                valkey.restart()
                for _ in range(50):
                    assert not (one.leads and other.leads)
                    await asyncio.sleep(0.01)


# What is due every day

YEAR = 2026
PLACES = [
    ("Europe/Moscow", "02:00"),  # its clocks are never set
    ("America/New_York", "02:30"),  # left out in March
    ("America/New_York", "01:30"),  # comes twice in November
    ("Australia/Lord_Howe", "02:15"),  # half an hour is left out
    ("America/Santiago", "00:00"),  # a midnight is left out
]


def moments_of_the_year(zone: ZoneInfo) -> tuple[float, float]:
    first, last = (datetime(year, 1, 1, tzinfo=zone).timestamp() for year in (YEAR, YEAR + 1))
    return first, last


def days_of_the_year() -> list[str]:
    return [(date(YEAR, 1, 1) + timedelta(days=n)).isoformat() for n in range(365)]


@pytest.mark.parametrize(("name", "at"), PLACES)
def test_every_day_of_a_year_is_due_once(name: str, at: str) -> None:
    zone = ZoneInfo(name)
    now, end = moments_of_the_year(zone)
    now -= 1
    found: list[Due] = []
    while (due := next_due(at, zone, now)).at < end:
        assert latest_due(at, zone, due.at) == due
        assert latest_due(at, zone, due.at - 0.001) != due
        found.append(due)
        now = due.at
    assert [due.day for due in found] == days_of_the_year()


def test_where_the_clock_leaves_the_time_out_it_is_as_long_after_midnight() -> None:
    due = next_due(
        "02:30", ZoneInfo("America/New_York"), datetime(2026, 3, 8, 5, tzinfo=UTC).timestamp()
    )
    assert datetime.fromtimestamp(due.at, UTC) == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)


@given(st.sampled_from(PLACES), st.integers(0, 4_000_000_000))
def test_now_lies_between_what_was_due_and_what_will_be(place: tuple[str, str], now: int) -> None:
    name, at = place
    before, behind = latest_due(at, ZoneInfo(name), now), next_due(at, ZoneInfo(name), now)
    assert before.at <= now < behind.at
    assert before.day < behind.day
    assert behind.at - before.at <= 26 * 3600


class Calendar:
    """What two nodes have done of what was due, as their database would know."""

    def __init__(self, start: float, loop: asyncio.AbstractEventLoop) -> None:
        self.runs: list[str] = []
        self._start = start - loop.time()
        self._loop = loop

    def now(self) -> float:
        return self._start + self._loop.time()

    async def work(self, due: Due) -> None:
        if due.day not in self.runs:
            self.runs.append(due.day)


@pytest.mark.parametrize(("name", "at"), PLACES[:4])
def test_over_a_year_with_restarts_and_two_nodes_each_day_has_one_run(name: str, at: str) -> None:
    """Nodes come and go at random, at times none is there; some days are missed that way."""
    zone, chance = ZoneInfo(name), random.Random(name)
    start, end = moments_of_the_year(zone)

    async def play() -> tuple[list[str], list[str]]:
        calendar = Calendar(start, asyncio.get_running_loop())
        hit: list[str] = []

        async def node() -> None:
            while calendar.now() < end:
                schedule = Schedule(Leader(None, "n"), clock=calendar.now)
                schedule.daily(at, zone, "verification", calendar.work)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(60, 9 * 86400)):
                        await schedule.run()
                await asyncio.sleep(chance.uniform(1, 2 * 86400))

        async def watch() -> None:
            while calendar.now() < end:
                await asyncio.sleep(600)
                hit.append(latest_due(at, zone, calendar.now()).day)

        nodes = [asyncio.create_task(node()) for _ in range(2)]
        await watch()
        for task in nodes:
            task.cancel()
        await asyncio.wait(nodes)
        return calendar.runs, sorted(set(hit))

    with virtual_time() as run:
        runs, all_days = run(play())
    assert len(runs) == len(set(runs)), "never twice"
    assert runs == sorted(runs)
    assert set(runs) <= {*all_days, "2025-12-31"}
    assert len(runs) > 350, "a day is only missed where nobody was there for all of it"


def test_what_was_missed_is_made_up_for_once_and_only_the_latest() -> None:
    zone = ZoneInfo("Europe/Moscow")
    start = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()

    async def play() -> list[tuple[str, float]]:
        calendar = Calendar(start, asyncio.get_running_loop())
        done: list[tuple[str, float]] = []

        async def work(due: Due) -> None:
            done.append((due.day, calendar.now() - start))

        async def live(seconds: float) -> None:
            schedule = Schedule(Leader(None, "n"), clock=calendar.now)
            schedule.daily("02:00", zone, "verification", work)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await schedule.run()

        await live(3600)
        await asyncio.sleep(3 * 86400)
        await live(3600)
        return done

    with virtual_time() as run:
        assert run(play()) == [("2026-05-01", 0.0), ("2026-05-04", 3 * 86400.0 + 3600)]


def test_what_fails_is_tried_again_within_a_minute_or_two() -> None:
    tried: list[float] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()

        async def fails_twice(due: Due) -> None:
            tried.append(loop.time())
            if len(tried) < 3:
                raise StoreError("away")

        schedule = Schedule(Leader(None, "n"), clock=loop.time)
        schedule.daily("02:00", ZoneInfo("UTC"), "verification", fails_twice)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1000):
                await schedule.run()

    with virtual_time() as run:
        run(play())
    assert [moment - tried[0] for moment in tried] == [0.0, 60.0, 120.0]
