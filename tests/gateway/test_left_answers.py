"""Callers that leave an answer which is read to its end without them (`drain`): what their key may
do meanwhile and afterwards, and what is on record, however it ends."""

import contextlib
import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_wall import GOOD_WHOLE, ChatWall, Speech, chat_wall
from tests.support.company import company
from tests.support.gateway import COUNTS, Gateway, provider, running_gateway
from tests.support.valkey import until
from tests.support.wall import Moment, Request, Script, WaitFor

pytestmark = pytest.mark.process

SPEECH = Speech()
CHAT = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
"""Reserves 108 tokens, uses 10."""
LEFT = {**CHAT, "stream": True}


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        yield chats


@pytest.fixture(scope="module", params=["in memory", "in Redis"])
def gateway(
    request: pytest.FixtureRequest, wall: ChatWall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """One that keeps count there."""
    home = tmp_path_factory.mktemp("left")
    with contextlib.ExitStack() as stack:
        if request.param == "in memory":
            yield stack.enter_context(running_gateway(home, config(wall)))
        else:
            yield stack.enter_context(company(home, config(wall), nodes=1)).nodes[0]


def config(wall: ChatWall) -> str:
    return COUNTS + provider(wall.wall.url, "m", extra="drain = true\n")


def key(gateway: Gateway, **limits: Any) -> str:
    made = gateway.ask("/admin/v1/keys", {"type": "full", "limits": limits})
    assert made.status == 201, made.body
    return str(made.json()["key"])


def leave(gateway: Gateway, wall: ChatWall, secret: str, go_on: Moment) -> None:
    """Hear three words, and go; the rest is said on a sign. Returns once it is on record."""

    def play(request: Request) -> Script:
        script = SPEECH(request)
        return (*script[:5], WaitFor(go_on), *script[5:])

    wall.answer = play
    logged = len(gateway.log)
    with replace(gateway, key=secret).begin(LEFT) as caller:
        heard(caller, SPEECH.words[2])
    gateway.logged('"status":499', since=logged)
    wall.answer = GOOD_WHOLE


def heard(caller: socket.socket, word: str) -> None:
    found = b""
    while json.dumps(word).encode() not in found:
        data = caller.recv(65536)
        assert data, found
        found += data


def test_a_place_is_free_at_once_and_the_rest_when_it_is_known(
    gateway: Gateway, wall: ChatWall
) -> None:
    """Of 220 tokens 108 are held while the rest is read, and 10 are used when it is over."""
    secret = key(gateway, concurrent=1, quota=[{"tokens": 220, "per": "ever"}])
    go_on = Moment()
    leave(gateway, wall, secret, go_on)
    logged = len(gateway.log)
    assert gateway.chat(CHAT, key=secret).status == 200
    refused = gateway.chat(CHAT, key=secret)
    assert (refused.status, refused.error["code"]) == (429, "quota_exceeded")
    go_on.set()
    gateway.logged('"event":"drained"', '"told":true', since=logged)
    assert gateway.chat({**CHAT, "max_tokens": 193}, key=secret).status == 429
    assert gateway.chat({**CHAT, "max_tokens": 192}, key=secret).status == 200


def test_an_answer_that_is_never_told_is_settled_by_what_was_said(
    gateway: Gateway, wall: ChatWall
) -> None:
    """No word comes any more: nothing stays held."""
    secret = key(gateway, concurrent=1, quota=[{"tokens": 220, "per": "ever"}])
    never = Moment()
    leave(gateway, wall, secret, never)
    logged = len(gateway.log)
    gateway.logged('"event":"drained"', '"told":false', since=logged, limit=30.0)
    assert gateway.chat({**CHAT, "max_tokens": 180}, key=secret).status == 200
    never.set()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_record_is_kept_once_although_the_rest_was_never_heard(
    wall: ChatWall, tmp_path: Path, end: signal.Signals
) -> None:
    """By what had been said; and what was used is used after a restart, too."""
    go_on = Moment()
    with running_gateway(tmp_path, config(wall)) as gateway:
        once = key(gateway, quota=[{"requests": 1, "per": "ever"}])
        leave(gateway, wall, once, go_on)
        gateway.stop(end)
    go_on.set()
    with running_gateway(tmp_path, config(wall)) as gateway:
        assert gateway.chat(CHAT, key=once).status == 429
        gateway.stop()
    ((status, source, tokens),) = rows(tmp_path, "status_code, usage_source, completion_tokens")
    assert (status, source) == (499, "estimated")
    assert 2 <= tokens <= 5


def test_a_record_is_corrected_once_although_the_process_is_killed(
    wall: ChatWall, tmp_path: Path
) -> None:
    """The database is locked meanwhile: both lines are moved by the next process."""
    go_on = Moment()
    with running_gateway(tmp_path, config(wall)) as gateway:
        secret = key(gateway, quota=[{"tokens": 220, "per": "ever"}])
        assert gateway.ask("/v1/usage", key=secret).status == 200  # it is known from now on
        with locked(tmp_path):
            leave(gateway, wall, secret, go_on)
            go_on.set()
            until(lambda: b'"corrects":true' in journal(tmp_path), 10.0, "it is not corrected")
            gateway.stop(signal.SIGKILL)
    with running_gateway(tmp_path, config(wall)) as gateway:
        assert gateway.chat({**CHAT, "max_tokens": 203}, key=secret).status == 429
        assert gateway.chat({**CHAT, "max_tokens": 202}, key=secret).status == 200
        until(lambda: len(rows(tmp_path, "id")) == 2, 15.0, "one is missing")
        gateway.stop()
    told = rows(tmp_path, "status_code, usage_source, total_tokens")
    assert told == [(499, "upstream", 10), (200, "upstream", 10)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else can write to the database."""
    with closing(sqlite3.connect(folder / "manyways.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def journal(folder: Path) -> bytes:
    """What stands in it."""
    return b"".join(path.read_bytes() for path in (folder / "manyways-journal").glob("*.jsonl"))


def rows(folder: Path, columns: str) -> list[tuple[Any, ...]]:
    """Of all requests, in their order."""
    with closing(sqlite3.connect(folder / "manyways.db")) as connection:
        query = f"SELECT {columns} FROM usage_stats ORDER BY id"  # noqa: S608
        return connection.execute(query).fetchall()
