"""The shared memory, against real servers: what is asked, what happens when they go and come."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manyways.store.redis_link import LIMIT
from manyways.store.shared import Away, Script, Shared, key
from tests.support.valkey import (
    Valkey,
    eventually,
    running_cluster,
    running_sentinel,
    running_valkey,
)

pytestmark = pytest.mark.process

COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
HANG = 0.5
"""Seconds a busy machine may be late."""


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Shared]:
    shared = await Shared.open(url)
    try:
        yield shared
    finally:
        await shared.aclose()


async def slowest(shared: Shared, askers: int = 50) -> float:
    """Seconds the slowest of many took to be answered, or to hear that nobody answers."""

    async def one() -> float:
        began = time.monotonic()
        with contextlib.suppress(Away):
            await shared.run(COUNT, [key("{a}", "n")], 1)
        return time.monotonic() - began

    return max(await asyncio.gather(*(one() for _ in range(askers))))


async def test_whoever_asks_at_once_is_answered_each_with_its_own(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            runs = [shared.run(COUNT, [key("{a}", str(n))], n) for n in range(500)]
            assert await asyncio.gather(*runs) == list(range(500))


async def test_an_error_of_one_is_no_error_of_the_next(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            name = key("{a}", "text")
            await shared.ask("SET", name, "no number")
            answers = await asyncio.gather(
                shared.run(COUNT, [name], 1),
                shared.run(COUNT, [key("{a}", "n")], 1),
                return_exceptions=True,
            )
            assert isinstance(answers[0], Away)
            assert "not an integer" in str(answers[0])
            assert answers[1] == 1
            assert not shared.away


async def test_a_script_is_sent_again_where_the_server_has_forgotten_it(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            name = key("{a}", "n")
            assert await shared.run(COUNT, [name], 1) == 1
            valkey.ask("SCRIPT", "FLUSH", "SYNC")
            assert await shared.run(COUNT, [name], 1) == 2
            valkey.ask("SCRIPT", "FLUSH", "SYNC")
            shared.post(COUNT, [name], 1)
            await eventually(lambda: bool(valkey.ask("GET", name) == "3"))


async def test_what_was_asked_by_one_who_left_is_not_lost(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            orphans: list[int] = []
            name = key("{a}", "n")
            await shared.run(COUNT, [name], 1)
            asking = asyncio.create_task(shared.run(COUNT, [name], 5, orphaned=orphans.append))
            await asyncio.sleep(0)
            asking.cancel()
            await eventually(lambda: bool(orphans))
            assert orphans == [6]


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_who_asks_a_server_that_goes_away_waits_no_longer_than_the_limit(
    tmp_path: Path, how: str
) -> None:
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            asking = asyncio.create_task(slowest(shared, 2000))
            await asyncio.sleep(0.001)
            getattr(valkey, how)()
            assert await asking < LIMIT + HANG
            assert await slowest(shared) < LIMIT + HANG
            await eventually(lambda: shared.away)
            assert await slowest(shared) < HANG


@pytest.mark.parametrize(("how", "undo"), [("kill", "restart"), ("pause", "resume")])
async def test_it_heals_by_itself(tmp_path: Path, how: str, undo: str) -> None:
    back: list[bool] = []
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            shared.on_back(lambda: back.append(shared.away))
            getattr(valkey, how)()
            await eventually(lambda: shared.away)
            getattr(valkey, undo)()
            await eventually(lambda: not shared.away, limit=2.0)
            assert back == [False]
            assert await shared.run(COUNT, [key("{a}", "m")], 1) == 1


async def test_who_fails_when_it_is_back_does_not_keep_it_from_healing(tmp_path: Path) -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise ValueError("a mistake")

    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            shared.on_back(fails)
            for _ in range(2):
                valkey.kill()
                await eventually(lambda: shared.away)
                valkey.restart()
                await eventually(lambda: not shared.away)
    assert len(calls) == 2


async def test_without_a_server_it_begins_away_and_finds_it_later(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    async with opened(valkey.url) as shared:
        assert shared.away
        with pytest.raises(Away, match="cannot be reached"):
            await shared.ask("GET", key("a"))
        try:
            valkey.start()
            await eventually(lambda: not shared.away)
        finally:
            valkey.kill()


async def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        valkey.ask("ACL", "SETUSER", "ada", "on", ">right", "~*", "+@all", "&*")
        host = f"127.0.0.1:{valkey.port}"
        async with opened(f"redis://ada:wrong@{host}") as shared:
            assert "WRONGPASS" in shared.why
        async with opened(f"redis://ada:right@{host}/2") as shared:
            await shared.ask("SET", key("a"), "b")
        assert valkey.ask("GET", key("a")) is None, "it is in database 2"


async def test_what_is_said_on_a_channel_is_heard_also_after_a_restart(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            shared.listen("news", heard.append)
            await shared.ask("PUBLISH", "news", "one")
            await eventually(lambda: heard == [b"one"])
            valkey.kill()
            await eventually(lambda: shared.away)
            valkey.restart()
            await eventually(lambda: not shared.away)
            await shared.ask("PUBLISH", "news", "two")
            await eventually(lambda: heard == [b"one", b"two"])


async def test_what_was_posted_before_the_end_has_happened(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            for _ in range(100):
                shared.post(COUNT, [key("{a}", "n")], 1)
        assert valkey.ask("GET", key("{a}", "n")) == "100"


async def test_of_too_many_who_wait_the_last_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyways.store.redis_link.WAITING", 10)
    with running_valkey(tmp_path) as valkey:
        async with opened(valkey.url) as shared:
            runs = [shared.run(COUNT, [key("{a}")], 1) for _ in range(20)]
            answers = await asyncio.gather(*runs, return_exceptions=True)
            assert sorted(one for one in answers if isinstance(one, int)) == list(range(1, 11))
            assert all(isinstance(one, Away) for one in answers[10:])


async def test_a_cluster_is_asked_where_the_key_is_and_its_new_master_is_found(
    tmp_path: Path,
) -> None:
    heard: list[bytes] = []
    names = [key(f"{{{n}}}", "n") for n in range(40)]
    with running_cluster(tmp_path, replica=True) as servers:
        async with opened(f"redis+cluster://127.0.0.1:{servers[1].port}") as shared:
            shared.listen("news", heard.append)
            assert await asyncio.gather(*(shared.run(COUNT, [n], 1) for n in names)) == [1] * 40
            servers[0].kill()
            await eventually(lambda: shared.away)
            assert await slowest(shared) < LIMIT + HANG
            await eventually(lambda: not shared.away)
            assert await asyncio.gather(*(shared.run(COUNT, [n], 1) for n in names)) == [2] * 40
            await shared.ask("PUBLISH", "news", "one")
            await eventually(lambda: heard == [b"one"])


async def test_a_slot_that_has_moved_is_followed(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as servers:
        async with opened(f"redis+cluster://127.0.0.1:{servers[0].port}") as shared:
            name = key("{moved}")
            slot = servers[0].ask("CLUSTER", "KEYSLOT", name)
            ids = [server.ask("CLUSTER", "MYID") for server in servers]
            owner = min(slot * 3 // 16384, 2)
            target = (owner + 1) % 3
            for server in (servers[target], servers[owner], servers[3 - owner - target]):
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
            assert await shared.run(COUNT, [name], 1) == 1
            assert servers[target].ask("GET", name) == "1"


async def test_the_master_that_sentinel_names_is_followed(tmp_path: Path) -> None:
    with running_sentinel(tmp_path) as (master, replica, sentinel):
        async with opened(f"redis+sentinel://127.0.0.1:{sentinel.port}/main") as shared:
            await shared.ask("SET", key("a"), "b")
            await eventually(lambda: bool(replica.ask("GET", key("a")) == "b"))
            master.pause()
            await eventually(lambda: shared.away)
            await eventually(lambda: not shared.away)
            assert await shared.ask("GET", key("a")) == b"b"
            await shared.ask("SET", key("a"), "c")
            assert replica.ask("GET", key("a")) == "c"
