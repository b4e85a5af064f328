"""The open-loop load: its schedule holds, and a stall is charged for all it delays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from bench.openloop import Outcome, Plan, is_whole, load

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


class Answerer(asyncio.Protocol):
    """Answers each request at once, but none before `opens` (of the loop's clock)."""

    def __init__(self, opens: float, answer: bytes) -> None:
        self._opens = opens
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        answers = self._answer * data.count(b"POST")
        loop.call_at(max(self._opens, loop.time()), self._transport.write, answers)


@asynccontextmanager
async def answering(*, stall: float = 0.0, answer: bytes = ANSWER) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    opens = loop.time() + stall
    server = await loop.create_server(lambda: Answerer(opens, answer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _run(port: int, *, rate: int = 200, seconds: float = 0.3) -> Outcome:
    plan = Plan(port=port, request=REQUEST, rate=rate, seconds=seconds, warmup=0.0)
    return await load(plan)


async def test_every_request_of_the_schedule_is_answered_and_counted_once() -> None:
    async with answering() as port:
        outcome = await _run(port)
    assert len(outcome.latencies) == 60
    assert (outcome.unanswered, outcome.wrong) == (0, 0)
    assert min(outcome.latencies) >= 0


async def test_a_stall_is_charged_for_everyone_who_came_meanwhile() -> None:
    async with answering(stall=0.2) as port:
        outcome = await _run(port)
    # Due at 5, 10, 15 ... ms, all let go at 200 ms at the earliest: waits of 195, 190, 185 ...
    waited = sorted(outcome.latencies, reverse=True)
    assert len(waited) == 60
    # The stall was counted from a moment before the schedule began: leave it 50 ms of room.
    assert all(wait >= 150_000 - 5_000 * number for number, wait in enumerate(waited[:30]))


async def test_refusals_are_no_answers() -> None:
    async with answering(answer=ANSWER.replace(b"200 OK", b"503 No")) as port:
        outcome = await _run(port, seconds=0.05)
    assert outcome.wrong == len(outcome.latencies) == 10


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (ANSWER, True),
        (ANSWER[:-1], False),
        (ANSWER[:20], False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
    ],
)
def test_an_answer_is_whole_when_its_framing_says_so(answer: bytes, whole: bool) -> None:
    assert is_whole(answer) is whole


async def test_each_request_has_the_next_of_the_keys_in_place_of_the_first() -> None:
    heard: list[bytes] = []

    class Listener(Answerer):
        def data_received(self, data: bytes) -> None:
            heard.extend(data.split(b"key-")[1:])
            super().data_received(data)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Listener(loop.time(), ANSWER), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        request = b"POST / HTTP/1.1\r\nContent-Length: 0\r\nX-Key: key-1\r\n\r\n"
        secrets = (b"key-1", b"key-2", b"key-3")
        plan = Plan(port=port, request=request, rate=200, seconds=0.3, warmup=0.0, secrets=secrets)
        await load(plan)
    counts = [sum(one.startswith(digit) for one in heard) for digit in (b"1", b"2", b"3")]
    assert counts == [20, 20, 20]
