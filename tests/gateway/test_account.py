"""The account of what was answered, when the process is killed: no answer without its row."""

import contextlib
import os
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.gateway.callers import MODELS, Answered, Callers, calling, set_up
from tests.support.chat_wall import chat_wall
from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.valkey import until

pytestmark = pytest.mark.process

KILLS = int(os.environ.get("KILLS", "6"))
CALLERS = 200
LIMIT = 30

ROUTING = "[routing]\nretries = 0\ncontinuation = false\n"


def test_no_kill_loses_a_row_or_makes_one_twice(tmp_path: Path) -> None:
    """`KILLS` in the environment says how often. Each time some 200 requests are under way."""
    chance = Random(int(os.environ.get("SEED", str(time.time_ns()))))
    with chat_wall() as wall, calling(CALLERS, chance) as callers:
        set_up(wall)
        config = ROUTING + provider(wall.wall.url, *MODELS)
        with running_gateway(tmp_path, config) as gateway:
            limits = {"requests": LIMIT, "window": "1h"}
            made = gateway.ask("/admin/v1/keys", {"type": "full", "limits": limits})
            limited = made.json()["key"]
        for _ in range(KILLS):
            before = len(callers.answered)
            with running_gateway(tmp_path, config) as gateway:
                check(tmp_path, callers.answered[:before])
                begin(callers, gateway, limited)
                time.sleep(chance.uniform(0.0, 0.8))
                gateway.stop(signal.SIGKILL)
                callers.stop()
        with running_gateway(tmp_path, config) as gateway:
            begin(callers, gateway, limited)
            gateway.stop(signal.SIGTERM)
            callers.stop()
        assert callers.failures == []
        check(tmp_path, callers.answered)
        check_all(tmp_path, callers)
        assert limited_answers(callers) <= LIMIT
    journal = tmp_path / "manyways-journal"
    assert [path.name for path in journal.iterdir() if path.stat().st_size] == []


def begin(callers: Callers, gateway: Gateway, limited: str) -> None:
    """Returns once some have been answered."""
    before = len(callers.answered)
    callers.begin(gateway.root, gateway.key, limited)
    until(lambda: len(callers.answered) > before + CALLERS, 20.0, "nobody is answered")


def limited_answers(callers: Callers) -> int:
    return sum(one.kind == "limited" and one.status == 200 for one in callers.answered)


def check(home: Path, answered: list[Answered]) -> None:
    """Each of these answers has its row, with what the answer said; refusals by a limit none."""
    query = (
        "SELECT id, client_request_id, status_code, attempts, prompt_tokens, completion_tokens,"
        " usage_source FROM usage_stats"
    )
    rows = {row[0]: row[1:] for row in ask(home, query)}
    for one in answered:
        if one.status == 429:
            assert one.id not in rows, one
            continue
        assert one.id in rows, one
        name, status, attempts, *tokens, source = rows[one.id]
        assert (name, status) == (one.name, one.status), one
        if one.attempts is not None:
            assert attempts == one.attempts, one
        if one.tokens is not None:
            assert (tuple(tokens), source) == (one.tokens, "upstream"), one
        elif one.kind == "cut":
            assert tokens[1] > 0, one
            assert source == "estimated", one


def check_all(home: Path, callers: Callers) -> None:
    """No row is without its request, and none counted twice, here or in the sums."""
    names = Counter(name for (name,) in ask(home, "SELECT client_request_id FROM usage_stats"))
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names) <= callers.sent
    sums = "sum(prompt_tokens), sum(completion_tokens) FROM"
    (found,) = ask(home, f"SELECT count(*), sum(attempts), {sums} usage_stats")
    for table in ("usage_hourly", "usage_daily"):
        assert ask(home, f"SELECT sum(requests), sum(attempts), {sums} {table}") == [found]
    assert ask(home, "SELECT count(*) FROM usage_attempts") == [(found[1],)]


def ask(home: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(home / "manyways.db")) as database:
        return database.execute(query).fetchall()
