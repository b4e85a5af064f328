"""`Idempotency-Key` across a kill: who has all of an answer gets it again."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.support.chat_wall import Speech, chat_wall
from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.wall import Pause, Request, Script

pytestmark = pytest.mark.process

CALLERS = 100
QUICKLY = 0.3
"""Seconds within which the provider answers."""


class Heard(NamedTuple):
    body: bytes
    id: str
    original: str | None


def test_whoever_had_an_answer_before_a_kill_gets_it_again_behind_it(tmp_path: Path) -> None:
    chance = Random()

    def answer(request: Request) -> Script:
        return (Pause(chance.uniform(0.0, QUICKLY)), *Speech()(request))

    with chat_wall() as wall:
        wall.answer = answer
        config = provider(wall.wall.url, "m")
        with running_gateway(tmp_path, config) as gateway:
            first = asyncio.run(answers_until_killed(gateway))
        assert len(first) > CALLERS / 3
        wall.wall.requests.clear()
        with running_gateway(tmp_path, config) as gateway:
            again = asyncio.run(answers_to(gateway, list(first)))
        assert {name: (one.body, one.original) for name, one in again.items()} == {
            name: (one.body, one.id) for name, one in first.items()
        }
        assert wall.requests == []
    with closing(sqlite3.connect(tmp_path / "manyways.db")) as database:
        rows = {row[0] for row in database.execute("SELECT id FROM usage_stats")}
    assert {one.id for one in first.values()} <= rows
    assert {one.id for one in again.values()}.isdisjoint(rows)


async def answers_until_killed(gateway: Gateway) -> dict[int, Heard]:
    """A third of the way through the answers, the gateway is killed; those that came whole."""
    heard: dict[int, Heard] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> None:
            try:
                heard[number] = await ask(session, gateway, number)
            except aiohttp.ClientError:
                return
            if len(heard) > CALLERS / 3:
                gateway.stop(signal.SIGKILL)

        await asyncio.gather(*(one(number) for number in range(CALLERS)))
    return heard


async def answers_to(gateway: Gateway, numbers: list[int]) -> dict[int, Heard]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        heard = await asyncio.gather(*(ask(session, gateway, number) for number in numbers))
    return dict(zip(numbers, heard, strict=True))


async def ask(session: aiohttp.ClientSession, gateway: Gateway, number: int) -> Heard:
    """Every other one a stream. Raises `aiohttp.ClientError` where it is cut off."""
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": f"number {number}"}],
        "stream": number % 2 == 0,
    }
    headers = {"Authorization": f"Bearer {gateway.key}", "Idempotency-Key": f"number {number}"}
    url = f"{gateway.root}/v1/chat/completions"
    async with session.post(url, json=body, headers=headers) as answer:
        told = answer.headers
        content = await answer.read()
        assert answer.status == 200, content
        return Heard(content, told["X-Request-Id"], told.get("X-Original-Request-Id"))
