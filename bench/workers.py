"""What a second process is worth: one worker, and two, on a PostgreSQL and a Valkey.

python -m bench workers [--seconds 3] [--rounds 3]

Two workers want two cores, and the load and the servers one each beside them. Where there are
four, throughput is measured as it is. Where there are fewer, the workers share one core, and what
is told is how many answers a second of processor time is good for, with one worker and with two:
twice their ratio is what two free cores would give, if nothing but processor time counts. It is
the lower end: workers that take turns on a core push each other out of its caches.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from rich.console import Console

from bench.accounts import TYPES
from bench.comparison import Comparison
from bench.ours import METRICS, Stand, caller
from bench.run import Settings
from bench.stores import Stores, make_keys, opened, shared
from bench.works import Subject

ENOUGH: Final = 4
"""Cores with which two workers have one each."""
_KINDS: Final = {"no limits": "free", "requests": "requests"}
_MEASURED: Final = (
    METRICS["unary"],
    METRICS["unary_cpu"],
    METRICS["dense"],
    METRICS["dense_cpu"],
    METRICS["busiest"],
)


def main(settings: Settings, console: Console) -> int:
    """Measure and tell; always 0. Raises `Missing` without the servers."""
    ample, settings = _spread(settings)
    compared = Comparison(_MEASURED)
    stand = Stand(settings, console)
    with stand.upstream(), ExitStack() as stack:
        servers = shared(2, stand.folder("servers"), settings.load_core)
        subjects = [
            subject
            for count, stores in enumerate(stack.enter_context(servers), 1)
            for subject in _team(count, stores, stand, stack)
        ]
        for number in range(1, settings.rounds + 1):
            stand.say(f"round {number} of {settings.rounds}")
            for work in ("unary", "dense"):
                for subject in subjects:
                    compared.keep(subject.name, stand.weigh(work, subject))
    compared.show(console, title=f"Workers: median of {settings.rounds} rounds, ± half the spread")
    for kind in _KINDS:
        for work in ("unary", "dense"):
            console.print(_verdict(compared, kind, work, ample=ample), highlight=False)
    return 0


def _spread(settings: Settings) -> tuple[bool, Settings]:
    """Whether there is a core for each worker, and who runs where then."""
    taken = {settings.gateway_core, settings.load_core}
    others = sorted(set(range(os.cpu_count() or 1)) - taken)
    if len(taken) + len(others) < ENOUGH:
        return False, settings
    return True, replace(settings, more_cores=others[:1])


def _team(count: int, stores: Stores, stand: Stand, stack: ExitStack) -> Iterator[Subject]:
    """So many workers on a database of their own, asked with each kind of key."""
    with opened(stores) as database:
        for number, kind in enumerate(_KINDS.values()):
            make_keys(database, kind, [number])
    gateway, _ = stack.enter_context(stand.gateway(str(count), stores, TYPES, workers=count))
    for number, kind in enumerate(_KINDS):
        yield caller(gateway, _name(count, kind), number)


def _name(count: int, kind: str) -> str:
    return f"{count} worker{'' if count == 1 else 's'}, {kind}"


def _verdict(compared: Comparison, kind: str, work: str, *, ample: bool) -> str:
    """How much more two workers answer than one."""
    one, two = (_name(count, kind) for count in (1, 2))
    what = f"{METRICS[work].title}, {kind}: two workers give"
    if ample:
        ratio = compared.ratio(two, one, work)
        return f"{what} {ratio:.2f} x as many as one" if ratio else f"{what} ... not measured"
    cost = compared.ratio(two, one, f"{work}_cpu")
    if not cost:
        return f"{what} ... not measured"
    return (
        f"{what} {1 / cost:.2f} x as many for a second of processor time as one, which would be"
        f" {2 / cost:.2f} x on two free cores, or more: computed, as there are too few here"
    )
