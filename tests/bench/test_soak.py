"""The soak: its upstream fails in every way there is, and its verdicts can be trusted."""

import asyncio
import json
import random
from collections import Counter

import pytest
from bench.soak import Look, growth, judged, slope
from bench.target import Target
from bench.unruly import FAULTS, Unruly
from bench.upstream import Metronome, at_once

from bench import wire
from tests.support.virtual_time import VirtualLoop, virtual_time

WHOLE = wire.WHOLE_BODY
STREAM = b"".join((wire.ROLE_EVENT, *wire.WORD_EVENTS, wire.FINISH_EVENT, wire.DONE_EVENT))
ERROR = json.dumps({"error": {"message": "All failed.", "code": "all_models_failed"}}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "stream", "verdict"),
    [
        (200, WHOLE, False, "whole"),
        (200, STREAM, True, "whole"),
        (200, b": keep-alive\n\n" + STREAM, True, "whole"),
        (503, ERROR, False, "an error"),
        (503, ERROR, True, "an error"),
        (200, STREAM[:9000].rpartition(b"data: ")[0] + b"data: " + ERROR, True, "an error event"),
        (200, STREAM.replace(b"kalo", b"kolo"), True, "other words"),
        (200, WHOLE.replace(b"kaka0", b"kaka1"), False, "other words"),
        (200, STREAM.replace(wire.WORD_EVENTS[7], b""), True, "other words"),
        (200, STREAM[:9000], True, "broken"),
        (200, STREAM.removesuffix(wire.DONE_EVENT), True, "broken"),
        (200, WHOLE[:500], False, "broken"),
        (200, b"", False, "broken"),
        (502, b"<html>", False, "status 502 without a reason"),
    ],
)
def test_only_what_is_whole_or_says_that_it_is_not_is_honest(
    status: int, answer: bytes, stream: bool, verdict: str
) -> None:
    assert judged(status, answer, stream=stream) == verdict


def test_a_slope_is_that_of_the_line_through_all_points() -> None:
    assert slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert slope([(0, 1), (1, -1), (2, 1), (3, -1)]) == pytest.approx(-0.4)
    assert slope([(3, 4), (3, 9)]) == slope([]) == 0


def _looks(memory: list[float]) -> list[Look]:
    return [Look(minute, megabytes, 100, 10, 5) for minute, megabytes in enumerate(memory)]


@pytest.mark.parametrize(
    ("memory", "level"),
    [
        ([50, 90, *[100] * 20], True),  # it grows while it begins
        ([100 + minute / 20 for minute in range(60)], True),  # 1.5 MB in half an hour
        ([100 + minute / 5 for minute in range(60)], False),
        ([100 - minute for minute in range(60)], True),
    ],
)
def test_what_grows_in_the_second_half_is_not_level(memory: list[float], level: bool) -> None:
    hourly, added, verdict = growth(_looks(memory), "memory")
    assert verdict is level
    assert hourly == pytest.approx(60 * slope(list(enumerate(memory[len(memory) // 2 :]))))
    assert added <= hourly or hourly <= 0
    assert growth(_looks(memory), "descriptors") == (0, 0, True)


class Wire(asyncio.Transport):
    """A transport that keeps what was written, and when it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.written += data

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "reset"


async def _failed(fault: str) -> Wire:
    """A connection, a minute after it was asked something and failed in this way."""

    class Failing(Unruly):
        def _answer(self, head: bytes, body: bytes) -> None:
            (chosen,) = (one for one in FAULTS if one.__name__ == fault)
            chosen(self, body)

    metronome = Metronome(asyncio.get_running_loop())
    chance, counts = random.Random(7), Counter[str]()
    connection = Failing(metronome, faults=1.0, chance=chance, counts=counts)
    sent = Wire()
    connection.connection_made(sent)
    connection.data_received(Target(port=1).request(wire.question(stream=False)))
    await asyncio.sleep(60)
    return sent


@pytest.mark.parametrize(
    ("fault", "ended", "said"),
    [
        ("reset", "reset", "nothing"),
        ("silence", "", "nothing"),
        ("stall", "", "half"),
        ("cut", "closed", "half"),
        ("tear", "reset", "half"),
        ("garble", "closed", "other things"),
        ("nonsense", "closed", "other things"),
        ("refuse", "", "other things"),
        ("dribble", "", "all"),
        ("leave", "closed", "all"),
        ("linger", "reset", "all"),
    ],
)
def test_every_fault_is_what_it_says(fault: str, ended: str, said: str) -> None:
    with virtual_time() as run:
        sent = run(_failed(fault))
    whole = at_once(wire.question(stream=False))
    assert sent.ended == ended
    if said == "half":
        assert whole.startswith(sent.written)
        assert 0 < len(sent.written) < len(whole)
    elif said == "other things":
        assert sent.written
        assert not whole.startswith(sent.written)
    else:
        assert sent.written == (whole if said == "all" else b"")


def test_faults_are_counted_and_told() -> None:
    loop, sent = VirtualLoop(), Wire()
    counts = Counter(refuse=3)
    connection = Unruly(Metronome(loop), faults=1.0, chance=random.Random(7), counts=counts)
    connection.connection_made(sent)
    connection.data_received(b"GET /faults HTTP/1.1\r\n\r\n")
    loop.close()
    assert sent.written.endswith(b'{"refuse": 3}')


def test_every_fault_was_looked_at() -> None:
    (mark,) = test_every_fault_is_what_it_says.pytestmark  # type: ignore[attr-defined]
    assert [fault for fault, *_ in mark.args[1]] == [one.__name__ for one in FAULTS]
