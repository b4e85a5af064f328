"""Claims to answer: one at a time, whoever asks, and wherever."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manyways.access.idempotency import Claim, Claims
from manyways.errors import Refusal
from manyways.store.database import Database, open_database
from manyways.store.idempotency import Answer, Request
from tests.support.databases import migrated


class Wall:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "test.db"), busy_timeout=0.05)
    yield database
    database.close()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def node(database: Database, wall: Wall) -> Callable[[], Claims]:
    """Makes a node: what has a memory of its own, and the database of all."""
    return lambda: Claims(database, renewal=0.01, poll=0.01, wall=wall)


def request(number: int, body: bytes = b"a") -> Request:
    return Request(owner="key:1", key="k", fingerprint=body * 32, id=f"request-{number}")


def answer(number: int) -> Answer:
    return Answer(request_id=f"request-{number}", status=200, headers=(), body=b"{}")


def soon(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def claimed(claims: Claims, number: int) -> Claim:
    found = await claims.claim(request(number), soon())
    assert isinstance(found, Claim)
    return found


async def test_those_who_wait_get_the_answer_of_the_first(node: Callable[[], Claims]) -> None:
    claims = node()
    first = await claimed(claims, 1)
    others = [asyncio.create_task(claims.claim(request(n), soon())) for n in range(2, 5)]
    await asyncio.sleep(0)
    await claims.keep(first, answer(1))

    assert await asyncio.gather(*others) == [answer(1)] * 3
    assert await claims.claim(request(9), soon()) == answer(1)
    assert repr(claims) == "<Claims 0>"


async def test_those_who_wait_on_another_node_get_it_too(node: Callable[[], Claims]) -> None:
    here, there = node(), node()
    first = await claimed(here, 1)
    others = [asyncio.create_task(there.claim(request(n), soon())) for n in range(2, 5)]
    await asyncio.sleep(0.03)
    assert not any(one.done() for one in others)
    await here.keep(first, answer(1))

    assert await asyncio.gather(*others) == [answer(1)] * 3


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_when_the_first_fails_one_of_those_who_wait_tries(
    node: Callable[[], Claims], elsewhere: bool
) -> None:
    here = node()
    there = node() if elsewhere else here
    first = await claimed(here, 1)
    others = [asyncio.create_task(there.claim(request(n), soon())) for n in range(2, 5)]
    await asyncio.sleep(0)
    await here.free(first)
    done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)

    (second,) = done
    heir = second.result()
    assert isinstance(heir, Claim)
    assert len(waiting) == 2
    await there.keep(heir, answer(2))
    assert await asyncio.gather(*waiting) == [answer(2)] * 2


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_key_that_comes_with_another_request_is_refused_at_once(
    node: Callable[[], Claims], elsewhere: bool
) -> None:
    here = node()
    there = node() if elsewhere else here
    await claimed(here, 1)

    with pytest.raises(Refusal) as refused:
        await there.claim(request(2, b"b"), soon())
    assert (refused.value.code, refused.value.param) == ("idempotency_conflict", "Idempotency-Key")
    assert repr(there) == f"<Claims {0 if elsewhere else 1}>"


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_who_waits_too_long_is_told(node: Callable[[], Claims], elsewhere: bool) -> None:
    here = node()
    there = node() if elsewhere else here
    await claimed(here, 1)

    with pytest.raises(Refusal, match="not answered yet") as refused:
        await there.claim(request(2), soon(0.03))
    assert refused.value.code == "timeout"


async def test_a_claim_outlives_its_node_by_its_lease(
    node: Callable[[], Claims], wall: Wall
) -> None:
    await claimed(node(), 1)
    claims = node()
    heir = asyncio.create_task(claims.claim(request(2), soon()))
    await asyncio.sleep(0.03)
    assert not heir.done()
    wall.now += 20.0

    assert isinstance(await heir, Claim)


async def test_a_claim_that_is_followed_does_not_lapse(
    node: Callable[[], Claims], wall: Wall
) -> None:
    here, there = node(), node()
    first = await claimed(here, 1)
    following = asyncio.create_task(here.follow())
    for _ in range(3):
        wall.now += 15.0
        await asyncio.sleep(0.05)
    with pytest.raises(Refusal, match="not answered yet"):
        await there.claim(request(2), soon(0.03))

    following.cancel()
    await here.keep(first, answer(1))
    assert await there.claim(request(3), soon()) == answer(1)


async def test_a_caller_that_leaves_while_it_waits_disturbs_nobody(
    node: Callable[[], Claims],
) -> None:
    here, there = node(), node()
    first = await claimed(here, 1)
    leaving, staying = (asyncio.create_task(there.claim(request(n), soon())) for n in (2, 3))
    await asyncio.sleep(0.03)
    leaving.cancel()
    await asyncio.wait([leaving])
    await here.keep(first, answer(1))

    assert await staying == answer(1)


async def test_a_caller_that_leaves_while_it_claims_holds_nothing_up(
    node: Callable[[], Claims],
) -> None:
    claims = node()
    leaving = asyncio.create_task(claims.claim(request(1), soon()))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])

    assert leaving.cancelled()
    assert isinstance(await node().claim(request(2), soon(0.03)), Claim)


async def test_what_was_kept_cannot_be_given_up(node: Callable[[], Claims]) -> None:
    claims = node()
    first = await claimed(claims, 1)
    await claims.keep(first, answer(1))
    await claims.free(first)

    assert await claims.claim(request(2), soon()) == answer(1)


async def test_an_answer_is_kept_though_nobody_waits_for_that(node: Callable[[], Claims]) -> None:
    claims = node()
    first = await claimed(claims, 1)
    keeping = asyncio.create_task(claims.keep(first, answer(1)))
    await asyncio.sleep(0)
    keeping.cancel()
    await claims.free(first)

    assert await claims.claim(request(2), soon()) == answer(1)


async def test_without_the_database_nothing_is_promised(
    node: Callable[[], Claims], database: Database
) -> None:
    with sqlite3.connect(database.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        claims = node()
        found = await asyncio.gather(
            *(claims.claim(request(n), soon()) for n in range(3)), return_exceptions=True
        )
        other.execute("ROLLBACK")
    other.close()

    assert {(one.code, one.status) for one in found if isinstance(one, Refusal)} == {
        ("server_error", 503)
    }
    assert len(found) == 3


async def test_without_the_database_those_who_wait_here_get_the_answer_all_the_same(
    node: Callable[[], Claims], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    claims = node()
    first = await claimed(claims, 1)
    waiting = asyncio.create_task(claims.claim(request(2), soon()))
    await asyncio.sleep(0)
    with sqlite3.connect(database.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        await claims.keep(first, answer(1))
        other.execute("ROLLBACK")
    other.close()

    assert await waiting == answer(1)
    assert "request-1 will ask again" in caplog.text
