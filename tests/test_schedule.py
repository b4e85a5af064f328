"""Who leads, and what runs there: against a real server, with real processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from manyways.schedule import Leader, Schedule
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
