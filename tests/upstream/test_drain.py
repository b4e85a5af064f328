"""Left answers are read to their end, within bounds, and tell their usage."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Raw

from manyways.errors import CallerLeft
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.drain import Drains
from manyways.upstream.transport import Response, Transport
from tests.support.wall import END, Close, Moment, Send, Stall, WaitFor, Wall, head, piece, whole
from tests.upstream.exchange import ask, until

USAGE = {"prompt_tokens": 3, "completion_tokens": 7}
WORD = piece(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
LAST = piece(f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n".encode())
NO_USAGE = piece(b'data: {"usage": null}\n\n')
BEGINNING = Send(head(chunked=True) + WORD)
REST = (Send(LAST), Send(END))


class Reported(list[tuple[object, Any]]):
    def __call__(self, context: object, usage: Raw | None) -> None:
        self.append((context, None if usage is None else json.loads(bytes(usage))))


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = AiohttpTransport()
    yield transport
    await transport.aclose()


@pytest.fixture
async def wall() -> AsyncIterator[Wall]:
    async with Wall() as wall:
        yield wall


@pytest.fixture
def reported() -> Reported:
    return Reported()


@pytest.fixture
async def drains(reported: Reported) -> AsyncIterator[Drains]:
    drains = Drains(reported, at_once=2)
    yield drains
    await drains.aclose()


async def begun(transport: Transport, wall: Wall) -> Response:
    """An answer of which the first word has been read."""
    response = await ask(transport, wall.url)
    assert await response.chunk()
    return response


def is_empty(drains: Drains) -> bool:
    return repr(drains) == "<Drains 0 of 2>"


async def test_the_rest_is_read_its_usage_told_and_the_connection_given_back(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    go_on = Moment()
    wall.answer = (BEGINNING, WaitFor(go_on), *REST)
    response = await begun(transport, wall)
    assert drains.take(response, 5.0, "Capi")
    assert repr(drains) == "<Drains 1 of 2>"
    assert reported == []
    go_on.set()
    await until(lambda: is_empty(drains))
    assert reported == [("Capi", USAGE)]
    assert repr(transport) == "<AiohttpTransport in_use=0 idle=1>"


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ([NO_USAGE, LAST, NO_USAGE], USAGE),
        ([piece(b'data: {"usage": {"a": 1}}\n\n'), LAST], USAGE),
        ([LAST[: len(LAST) // 2], LAST[len(LAST) // 2 :]], USAGE),
        ([piece(b'data: {"usage": {"a": 1}}')], {"a": 1}),
        ([piece(b'data: {"usage": {"a": 1}\n\ndata: {"usage": []}\n\n')], None),
        ([piece(b'data: {"usage": {}}\n\ndata: {"usage": "14"}\n\n')], None),
        ([piece(b"what is no event")], None),
        ([], None),
    ],
)
async def test_the_last_usage_counts(
    transport: Transport, wall: Wall, rest: list[bytes], told: dict[str, Any] | None
) -> None:
    go_on, reported = Moment(), Reported()
    drains = Drains(reported, at_once=2)
    wall.answer = (BEGINNING, WaitFor(go_on), *map(Send, rest), Send(END))
    assert drains.take(await begun(transport, wall), 5.0)
    go_on.set()
    await until(lambda: is_empty(drains))
    assert reported == [(None, told)]


async def test_a_whole_answer_tells_its_usage_too(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    body = json.dumps({"choices": [{"message": {"content": "a"}}], "usage": USAGE}).encode()
    wall.answer = whole(body, 200, [("Content-Type", "application/json")])
    assert drains.take(await ask(transport, wall.url), 5.0, "Capi")
    await until(lambda: is_empty(drains))
    assert reported == [("Capi", USAGE)]


async def test_whoever_goes_on_listening_hears_all_that_comes(
    transport: Transport, wall: Wall, drains: Drains
) -> None:
    """From where the answer was left, even inside an event."""
    go_on, heard = Moment(), bytearray()
    wall.answer = (BEGINNING, WaitFor(go_on), *REST)
    assert drains.take(await begun(transport, wall), 5.0, hears=heard.extend)
    go_on.set()
    await until(lambda: is_empty(drains))
    assert piece(bytes(heard)) == LAST

    heard.clear()
    wall.answer = whole(b'{"choices": []}', 200, [("Content-Type", "application/json")])
    assert drains.take(await ask(transport, wall.url), 5.0, hears=heard.extend)
    await until(lambda: is_empty(drains))
    assert heard == b'{"choices": []}'


async def test_who_gave_a_context_is_told_when_its_answer_is_over(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    """Behind its usage, and once."""
    go_on, mine, other = Moment(), ["the same"], ["the same"]
    over: list[Any] = []
    wall.answer = (BEGINNING, WaitFor(go_on), *REST)
    assert drains.take(await begun(transport, wall), 5.0, mine)
    assert drains.then(mine, lambda: over.append(list(reported)))
    assert not drains.then(other, lambda: over.append("another's"))
    go_on.set()
    await until(lambda: bool(over))
    assert over == [[(mine, USAGE)]]
    assert reported[0][0] is mine
    assert not drains.then(mine, lambda: over.append("too late"))


@pytest.mark.parametrize("end", ["heard", "failed", "one too many", "refused", "left in time"])
async def test_an_answer_that_is_not_taken_over_is_over_when_it_is_closed(
    transport: Transport, wall: Wall, reported: Reported, end: str
) -> None:
    """Whoever asks while it may still be taken over is told all the same, once."""
    drains = Drains(reported, at_once=0 if end in ("one too many", "left in time") else 2)
    go_on, context, over = Moment(), object(), list[str]()
    wall.answer = (WaitFor(go_on), BEGINNING, *REST)
    if end == "refused":
        wall.answer = (WaitFor(go_on), Close())

    async def attempt() -> None:
        async with await drains.ask(ask(transport, wall.url), 5.0, context) as response:
            await response.chunk()
            if end == "failed":
                raise ValueError("nonsense")
            if end == "one too many":
                raise CallerLeft("gone")
            while await response.chunk():
                pass

    task = asyncio.create_task(attempt())
    await until(lambda: wall.open_connections > 0)
    assert drains.then(context, lambda: over.append("over"))
    if end == "left in time":
        task.cancel()
    else:
        go_on.set()
    await asyncio.wait({task})
    assert over == ["over"]
    assert not drains.then(context, lambda: over.append("again"))
    assert (over, reported, drains.taken) == (["over"], [], 0)
    assert task.cancelled() or (task.exception() is None) == (end == "heard")
    go_on.set()


async def test_an_answer_that_is_cut_still_tells_what_came(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    go_on = Moment()
    wall.answer = (BEGINNING, WaitFor(go_on), Send(LAST), Close())
    assert drains.take(await begun(transport, wall), 5.0, "Capi")
    go_on.set()
    await until(lambda: is_empty(drains))
    assert reported == [("Capi", USAGE)]


async def test_nothing_is_read_for_longer_than_its_limit(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    wall.answer = (BEGINNING, Stall())
    assert drains.take(await begun(transport, wall), 0.01, "Capi")
    await wall.deserted().wait()
    await until(lambda: is_empty(drains))
    assert reported == [("Capi", None)]
    assert repr(transport) == "<AiohttpTransport in_use=0 idle=0>"


async def test_one_too_many_stays_with_who_asked(
    transport: Transport, wall: Wall, drains: Drains
) -> None:
    wall.answer = (BEGINNING, Stall())
    responses = [await begun(transport, wall) for _ in range(3)]
    assert [drains.take(response, 5.0) for response in responses] == [True, True, False]
    assert (repr(drains), drains.taken) == ("<Drains 2 of 2>", 2)
    async with responses[2]:
        pass
    assert wall.open_connections >= 2


async def test_closing_closes_what_is_drained_even_if_it_has_not_begun(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    wall.answer = (BEGINNING, Stall())
    assert drains.take(await begun(transport, wall), 60.0)
    late = await begun(transport, wall)
    assert drains.take(late, 60.0)
    await drains.aclose()
    await wall.deserted().wait()
    assert repr(drains) == "<Drains 0 of 2 closed>"
    assert not drains.take(late, 60.0)
    assert reported == [(None, None), (None, None)]


async def listening(
    transport: Transport,
    wall: Wall,
    drains: Drains,
    heard: list[bytes],
    *,
    leaves: Exception | None = None,
) -> None:
    """An attempt: reads an answer to its end, or up to the first chunk if it `leaves`."""
    async with drains.keep(await ask(transport, wall.url), 5.0, "Capi") as response:
        assert (response.status, response.headers["Transfer-Encoding"]) == (200, "chunked")
        while chunk := await response.chunk():
            heard.append(chunk)
            if leaves is not None:
                raise leaves


async def test_an_answer_survives_the_cancelling_of_who_waits_for_it(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    go_on = Moment()
    wall.answer = (BEGINNING, WaitFor(go_on), *REST)
    heard: list[bytes] = []
    attempt = asyncio.create_task(listening(transport, wall, drains, heard))
    await until(lambda: bool(heard))
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert repr(drains) == "<Drains 1 of 2>"
    go_on.set()
    await until(lambda: is_empty(drains))
    assert reported == [("Capi", USAGE)]


@pytest.mark.parametrize("opening", [(), (BEGINNING,)])
async def test_an_answer_that_was_asked_for_is_heard_on_whenever_it_is_left(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported, opening: tuple[Send, ...]
) -> None:
    """Before its headers, or behind its first word."""
    go_on, heard, context = Moment(), bytearray(), object()
    rest = REST if opening else (BEGINNING, *REST)
    wall.answer = (*opening, WaitFor(go_on), *rest)
    read: list[bytes] = []

    async def attempt() -> None:
        sending = ask(transport, wall.url)
        asked = await drains.ask(sending, 5.0, context, hears=heard.extend)
        async with asked as response:
            while chunk := await response.chunk():
                read.append(chunk)

    task = asyncio.create_task(attempt())
    await until(lambda: bool(read) if opening else wall.open_connections > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    over: list[int] = []
    assert drains.then(context, lambda: over.append(len(reported)))
    go_on.set()
    await until(lambda: is_empty(drains))
    assert (over, reported) == ([1], [(context, USAGE)])
    assert piece(bytes(heard)).endswith(LAST.partition(b"\r\n")[2])


async def test_an_answer_is_kept_when_its_caller_left_between_two_chunks(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    go_on = Moment()
    wall.answer = (BEGINNING, WaitFor(go_on), *REST)
    with pytest.raises(CallerLeft):
        await listening(transport, wall, drains, [], leaves=CallerLeft("gone"))
    go_on.set()
    await until(lambda: is_empty(drains))
    assert reported == [("Capi", USAGE)]


async def heard_out(transport: Transport, wall: Wall, drains: Drains) -> None:
    async with drains.keep(await ask(transport, wall.url), 5.0) as response:
        while await response.chunk():
            pass
        raise CallerLeft("after the end")


async def test_an_answer_heard_to_its_end_is_not_drained(
    transport: Transport, wall: Wall, drains: Drains, reported: Reported
) -> None:
    wall.answer = (BEGINNING, *REST)
    await listening(transport, wall, drains, [])
    with pytest.raises(CallerLeft):
        await heard_out(transport, wall, drains)
    assert (drains.taken, reported) == (0, [])
    assert repr(transport) == "<AiohttpTransport in_use=0 idle=1>"


async def test_an_answer_that_failed_is_closed_at_once(
    transport: Transport, wall: Wall, drains: Drains
) -> None:
    wall.answer = (BEGINNING, Stall())
    with pytest.raises(ValueError, match="nonsense"):
        await listening(transport, wall, drains, [], leaves=ValueError("nonsense"))
    await wall.deserted().wait()
    assert drains.taken == 0


async def test_an_answer_that_is_kept_is_closed_when_there_are_too_many(
    transport: Transport, wall: Wall, reported: Reported
) -> None:
    wall.answer = (BEGINNING, Stall())
    none = Drains(reported, at_once=0)
    heard: list[bytes] = []
    attempt = asyncio.create_task(listening(transport, wall, none, heard))
    await until(lambda: bool(heard))
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await wall.deserted().wait()
    assert repr(transport) == "<AiohttpTransport in_use=0 idle=0>"
