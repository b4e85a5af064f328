"""What keeps a caller company while a provider is silent."""

import asyncio

import pytest

from manyways.attempts.reply import PatientReply
from manyways.errors import CallerLeft
from tests.support.virtual_time import virtual_time

COMMENT = b": keep-alive\n\n"


class Paper:
    """A reply that remembers what was written when; `takes` seconds for each write."""

    def __init__(self, takes: float = 0.0) -> None:
        self.started = False
        self.lines: list[tuple[float, bytes]] = []
        self._takes = takes
        self._began = asyncio.get_running_loop().time()
        self._writing = False

    async def start(self) -> None:
        assert not self.started
        self.started = True

    async def write(self, data: bytes) -> None:
        assert self.started
        assert not self._writing, "one write is under way at a time"
        self._writing = True
        self.lines.append((self._now(), data))
        await asyncio.sleep(self._takes)
        self._writing = False

    async def end(self, data: bytes) -> None:
        self.lines.append((self._now(), data))

    def _now(self) -> float:
        return round(asyncio.get_running_loop().time() - self._began, 3)


def test_silence_commits_the_status_and_brings_a_comment_every_ten_seconds() -> None:
    async def live() -> Paper:
        paper = Paper()
        with PatientReply(paper, 10.0, 60.0):
            await asyncio.sleep(9.9)
            assert not paper.started, "until then a failure is still an HTTP error"
            await asyncio.sleep(25)
        await asyncio.sleep(100)
        return paper

    with virtual_time() as run:
        assert run(live()).lines == [(10.0, COMMENT), (20.0, COMMENT), (30.0, COMMENT)]


def test_no_comment_comes_before_a_late_first_token_is_told_so() -> None:
    async def live(first: float) -> Paper:
        paper = Paper()
        with PatientReply(paper, 10.0, 60.0, first):
            await asyncio.sleep(15)
        return paper

    with virtual_time() as run:
        assert run(live(first=10.0)).lines == [(11.0, COMMENT)]
        assert run(live(first=30.0)).lines == [(10.0, COMMENT)]


def test_what_is_written_puts_the_next_comment_off() -> None:
    async def live() -> Paper:
        paper = Paper()
        with PatientReply(paper, 10.0, 60.0) as patient:
            for _ in range(4):
                await asyncio.sleep(6)
                await patient.write(b"data: x\n\n")
            await asyncio.sleep(11)
        return paper

    with virtual_time() as run:
        assert [when for when, what in run(live()).lines if what == COMMENT] == [34.0]


def test_a_comment_never_stands_inside_an_event() -> None:
    async def live() -> Paper:
        paper = Paper(takes=3.0)
        with PatientReply(paper, 10.0, 60.0) as patient:
            await asyncio.sleep(11)  # a comment is under way
            await patient.write(b"data: x\n\n")
            await patient.settle()
        return paper

    with virtual_time() as run:
        assert run(live()).lines == [(10.0, COMMENT), (13.0, b"data: x\n\n")]


def test_a_caller_that_reads_no_comment_is_given_up() -> None:
    async def live() -> None:
        paper = Paper(takes=1000.0)
        with PatientReply(paper, 10.0, 60.0) as patient:
            await asyncio.sleep(15)
            with pytest.raises(CallerLeft):
                await patient.write(b"data: x\n\n")

    with virtual_time() as run:
        run(live())


def test_nothing_is_left_running_behind_it() -> None:
    async def live() -> set[asyncio.Task[object]]:
        with PatientReply(Paper(takes=1000.0), 10.0, 60.0):
            await asyncio.sleep(15)
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    with virtual_time() as run:
        assert run(live()) == set()
