"""What limits and accounts cost: callers of several kinds ask the same, in turn.

python -m bench accounts [--seconds 3] [--rounds 3]
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from rich.console import Console

from bench import works
from bench.comparison import Comparison
from bench.failures import Missing
from bench.ours import METRICS, Stand, caller
from bench.run import Settings
from bench.stores import Stores, make_keys, opened, shared, sqlite
from bench.works import Subject
from manyways.operations import create_account
from manyways.types import Allowance, Quota

MUCH: Final = 10**9
"""A limit that is counted, and never reached."""
TYPES: Final = f"""\
[keys.types.free]

[keys.types.requests]
requests = {MUCH}
window = 60.0

[keys.types.everything]
requests = {MUCH}
window = 60.0
tokens = {MUCH}
tokens_window = 60.0
concurrent = 10_000
quota = [{{ tokens = {MUCH}, cost = 1e6, per = "month" }}]
"""
_ACCOUNT: Final = Allowance(
    requests=MUCH,
    window=60.0,
    tokens=MUCH,
    tokens_window=60.0,
    concurrent=10_000,
    quota=(Quota(requests=MUCH, tokens=MUCH, cost=1e6, per="month"),),
)
# What is limited; the last on the key and on its account.
_KINDS: Final = {
    "no limits": "free",
    "requests": "requests",
    "all limits, twice": "everything",
}
_MEASURED: Final = ("unary", "unary_cpu", "dense", "dense_cpu", "added_p50", "added_p99")


def main(settings: Settings, console: Console) -> int:
    """Measure and tell; always 0."""
    compared = Comparison([METRICS[name] for name in _MEASURED])
    stand = Stand(settings, console)
    with stand.upstream() as direct, ExitStack() as stack:
        subjects = list(_subjects(stand, stack))
        for number in range(1, settings.rounds + 1):
            stand.say(f"round {number} of {settings.rounds}")
            base = works.latency(direct, stand.load).figures
            for work in ("unary", "dense"):
                for subject in subjects:
                    compared.keep(subject.name, stand.read(work, subject))
            for subject in subjects:
                compared.keep(subject.name, stand.latency(subject, base))
    compared.show(
        console,
        title=f"What limits cost: median of {settings.rounds} rounds, ± half the spread",
        differ=("added_p50", "added_p99"),
    )
    console.print(
        "all limits, twice: requests, tokens, at once and a quota, on the key and on its account;"
        " shared: on PostgreSQL and Valkey, the others on SQLite; processor: of all threads",
        style="dim",
    )
    return 0


def _subjects(stand: Stand, stack: ExitStack) -> Iterator[Subject]:
    """One gateway for all that SQLite can do, and one on PostgreSQL and Valkey."""
    alone = sqlite(stand.folder("file"))
    _people(alone)
    gateway, _ = stack.enter_context(stand.gateway("sqlite", alone, TYPES))
    for number, name in enumerate(_KINDS):
        yield caller(gateway, name, number)
    try:
        servers = shared(1, stand.folder("servers"), stand.settings.load_core)
        (stores,) = stack.enter_context(servers)
    except Missing as error:
        stand.say(f"PostgreSQL and Valkey are left out: {error}")
        return
    _people(stores)
    gateway, _ = stack.enter_context(stand.gateway("shared", stores, TYPES))
    for number, name in enumerate(list(_KINDS)[:2]):
        yield caller(gateway, f"{name}, shared", number)


def _people(stores: Stores) -> None:
    """A key of each kind, numbered from 0; the last of them in an account with limits."""
    with opened(stores) as database:
        account = create_account(database, name="bench", limits=_ACCOUNT, now=time.time())
        for number, kind in enumerate(_KINDS.values()):
            of = account.id if kind == "everything" else None
            make_keys(database, kind, [number], account=of)
