"""A verification across kills: what was kept is not asked again, and the pace is held."""

import contextlib
import os
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from manyways.verification.run import EACH
from tests.support.gateway import Gateway, running_gateway
from tests.support.many_models import CHECKS, Asked, ManyModels, many_models

pytestmark = pytest.mark.process

KILLS = int(os.environ.get("KILLS", "2"))
PAUSE = 0.02
LATENCY = 0.02
LATE = 0.5
"""Seconds that a request may take to its provider longer than one behind it, on a busy machine."""
LONGEST = 120.0
ROOM = 40_000
"""Kilobytes that a verification may take beside what a gateway at rest does."""


def test_what_was_kept_before_a_kill_is_never_asked_again(tmp_path: Path) -> None:
    """The promise: of each model that was under way at a kill, the one request whose answer had
    not been kept may be asked again, and no other."""
    with many_models(providers=8, each=15, latency=LATENCY) as many:
        total = len(many.names) * len(CHECKS)
        chance = Random()
        moments = sorted(chance.sample(range(total // 20, total * 19 // 20), KILLS))
        kills: list[tuple[int, set[tuple[str, str, str]]]] = []
        with running(tmp_path, many) as gateway:
            refresh = begun(gateway)
        for moment in moments:
            with running(tmp_path, many) as gateway:
                wait_for(gateway, partial(many.has_asked, moment))
                gateway.stop(signal.SIGKILL)
            kills.append((len(many.settled()), kept(tmp_path, refresh)))
        with running(tmp_path, many) as gateway:
            at_rest = resident(gateway, "VmRSS")
            wait_for(gateway, lambda: status(gateway, refresh) != "running")
            assert resident(gateway, "VmHWM") < at_rest + ROOM
        account = many.settled()

    assert all_passed(tmp_path, refresh, many)
    assert run_status(tmp_path, refresh) == "done"
    assert {asked.name for asked in account} == {
        (provider, model, check) for provider, model in many.names for check in CHECKS
    }
    for seen, before in kills:
        asked, later = ({one.name for one in part} for part in (account[:seen], account[seen:]))
        assert not before & later
        under_way = Counter((provider, model) for provider, model, _ in asked & later)
        assert max(under_way.values(), default=0) <= 1
        assert len(under_way) <= 8 * EACH
    assert len(account) <= total + KILLS * 8 * EACH
    assert asked_again_is_the_same(account)
    assert earliest(account) >= -LATE


def test_a_verification_is_put_down_at_a_stop_and_taken_up_at_the_start(tmp_path: Path) -> None:
    with many_models(providers=4, each=5, latency=LATENCY) as many:
        total = len(many.names) * len(CHECKS)
        with running(tmp_path, many) as gateway:
            refresh = begun(gateway)
            wait_for(gateway, partial(many.has_asked, total // 3))
            began = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - began < 10.0
            assert not [line for line in gateway.log if "Traceback" in line or "error" in line]
        seen = len(many.settled())
        assert seen < total
        assert run_status(tmp_path, refresh) == "running"
        before = kept(tmp_path, refresh)
        with running(tmp_path, many) as gateway:
            wait_for(gateway, lambda: status(gateway, refresh) == "done")
        account = many.settled()
    assert not before & {asked.name for asked in account[seen:]}
    assert all_passed(tmp_path, refresh, many)
    assert len(account) <= total + 4 * EACH


@contextlib.contextmanager
def running(directory: Path, many: ManyModels) -> Iterator[Gateway]:
    with running_gateway(directory, many.config(pause=PAUSE)) as gateway:
        yield gateway


def begun(gateway: Gateway) -> str:
    """The id of a verification that is asked for."""
    answer = gateway.ask("/admin/v1/catalog/refresh", {}, method="POST")
    assert answer.status == 202, answer.body
    return str(answer.json()["id"])


def status(gateway: Gateway, refresh: str) -> str:
    return str(gateway.ask(f"/admin/v1/catalog/refresh/{refresh}").json()["status"])


def wait_for(gateway: Gateway, done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LONGEST
    while not done():
        assert time.monotonic() < give_up, "it takes too long: " + "".join(gateway.log[-20:])
        time.sleep(0.1)


def resident(gateway: Gateway, what: str) -> int:
    """Kilobytes of memory: now (`VmRSS`), or the most there ever were (`VmHWM`)."""
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def _rows(directory: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(directory / "manyways.db")) as database:
        return database.execute(query, values).fetchall()


def kept(directory: Path, refresh: str) -> set[tuple[str, str, str]]:
    """The checks of a run that its database has, as (provider, model, check)."""
    query = "SELECT provider, model, name FROM catalog_checks WHERE run_id = ?"
    return {(provider, model, name) for provider, model, name in _rows(directory, query, refresh)}


def run_status(directory: Path, refresh: str) -> str:
    ((found,),) = _rows(directory, "SELECT status FROM catalog_runs WHERE id = ?", refresh)
    return str(found)


def all_passed(directory: Path, refresh: str, many: ManyModels) -> bool:
    """Whether each model was verified once, and nothing was held against any."""
    query = "SELECT provider, model, verdict, quality FROM catalog_verifications WHERE run_id = ?"
    found = sorted(_rows(directory, query, refresh))
    return found == sorted((*name, "passed", 10.0) for name in many.names)


def asked_again_is_the_same(account: list[Asked]) -> bool:
    """Whether what is asked twice is asked in the same words."""
    words = defaultdict(set)
    for asked in account:
        words[asked.name].add(asked.digest)
    return all(len(digests) == 1 for digests in words.values())


def earliest(account: list[Asked]) -> float:
    """By how many seconds the earliest request came before its time: of any two requests to a
    provider, the second may come so many pauses behind the first as there are between them."""
    worst = 0.0
    latest: dict[str, float] = {}
    numbers: Counter[str] = Counter()
    for asked in account:
        due = asked.at - numbers[asked.provider] * PAUSE
        numbers[asked.provider] += 1
        worst = min(worst, due - latest.get(asked.provider, due))
        latest[asked.provider] = max(latest.get(asked.provider, due), due)
    return worst
