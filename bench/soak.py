"""Whether a gateway stays as it is: a steady load, an upstream that fails in every way, callers
who leave, for as long as is asked.

python -m bench soak [--minutes 60] [--rate 300] [--transport native]

A real gateway has three providers for one model, all of them the same unruly upstream
(`unruly.py`), of whose answers one in twenty goes wrong. Callers come at a fixed rate whatever
becomes of the others; some want streams, one in a hundred leaves in the middle. Every answer has to
be whole, to the word, or an error that says so. What the gateway holds is looked at all the while:
resident memory, descriptors, connections to the upstream. Both memory and descriptors are to be
level in the second half, and of the connections none is to be left a while after the last caller.
"""

import asyncio
import collections
import contextlib
import json
import random
import tempfile
import time
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from bench import peers, wire, works
from bench.bare import Bare
from bench.figures import percentile, readable
from bench.install import HERE
from bench.process import Process, free_port
from bench.target import Target
from bench.works import Subject
from manyways.upstream.transport import Limits

RATE: Final = 300
"""Requests a second, where nothing else is said."""
FAULTS: Final = 0.05
"""The share of the upstream's answers that go wrong."""
LEAVING: Final = 0.01
"""The share of callers that leave before the end."""
SAMPLES: Final = 30
"""Looks at the gateway, at least; one a minute, at most."""
LEVEL: Final = 0.02
"""What the second half of the time may add to memory and descriptors, as a share of them."""
_LEAST: Final = {"memory": 2.0, "descriptors": 20.0}
"""What does not count as growth: megabytes, and descriptors."""

TOO_MANY: Final = "not let in: too many at once"

_TICK: Final = 0.01
_MOST: Final = 4000  # callers at once: who comes then is counted, not served
_SPARE: Final = 64  # idle connections to the gateway that are kept from one look to the next
_PATIENCE: Final = 40.0  # seconds until a caller takes an answer for lost
_LEFT: Final = 60.0  # seconds within which idle connections are closed
_PROVIDERS: Final = 3
_UNLIMITED: Final = Limits(connect=60, headers=60, idle=60)
_CONFIG: Final = """\
[database]
url = "sqlite:///{folder}/bench.db"

{over}
[routing]
connect_timeout = "2s"
first_token_timeout = "2s"
idle_timeout = "2s"
answer_timeout = "3s"
deadline = "20s"
"""
_PROVIDER: Final = """\
[[providers]]
name = "bench{number}"
protocol = "openai"
base_url = "{upstream}"
api_key = "x"

[[providers.models]]
id = "{model}"

"""
_KINDS: Final = (  # whether it is a stream, its pace, and how many of ten callers want it
    (False, wire.DENSE, 7),
    (True, wire.DENSE, 2),
    (True, wire.PACED, 1),
)
_HONEST: Final = ("whole", "an error", "an error event", "left by its caller", "turned away")
"""The last: the connection was refused, or closed before anything was answered."""


class Look(NamedTuple):
    """What a gateway held, `minute` minutes after the start: resident megabytes, descriptors of
    all its processes but for its callers' connections, connections to the upstream, callers under
    way; and the processor seconds it had used."""

    minute: float
    memory: float
    descriptors: int
    connections: int
    callers: int
    processor: float = 0.0


class Callers:
    """They come at a rate; `ends` counts what became of them."""

    def __init__(self, target: Target, rate: int, chance: random.Random) -> None:
        self.ends: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        """Of whole answers that came whole, the latest."""
        self.worst = 0.0
        """The longest that any end took, in seconds."""
        self._target = target
        self._rate = rate
        self._chance = chance
        self._transport = Bare(target.port)
        self._headers = [("Content-Type", "application/json"), *target.headers.items()]
        self._bodies = [
            (stream, wire.question(stream=stream, pace=pace, model=target.model))
            for stream, pace, share in _KINDS
            for _ in range(share)
        ]
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    async def come(self, seconds: float) -> None:
        """At the rate, for so long."""
        began = time.monotonic()
        sent = 0
        while (passed := time.monotonic() - began) < seconds:
            due = int(passed * self._rate)
            for _ in range(due - sent):
                if len(self._tasks) < _MOST:
                    self._begin(self._one())
                else:
                    self.ends[TOO_MANY] += 1
            sent = due
            await asyncio.sleep(_TICK)

    async def go(self) -> None:
        """Until the last one has its end."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._transport.aclose()

    def spare(self) -> None:
        """Close the connections that were opened for a crowd."""
        self._transport.keep(_SPARE)

    def _begin(self, one: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(one)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self) -> None:
        stream, body = self._chance.choice(self._bodies)
        began = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                end = await self._asked(stream, body, leaves=self._chance.random() < LEAVING)
        except TimeoutError:
            end = "no end"
        except OSError:
            end = "cut"
        took = time.monotonic() - began
        self.worst = max(self.worst, took)
        if end == "whole" and not stream:
            self.seconds.append(took)
            del self.seconds[:-10_000]
        self.ends[end] += 1

    async def _asked(self, stream: bool, body: bytes, *, leaves: bool) -> str:
        sending = self._transport.send("POST", self._target.url, self._headers, body, _UNLIMITED)
        if leaves and not stream:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.random() * 0.005):
                    await sending
            return "left by its caller"
        try:
            response = await sending
        except OSError:
            return "turned away"
        async with response:
            if leaves:
                await response.chunk()
                return "left by its caller"
            answer = await response.body(1 << 20)
        return judged(response.status, answer, stream=stream)


def judged(status: int, answer: bytes, *, stream: bool) -> str:
    """What an answer is: whole or an honest error, or else what is wrong with it."""
    if status != 200:
        try:
            json.loads(answer)["error"]["message"]
        except (ValueError, LookupError, TypeError):
            return f"status {status} without a reason"
        return "an error"
    try:
        text = wire.streamed_text(answer) if stream else wire.whole_text(answer)
    except ValueError:
        last = answer.rstrip().rpartition(b"\n\n")[2]
        return "an error event" if last.startswith(b'data: {"error"') else "broken"
    expected = wire.STREAMED_TEXT if stream else wire.WHOLE_TEXT
    return "whole" if text == expected else "other words"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second grows while the first grows by one: the line of least squares.

    0 where there are no two different ones.
    """
    if not points:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    width = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / width if width else 0.0


def growth(looks: Sequence[Look], what: str) -> tuple[float, float, bool]:
    """What a line through the second half of the looks adds to `memory` or `descriptors`: in an
    hour, from that half's beginning to its end, and whether that is level."""
    half = looks[len(looks) // 2 :]
    points = [(look.minute, float(getattr(look, what))) for look in half]
    a_minute = slope(points)
    added = a_minute * (half[-1].minute - half[0].minute)
    allowed = max(_LEAST[what], LEVEL * sum(y for _, y in points) / len(points))
    return a_minute * 60, added, added <= allowed


def main(
    console: Console, *, minutes: float, rate: int, transport: str, cores: tuple[int, int]
) -> int:
    """Load, look, tell: 0 where all was honest, level, and closed in the end; else 1."""
    with tempfile.TemporaryDirectory(prefix="manyways-soak-") as name:
        folder = Path(name)
        port = free_port()
        command = [*works.python_module("bench.unruly"), "--port", str(port)]
        command += ["--faults", str(FAULTS)]
        log = folder / "upstream.log"
        with (
            Process(command, core=cores[1], log=log, cwd=HERE.parent) as upstream,
            _gateway(folder, port, transport, cores[0]) as subject,
        ):
            upstream.check()
            callers, looks = uvloop.run(_load(console, subject, port, minutes, rate))
            left = _closed(subject, port)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/faults", timeout=20) as page:
                faults = json.loads(page.read())
            subject.process.check() if subject.process else None
    return _tell(console, callers, looks, left, faults)


@contextlib.contextmanager
def _gateway(folder: Path, upstream: int, transport: str, core: int) -> Iterator[Subject]:
    place = peers.Place(port=free_port(), upstream=upstream, folder=folder)
    text = _CONFIG.format(folder=folder, over=peers.over(transport))
    for number in range(1, _PROVIDERS):  # the last one is in every configuration
        text += _PROVIDER.format(number=number, upstream=place.upstream_url, model=wire.MODEL)
    launch = peers.manyways(place, peers.manyways_config(place, text))
    with Process(launch.command, core=core, log=folder / "output.log", cwd=folder) as process:
        target = Target(port=place.port, headers=launch.headers)
        subject = Subject(name="gateway", target=target, process=process, streams=True)
        works.first_answer(process, subject, limit=90.0)
        yield subject


async def _load(
    console: Console, subject: Subject, upstream: int, minutes: float, rate: int
) -> tuple[Callers, list[Look]]:
    callers = Callers(subject.target, rate, random.Random(1))
    looks: list[Look] = []
    began = time.monotonic()
    pause = min(60.0, minutes * 60 / SAMPLES)
    coming = asyncio.create_task(callers.come(minutes * 60))
    while not coming.done():
        await asyncio.wait([coming], timeout=pause)
        callers.spare()
        look = _look(subject, upstream, (time.monotonic() - began) / 60, callers.under_way)
        looks.append(look)
        ends = ", ".join(f"{count:,} {end}" for end, count in callers.ends.most_common())
        console.print(
            f"{look.minute:6.1f} min  {look.memory:6.1f} MB  {look.descriptors:4} descriptors"
            f"  {look.connections:4} to the upstream  {look.callers:4} callers"
            f"  busy {_busy(looks):4.0%}   {ends}",
            highlight=False,
            soft_wrap=True,
        )
    await coming
    await callers.go()
    return callers, looks


def _look(subject: Subject, upstream: int, minute: float, callers: int) -> Look:
    process = subject.process
    assert process is not None
    process.check()
    descriptors = 0
    for pid in process.tree():
        with contextlib.suppress(OSError):
            descriptors += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    descriptors -= _connections(subject.target.port, _LOCAL)
    megabytes, connections = process.memory() / 1e6, _connections(upstream, _REMOTE)
    return Look(minute, megabytes, descriptors, connections, callers, process.cpu())


def _busy(looks: Sequence[Look]) -> float:
    """The share of its core that the gateway took between the latest two looks."""
    if len(looks) < 2:
        return 0.0
    before, now = looks[-2:]
    return (now.processor - before.processor) / (now.minute - before.minute) / 60


def _connections(port: int, end: int) -> int:
    """Those that are held open with this port at one end (proc(5), /proc/net/tcp)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [fields[end] for fields in map(str.split, lines) if fields[_STATE] in _HELD]
    return sum(int(address.rpartition(":")[2], 16) == port for address in ends)


_LOCAL, _REMOTE, _STATE = 1, 2, 3
_HELD: Final = ("01", "04", "05", "08")
"""Established, and waiting for one side or the other to close: descriptors, still."""


def _closed(subject: Subject, upstream: int) -> int:
    """Connections to the upstream that are left when all has been idle for long enough."""
    deadline = time.monotonic() + _LEFT
    while (left := _connections(upstream, _REMOTE)) and time.monotonic() < deadline:
        assert subject.process is not None
        subject.process.check()
        time.sleep(0.5)
    return left


def _tell(
    console: Console,
    callers: Callers,
    looks: Sequence[Look],
    left: int,
    faults: Mapping[str, int],
) -> int:
    for title, counts in (
        ("what became of callers", callers.ends),
        ("what the upstream did", faults),
    ):
        table = Table(title, "times")
        for name, count in sorted(counts.items(), key=lambda item: -item[1]):
            table.add_row(name, f"{count:,}")
        console.print(table)
    if callers.seconds:
        shares = [f"{percentile(callers.seconds, share) * 1000:.1f}" for share in (0.5, 0.99)]
        console.print(
            f"the latest whole answers: p50 {shares[0]} ms, p99 {shares[1]} ms;"
            f" the longest wait of all {callers.worst:.1f} s"
        )
    good = True
    for what, unit in (("memory", "MB"), ("descriptors", "descriptors")):
        hourly, added, level = growth(looks, what)
        good &= level
        console.print(
            f"{what} in the second half: {readable(added)} {unit} more, which would be"
            f" {readable(hourly)} {unit} an hour:"
            f" {'level' if level else 'GROWING'}"
        )
    console.print(f"connections to the upstream in the end: {left}")
    honest = all(end in (*_HONEST, TOO_MANY) for end in callers.ends)
    console.print("every answer was whole or an honest error" if honest else "NOT ALL WAS HONEST")
    if TOO_MANY in callers.ends:
        console.print("more callers came than could be served: a lower --rate tells more")
    return 0 if good and honest and not left and TOO_MANY not in callers.ends else 1
