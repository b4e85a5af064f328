"""Wrong keys cost whoever sends them, and not us."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from manyways.access.keys import KeyRing, Settings, new_secret
from manyways.access.throttle import MINUTE, STEP
from manyways.errors import Refusal, StoreError
from manyways.operations import CreatedKey, create_key, revoke_key
from manyways.store.database import Database, open_database
from tests.support.databases import migrated
from tests.support.virtual_time import virtual_time

NOW = 1_800_000_000.0
LIMIT = 5
SETTINGS = Settings(wrong_a_minute=LIMIT)
HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "ring.db"))
    yield database
    database.close()


@pytest.fixture
def ring(database: Database) -> KeyRing:
    return KeyRing(database, SETTINGS)


@pytest.fixture
def made(database: Database) -> CreatedKey:
    return create_key(database, SETTINGS, "full", now=NOW)


@pytest.fixture
def looked_up() -> Iterator[list[object]]:
    """Something for each key that a database was asked for."""
    asked: list[object] = []

    def heard(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        if "api_keys.digest = " in sql:
            asked.append(sql)

    event.listen(Engine, "before_cursor_execute", heard)
    yield asked
    event.remove(Engine, "before_cursor_execute", heard)


async def code(ring: KeyRing, secret: str, address: str = HERE, now: float = NOW) -> str:
    try:
        await ring.authenticate(secret, now, address)
    except Refusal as refused:
        return refused.code
    return "welcome"


async def fail(ring: KeyRing, count: int = LIMIT) -> None:
    for _ in range(count):
        assert await code(ring, new_secret(SETTINGS)) == "invalid_api_key"


async def test_after_so_many_no_other_is_looked_up(
    ring: KeyRing, made: CreatedKey, looked_up: list[object]
) -> None:
    await fail(ring)
    assert len(looked_up) == LIMIT
    for secret in (new_secret(SETTINGS), "sk-1", made.key):
        assert await code(ring, secret) == "rate_limit_exceeded"
    assert len(looked_up) == LIMIT


async def test_the_refusal_says_for_how_long_and_that_is_true(
    ring: KeyRing, made: CreatedKey
) -> None:
    await fail(ring)
    with pytest.raises(Refusal, match="Too many wrong API keys") as refused:
        await ring.authenticate(made.key, NOW, HERE)
    wait = refused.value.retry_after
    assert wait is not None
    assert MINUTE <= wait <= MINUTE + STEP
    assert f"{wait} s" in refused.value.message
    assert await code(ring, made.key, now=NOW + wait) == "welcome"


async def test_keys_in_memory_go_on_working_from_there(
    ring: KeyRing, database: Database, made: CreatedKey
) -> None:
    ended = create_key(database, SETTINGS, "full", now=NOW)
    revoke_key(database, ended.id, now=NOW)
    assert await code(ring, made.key, THERE) == "welcome"
    assert await code(ring, ended.key, THERE) == "revoked_api_key"
    await fail(ring)
    assert ring.known(made.key, NOW)
    assert await code(ring, made.key) == "welcome"
    assert await code(ring, ended.key) == "revoked_api_key"


async def test_others_are_not_concerned(ring: KeyRing, made: CreatedKey) -> None:
    await fail(ring)
    assert await code(ring, new_secret(SETTINGS), THERE) == "invalid_api_key"
    assert await code(ring, made.key, THERE) == "welcome"


async def test_addresses_of_one_network_are_one(ring: KeyRing) -> None:
    for host in range(LIMIT):
        assert await code(ring, "sk-1", f"2001:db8::{host}") == "invalid_api_key"
    assert await code(ring, "sk-1", "2001:db8::ffff") == "rate_limit_exceeded"
    assert await code(ring, "sk-1", "2001:db8:0:1::1") == "invalid_api_key"


async def test_what_is_malformed_counts_and_costs_no_look_up(
    ring: KeyRing, database: Database
) -> None:
    database.close()
    for _ in range(LIMIT):
        assert await code(ring, "sk-1") == "invalid_api_key"
    assert await code(ring, "sk-1") == "rate_limit_exceeded"


async def test_the_same_wrong_key_counts_each_time(ring: KeyRing, looked_up: list[object]) -> None:
    stranger = new_secret(SETTINGS)
    for _ in range(LIMIT):
        assert await code(ring, stranger) == "invalid_api_key"
    assert await code(ring, stranger) == "rate_limit_exceeded"
    assert len(looked_up) == 1


async def test_right_keys_ended_keys_and_no_key_count_nothing(
    ring: KeyRing, database: Database, made: CreatedKey
) -> None:
    ended = create_key(database, SETTINGS, "full", now=NOW)
    revoke_key(database, ended.id, now=NOW)
    for _ in range(2 * LIMIT):
        assert await code(ring, made.key) == "welcome"
        assert await code(ring, ended.key) == "revoked_api_key"
        assert await code(ring, "") == "invalid_api_key"
    await fail(ring)


async def test_who_has_no_address_is_not_counted(ring: KeyRing) -> None:
    for _ in range(3 * LIMIT):
        assert await code(ring, new_secret(SETTINGS), "") == "invalid_api_key"
        assert await code(ring, "sk-1", "") == "invalid_api_key"


async def test_a_database_that_does_not_answer_counts_nothing(
    ring: KeyRing, database: Database
) -> None:
    away = "ALTER TABLE api_keys RENAME TO api_keys_away"
    back = "ALTER TABLE api_keys_away RENAME TO api_keys"
    database.run(lambda connection: connection.exec_driver_sql(away), write=True)
    for _ in range(2 * LIMIT):
        with pytest.raises(StoreError):
            await ring.authenticate(new_secret(SETTINGS), NOW, HERE)
    database.run(lambda connection: connection.exec_driver_sql(back), write=True)
    await fail(ring)


async def test_of_many_at_once_no_more_are_looked_up_than_may_fail(
    ring: KeyRing, looked_up: list[object]
) -> None:
    crowd = [code(ring, new_secret(SETTINGS)) for _ in range(20 * LIMIT)]
    told = await asyncio.gather(*crowd)
    assert told.count("invalid_api_key") == LIMIT
    assert told.count("rate_limit_exceeded") == 19 * LIMIT
    assert len(looked_up) == LIMIT


async def test_right_keys_at_once_are_all_let_in(ring: KeyRing, database: Database) -> None:
    """As after a restart, when all callers of a company come from one address."""
    made = [create_key(database, SETTINGS, "full", now=NOW) for _ in range(4 * LIMIT)]
    told = await asyncio.gather(*(code(ring, one.key) for one in made for _ in range(3)))
    assert set(told) == {"welcome"}


async def test_who_leaves_the_line_holds_nobody_up(
    ring: KeyRing, database: Database, made: CreatedKey
) -> None:
    gate = threading.Event()
    held = asyncio.create_task(database.call(lambda _: gate.wait(10), limit=20.0))
    crowd = [
        asyncio.create_task(ring.authenticate(secret, NOW, HERE))
        for secret in (new_secret(SETTINGS), new_secret(SETTINGS), made.key)
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    for leaving in crowd[:2]:
        leaving.cancel()
    gate.set()
    assert (await crowd[2]).key_id == made.id
    await asyncio.gather(*crowd, return_exceptions=True)
    await held


def test_a_line_that_does_not_move_ends_in_time(ring: KeyRing, made: CreatedKey) -> None:
    async def wait_for_ever() -> None:
        turn = ring._turns[HERE] = asyncio.Lock()
        async with turn:
            with pytest.raises(StoreError, match="too many keys wait"):
                await ring.authenticate(made.key, NOW, HERE)

    with virtual_time() as run:
        run(wait_for_ever())
