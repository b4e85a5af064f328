"""`Idempotency-Key`: the same request gets the same answer, and is asked once."""

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from manyways.access.idempotency import Claims
from manyways.access.limits import Standing
from manyways.edge.exchange import Exchange
from manyways.edge.idempotency import LONGEST, Repeats
from manyways.errors import Refusal
from manyways.store.database import Database, open_database
from manyways.types import Model
from tests.edge.pages import Page, ask, authenticate, edge
from tests.support.databases import migrated

ASKED = {"model": "m", "messages": []}
STREAM = {**ASKED, "stream": True}
EVENTS = (b'data: {"id":1}\n\n', b'data: {"id":2}\n\n', b"data: [DONE]\n\n")
MODEL = Model(id="m", provider="Capi", upstream_id="m", created=0)

Say = Callable[[Exchange], Awaitable[None]]


async def streams(exchange: Exchange) -> None:
    """An answer, event by event."""
    exchange.answered_by(MODEL, 1)
    if not exchange.started:
        await exchange.start()
    for event in EVENTS[:-1]:
        await exchange.write(event)
    await exchange.end(EVENTS[-1])


async def breaks(exchange: Exchange) -> None:
    """An answer that nobody goes on with."""
    await exchange.start()
    await exchange.write(EVENTS[0])
    await exchange.fail(Refusal("all_models_failed", "It broke off."))


async def dies(exchange: Exchange) -> None:
    raise RuntimeError("a mistake of ours")


def says(body: bytes) -> Say:
    """An answer."""

    async def say(exchange: Exchange) -> None:
        exchange.answered_by(MODEL, 1)
        await exchange.answer(body)

    return say


def refuses(code: str, status: int | None = None) -> Say:
    """No answer."""

    async def say(exchange: Exchange) -> None:
        raise Refusal(code, "No.", status=status)

    return say


class Gateway:
    """An endpoint that says, request after request, what it is told to; else a number.

    `gate` holds all answers back, `begun` is set when one is asked for.
    """

    def __init__(
        self, database: Database, keep_alive: float = 10.0, claims: Claims | None = None
    ) -> None:
        self.database = database
        self.says: list[Say] = []
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self._numbers = itertools.count(1)
        self.claims = claims or Claims(database, poll=0.01)
        repeats = Repeats(
            self.claims,
            authenticate=authenticate,
            owner=lambda caller: f"key:{caller.key_id}",
            patience=10.0,
            send_timeout=1.0,
            keep_alive=keep_alive,
            standing=lambda _: Standing(limit=30, remaining=29, reset=1_800_000_000),
        )
        chat = {"POST": repeats.once(self.chat)}
        self.edge = edge({"/chat": chat, "/other": chat})

    async def chat(self, exchange: Exchange) -> None:
        self.asked.append(await exchange.body())
        self.begun.set()
        await self.gate.wait()
        say = self.says.pop(0) if self.says else says(b'{"n":%d}' % next(self._numbers))
        await say(exchange)

    async def ask(
        self,
        body: object = ASKED,
        *,
        repeat: str | None = "k1",
        key: str | None = "full",
        path: str = "/chat",
        headers: Mapping[str, str] | None = None,
        heard: Callable[[bytes], object] = lambda _: None,
        leaving: asyncio.Event | None = None,
    ) -> Page:
        out = dict(headers or {})
        if repeat is not None:
            out["idempotency-key"] = repeat
        return await ask(
            self.edge, path, key=key, method="POST", body=body, headers=out, heard=heard,
            leaving=leaving,
        )  # fmt: skip

    def begin(
        self,
        body: object = ASKED,
        *,
        heard: Callable[[bytes], object] = lambda _: None,
        leaving: asyncio.Event | None = None,
    ) -> asyncio.Task[Page]:
        """The same, going on by itself."""
        return asyncio.create_task(self.ask(body, heard=heard, leaving=leaving))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "test.db"), busy_timeout=0.05)
    yield database
    database.close()


@pytest.fixture
async def gateway(database: Database) -> Gateway:
    return Gateway(database)


async def test_a_repeat_gets_the_same_answer_and_nobody_is_asked(gateway: Gateway) -> None:
    first, second = await gateway.ask(), await gateway.ask()

    assert (second.status, second.body) == (200, first.body)
    assert len(gateway.asked) == 1
    for name in ("content-type", "x-manyways-model", "x-manyways-provider", "x-manyways-attempts"):
        assert second.headers[name] == first.headers[name]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["x-original-request-id"] == first.headers["x-request-id"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert second.headers["x-ratelimit-remaining"] == "29"


async def test_a_stream_is_repeated_as_a_stream(gateway: Gateway) -> None:
    gateway.says = [streams]
    first, second = await gateway.ask(STREAM), await gateway.ask(STREAM)

    assert first.body == second.body == b"".join(EVENTS)
    assert second.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert second.headers["cache-control"] == "no-cache"
    assert len(gateway.asked) == 1


async def test_without_the_header_each_request_is_asked(gateway: Gateway) -> None:
    first, second = await gateway.ask(repeat=None), await gateway.ask(repeat=None)

    assert (first.body, second.body) == (b'{"n":1}', b'{"n":2}')


async def test_each_caller_has_keys_of_its_own(gateway: Gateway) -> None:
    first, second = await gateway.ask(key="full"), await gateway.ask(key="admin")

    assert (first.body, second.body) == (b'{"n":1}', b'{"n":2}')


async def test_what_comes_while_the_first_runs_waits_for_its_answer(gateway: Gateway) -> None:
    gateway.gate.clear()
    asking = [gateway.begin() for _ in range(4)]
    await gateway.begun.wait()
    gateway.gate.set()
    pages = await asyncio.gather(*asking)

    assert {page.body for page in pages} == {b'{"n":1}'}
    assert [page.headers.get("idempotency-replayed") for page in pages].count("true") == 3
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    ("body", "path"), [({**ASKED, "n": 2}, "/chat"), (ASKED, "/other")], ids=["body", "endpoint"]
)
async def test_the_same_key_with_another_request_is_a_conflict(
    gateway: Gateway, body: object, path: str
) -> None:
    await gateway.ask()
    page = await gateway.ask(body, path=path)

    assert (page.status, page.code) == (409, "idempotency_conflict")
    assert page.json()["error"]["param"] == "Idempotency-Key"
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    "failing",
    [
        refuses("invalid_request"),
        refuses("provider_refused", status=422),
        refuses("rate_limit_exceeded"),
        refuses("all_models_failed"),
        refuses("timeout"),
        breaks,
        dies,
    ],
    ids=["400", "422", "429", "503", "504", "broken stream", "500"],
)
async def test_what_failed_is_asked_again(gateway: Gateway, failing: Say) -> None:
    gateway.says = [failing]
    failed, second, third = await gateway.ask(), await gateway.ask(), await gateway.ask()

    assert failed.body != second.body
    assert second.body == third.body == b'{"n":1}'
    assert "idempotency-replayed" not in second.headers
    assert len(gateway.asked) == 2


async def test_when_the_first_fails_one_of_those_who_wait_asks(gateway: Gateway) -> None:
    gateway.gate.clear()
    gateway.says = [refuses("all_models_failed")]
    asking = [gateway.begin() for _ in range(4)]
    await gateway.begun.wait()
    gateway.gate.set()
    pages = await asyncio.gather(*asking)

    assert sorted(page.status for page in pages) == [200, 200, 200, 503]
    assert len(gateway.asked) == 2


async def test_when_the_first_caller_leaves_its_answer_is_nobodys(gateway: Gateway) -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.write(EVENTS[0])
        await asyncio.Event().wait()

    gateway.says = [hangs, streams]
    leaving, heard = asyncio.Event(), asyncio.Event()
    first = gateway.begin(STREAM, leaving=leaving, heard=lambda _: heard.set())
    await heard.wait()
    second = gateway.begin(STREAM)
    leaving.set()
    await first

    assert (await second).body == b"".join(EVENTS)
    assert len(gateway.asked) == 2


@pytest.mark.parametrize("answer", [says(b"{}"), streams], ids=["whole", "streamed"])
async def test_an_answer_is_kept_before_its_last_byte_leaves(
    gateway: Gateway, database: Database, answer: Say
) -> None:
    gateway.says = [answer]
    kept: list[object] = []
    pieces: list[bytes] = []

    def look(piece: bytes) -> None:
        if piece:
            with closing(sqlite3.connect(database.path)) as other:
                (status,) = other.execute("SELECT status FROM idempotent_answers").fetchone()
            kept.append(status)
            pieces.append(piece)

    page = await gateway.ask(heard=look)
    assert b"".join(pieces) == page.body
    assert kept == [None] * (len(pieces) - 1) + [200]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "tab\there"])
async def test_a_key_that_is_none_is_refused(gateway: Gateway, key: str) -> None:
    page = await gateway.ask(repeat=key)

    assert (page.status, page.code) == (400, "invalid_request")
    assert page.json()["error"]["param"] == "Idempotency-Key"
    assert gateway.asked == []


async def test_a_key_may_be_as_long_as_it_is_said(gateway: Gateway) -> None:
    first = await gateway.ask(repeat="~ " * 127 + "~")

    assert (await gateway.ask(repeat="~ " * 127 + "~")).body == first.body


async def test_strangers_are_turned_away_first(gateway: Gateway) -> None:
    await gateway.ask()

    assert (await gateway.ask(key=None)).status == 401
    assert (await gateway.ask(key=None, repeat="x" * 256)).status == 401


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_is_too_large_comes_once(gateway: Gateway, streamed: bool) -> None:
    size = LONGEST // 4 + 1

    async def long_stream(exchange: Exchange) -> None:
        await exchange.start()
        for _ in range(4):
            await exchange.write(b":" * size)
        await exchange.end(EVENTS[-1])

    gateway.says = [long_stream if streamed else says(b" " * 4 * size)]
    first, second = await gateway.ask(), await gateway.ask()

    assert len(first.body) >= 4 * size
    assert (second.status, second.code) == (409, "idempotency_conflict")
    assert "too large" in second.json()["error"]["message"]
    assert len(gateway.asked) == 1


async def test_a_large_answer_is_repeated_whole(gateway: Gateway) -> None:
    body = json.dumps(list(range(300_000))).encode()
    gateway.says = [says(body)]

    assert (await gateway.ask()).body == (await gateway.ask()).body == body


async def test_who_cannot_wait_any_longer_is_told(gateway: Gateway) -> None:
    gateway.gate.clear()
    first = gateway.begin()
    await gateway.begun.wait()
    page = await gateway.ask(headers={"X-Request-Timeout": "50ms"})

    assert (page.status, page.code) == (504, "timeout")
    gateway.gate.set()
    assert (await first).status == 200


def impatient(gateway: Gateway) -> Gateway:
    """The same one, where callers hear a comment soon. Whoever asks first is to hear none, however
    long the database takes, and so does not ask here."""
    return Gateway(gateway.database, keep_alive=0.02, claims=gateway.claims)


async def waiting(gateway: Gateway) -> asyncio.Task[Page]:
    """A second caller, who has heard a comment while it waits for the first."""
    comment = asyncio.Event()

    def hear(piece: bytes) -> None:
        if piece:
            comment.set()

    second = gateway.begin(STREAM, heard=hear)
    await comment.wait()
    return second


async def test_who_waits_for_a_stream_hears_comments_then_all_of_it(gateway: Gateway) -> None:
    gateway.gate.clear()
    gateway.says = [streams]
    first = gateway.begin(STREAM)
    await gateway.begun.wait()
    there = impatient(gateway)
    second = await waiting(there)
    gateway.gate.set()

    assert (await first).body == b"".join(EVENTS)
    comments, _, answer = (await second).body.rpartition(b": keep-alive\n\n")
    assert answer == b"".join(EVENTS)
    assert set(comments.splitlines()) <= {b"", b": keep-alive"}
    assert (len(gateway.asked), len(there.asked)) == (1, 0)


@pytest.mark.parametrize("failing", [False, True])
async def test_who_was_told_to_wait_may_have_to_ask_itself(gateway: Gateway, failing: bool) -> None:
    gateway.gate.clear()
    gateway.says = [refuses("all_models_failed"), streams]
    first = gateway.begin(STREAM)
    await gateway.begun.wait()
    there = impatient(gateway)
    there.says = [refuses("timeout") if failing else streams]
    second = await waiting(there)
    gateway.gate.set()

    assert (await first).status == 503
    page = await second
    assert page.status == 200
    assert page.body.endswith(EVENTS[-1]) is not failing
    assert (b'"code":"timeout"' in page.body) is failing
    third = await gateway.ask(STREAM)
    assert third.body == b"".join(EVENTS)
    assert third.headers["content-type"].startswith("text/event-stream")
    assert (len(gateway.asked), len(there.asked)) == (2 if failing else 1, 1)


async def test_nobody_who_waits_for_a_whole_answer_hears_comments(database: Database) -> None:
    gateway = Gateway(database, keep_alive=0.01)
    gateway.gate.clear()
    first = gateway.begin()
    await gateway.begun.wait()
    second = gateway.begin()
    await asyncio.sleep(0.05)
    gateway.gate.set()

    assert (await first).body == (await second).body == b'{"n":1}'


async def test_without_the_database_no_promise_is_made_and_none_broken(
    gateway: Gateway, database: Database
) -> None:
    gateway.gate.clear()
    first = gateway.begin()
    await gateway.begun.wait()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        gateway.gate.set()
        assert (await first).body == b'{"n":1}'
        refused = await gateway.ask(repeat="k2")
        let_be = await gateway.ask(repeat=None)
        other.execute("ROLLBACK")

    assert (refused.status, refused.code) == (503, "server_error")
    assert int(refused.headers["retry-after"]) > 0
    assert let_be.body == b'{"n":2}'
    assert (await gateway.ask(repeat="k2")).body == b'{"n":3}'
