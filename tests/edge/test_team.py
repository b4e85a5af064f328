"""Several workers' metrics as one page, each sample with the number of its worker."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from manyways.edge import team as teams
from manyways.edge.team import STALE, Team

PAGE = """\
# HELP manyways_requests_total Requests that are over.
# TYPE manyways_requests_total counter
manyways_requests_total{{endpoint="/models",status="200"}} {count}
# HELP manyways_request_seconds How long they took.
# TYPE manyways_request_seconds histogram
manyways_request_seconds_bucket{{endpoint="/odd \\"path\\"\\n",le="0.1"}} 1.0
manyways_request_seconds_bucket{{endpoint="/odd \\"path\\"\\n",le="+Inf"}} {count}
manyways_request_seconds_count{{endpoint="/odd \\"path\\"\\n"}} {count}
manyways_request_seconds_sum{{endpoint="/odd \\"path\\"\\n"}} 0.25
"""


def page(count: float) -> bytes:
    return PAGE.format(count=float(count)).encode()


def counted(together: bytes) -> dict[str, float]:
    """Requests by worker. The whole page is read as Prometheus reads it."""
    families = list(text_string_to_metric_families(together.decode()))
    assert [family.name for family in families] == [
        "manyways_requests", "manyways_request_seconds",
    ]  # fmt: skip
    assert [family.type for family in families] == ["counter", "histogram"]
    assert {sample.labels["endpoint"] for sample in families[1].samples} == {'/odd "path"\n'}
    return {sample.labels["worker"]: sample.value for sample in families[0].samples}


def left(folder: Path, name: str, content: bytes, age: float = 0.0) -> Path:
    file = folder / name
    file.write_bytes(content)
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_one_by_itself_has_its_number(tmp_path: Path) -> None:
    assert counted(Team(tmp_path, 1, "77").together(page(3))) == {"1": 3.0}
    assert counted(Team(tmp_path / "missing", 2, "77").together(page(3))) == {"2": 3.0}


def test_all_of_a_team_are_told_by_whoever_is_asked(tmp_path: Path) -> None:
    left(tmp_path, "77-1.metrics", page(1))
    left(tmp_path, "77-2.metrics", page(2))
    left(tmp_path, "77-10.metrics", page(10))
    team = Team(tmp_path, 2, "77")
    assert counted(team.together(page(5))) == {"1": 1.0, "2": 5.0, "10": 10.0}


def test_who_was_gone_for_long_is_not_told(tmp_path: Path) -> None:
    left(tmp_path, "77-1.metrics", page(1), age=STALE + 1)
    assert counted(Team(tmp_path, 2, "77").together(page(5))) == {"2": 5.0}


def test_another_team_in_the_same_folder_is_another_matter(tmp_path: Path) -> None:
    left(tmp_path, "78-1.metrics", page(1))
    left(tmp_path, "177-1.metrics", page(1))
    assert counted(Team(tmp_path, 2, "77").together(page(5))) == {"2": 5.0}


async def test_each_writes_its_page_again_and_again_and_takes_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams, "INTERVAL", 0.0)
    count = 0

    async def mine() -> bytes:
        nonlocal count
        count += 1
        return page(count)

    other = Team(tmp_path, 2, "77")
    follow = asyncio.create_task(Team(tmp_path, 1, "77").follow(mine))
    async with asyncio.timeout(10):
        while counted(other.together(page(0))).get("1", 0) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    follow.cancel()
    await asyncio.wait({follow})
    assert counted(other.together(page(0))) == {"2": 0.0}


async def test_what_one_has_told_of_itself_the_others_tell_too(tmp_path: Path) -> None:
    one, other = Team(tmp_path, 1, "77"), Team(tmp_path, 2, "77")
    count = 0

    async def mine() -> bytes:
        nonlocal count
        count += 1
        return page(count)

    for number in range(1, 4):
        assert counted(one.together(await one.tell(mine))) == {"1": number}
        assert counted(other.together(page(0))) == {"1": number, "2": 0.0}


async def test_an_older_page_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    one, other = Team(tmp_path, 1, "77"), Team(tmp_path, 2, "77")
    wait = asyncio.Event()

    async def slow() -> bytes:
        read = page(1)
        await wait.wait()
        return read

    async def quick() -> bytes:
        return page(2)

    told = [asyncio.create_task(one.tell(slow)), asyncio.create_task(one.tell(quick))]
    await asyncio.sleep(0)
    wait.set()
    await asyncio.gather(*told)
    assert counted(other.together(page(0)))["1"] == 2.0


async def test_what_killed_ones_left_is_cleared_away(tmp_path: Path) -> None:
    old = [
        left(tmp_path, "12-1.metrics", page(1), age=STALE + 1),
        left(tmp_path, "12-1.99.metrics.new", b"", age=STALE + 1),
    ]
    young = left(tmp_path, "13-1.metrics", page(1))
    journal = left(tmp_path, "0195.jsonl", b"{}\n", age=STALE + 1)
    written = asyncio.Event()

    async def mine() -> bytes:
        written.set()
        return page(1)

    follow = asyncio.create_task(Team(tmp_path, 1, "77").follow(mine))
    async with asyncio.timeout(10):
        await written.wait()
    follow.cancel()
    await asyncio.wait({follow})
    assert [file.exists() for file in old] == [False, False]
    assert young.exists()
    assert journal.exists()


async def test_a_folder_that_cannot_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams, "INTERVAL", 0.0)
    folder = tmp_path / "journal"
    tries = 0

    async def mine() -> bytes:
        nonlocal tries
        tries += 1
        if tries == 3:
            await asyncio.to_thread(folder.mkdir)
        return page(tries)

    follow = asyncio.create_task(Team(folder, 1, "77").follow(mine))
    async with asyncio.timeout(10):
        while not (folder / "77-1.metrics").exists():  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not follow.done()
    follow.cancel()
    await asyncio.wait({follow})
    shutil.rmtree(folder)
