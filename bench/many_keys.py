"""Whether it matters how many keys there are: ten in the database, or a million.

python -m bench keys [--seconds 3] [--rounds 3]
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from rich.console import Console

from bench import works
from bench.accounts import MUCH
from bench.comparison import Comparison
from bench.failures import Unloaded
from bench.ours import METRICS, Stand, awake, caller, counted, memory
from bench.run import WORK_FOLDER, Settings
from bench.stores import Stores, make_keys, opened, sqlite, write_secrets
from bench.works import Subject
from manyways.access.keys import Settings as KeySettings
from manyways.operations import create_key

FEW: Final = 10
MANY: Final = 1_000_000
CHANGES: Final = 10
"""Keys that are made in a second, where some are made meanwhile."""


class Scene(NamedTuple):
    """So many keys in the database, so many of them `asked` with in turn, and new ones made
    meanwhile or not."""

    keys: int
    asked: int
    changing: bool = False

    @property
    def title(self) -> str:
        more = f", {CHANGES} new a second" if self.changing else ""
        return f"{self.asked:,} of {self.keys:,} keys{more}"


SCENES: Final = (
    Scene(FEW, FEW),
    Scene(FEW, FEW, changing=True),
    Scene(MANY, FEW),
    Scene(MANY, 1_000),
    Scene(MANY, 1_000, changing=True),
    Scene(MANY, 50_000),
)

_TYPES: Final = f"[keys.types.requests]\nrequests = {MUCH}\nwindow = 60.0\n"
_MEASURED: Final = ("unary", "unary_cpu", "added_p50", "added_p99", "memory", "idle", "start")
_LONGEST: Final = 120.0  # seconds of one go at asking with every key once


def main(settings: Settings, console: Console) -> int:
    """Measure and tell; always 0."""
    compared = Comparison([METRICS[name] for name in _MEASURED])
    stand = Stand(settings, console)
    with stand.upstream() as direct, ExitStack() as stack:
        gateways: dict[int, Subject] = {}
        held: dict[int, Stores] = {}
        for count in (FEW, MANY):
            stores = held[count] = sqlite(stand.folder(f"{count}-keys"))
            _fill(stores, count, stand)
            gateway, seconds = stack.enter_context(stand.gateway(str(count), stores, _TYPES))
            gateways[count] = gateway
            for scene in (scene for scene in SCENES if scene.keys == count):
                compared.keep(scene.title, {"start": seconds, "idle": memory(gateway)})
        # Who asks with most keys comes last: a gateway remembers those that it has heard of.
        for asked in sorted({scene.asked for scene in SCENES}):
            scenes = [scene for scene in SCENES if scene.asked == asked]
            subjects = [_known(gateways[scene.keys], scene, stand) for scene in scenes]
            for number in range(1, settings.rounds + 1):
                stand.say(f"{asked:,} keys in turn: round {number} of {settings.rounds}")
                base = works.latency(direct, stand.load).figures
                for scene, subject in zip(scenes, subjects, strict=True):
                    with _changing(held[scene.keys], rate=CHANGES if scene.changing else 0):
                        figures = stand.read("unary", subject) | stand.latency(subject, base)
                    compared.keep(scene.title, figures | {"memory": memory(subject)})
    compared.show(
        console,
        title=f"How many keys there are: median of {settings.rounds} rounds, ± half the spread",
        differ=("added_p50", "added_p99"),
    )
    console.print("Each key has a limit on requests; memory grows with all that asked", style="dim")
    return 0


def _fill(stores: Stores, count: int, stand: Stand) -> None:
    began = time.monotonic()
    with opened(stores) as database:
        make_keys(database, "requests", range(count))
    stand.say(f"{count:,} keys made in {time.monotonic() - began:.0f} s")


def _known(gateway: Subject, scene: Scene, stand: Stand) -> Subject:
    """The gateway, once it has heard of every key that it will be asked with."""
    secrets = write_secrets(WORK_FOLDER / f"{scene.asked}.secrets", scene.asked)
    subject = caller(gateway, scene.title, 0, secrets=secrets)
    question = subject.question(stream=False)
    with awake(subject):
        began = time.monotonic()
        seconds = 1.0
        while seconds < _LONGEST:
            # Each go begins with the first key again, and gets further: those are known by now.
            heard = stand.load.wrk.run(
                subject.target, question, connections=64, seconds=seconds
            ).requests
            if heard >= scene.asked:
                break
            seconds *= max(1.5, (scene.asked - heard) / max(heard, 1))
        else:
            raise Unloaded(f"{scene.asked:,} keys were not all heard of in {_LONGEST:.0f} s")
        counted(subject)
        if not scene.changing:
            stand.say(f"{scene.title}: all asked once within {time.monotonic() - began:.0f} s")
    return subject


@contextmanager
def _changing(stores: Stores, *, rate: int) -> Iterator[None]:
    """Make `rate` keys a second meanwhile, as somebody else does."""
    if not rate:
        yield
        return
    over = threading.Event()

    def make() -> None:
        with opened(stores) as database:
            due = time.monotonic()
            while not over.wait(max(0.0, due - time.monotonic())):
                create_key(database, KeySettings(), "test", now=time.time())
                due += 1 / rate

    maker = threading.Thread(target=make)
    maker.start()
    try:
        yield
    finally:
        over.set()
        maker.join()
