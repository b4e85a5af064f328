"""The account of what was answered, when the process is killed: no answer without its row."""

import contextlib
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.gateway.callers import MODELS, Answered, Callers, calling, set_up
from tests.support.chat_wall import chat_wall
from tests.support.company import company
from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.postgres import PostgresProcess, own_postgres
from tests.support.valkey import until

__all__ = ["own_postgres"]

pytestmark = pytest.mark.process

KILLS = int(os.environ.get("KILLS", "4"))
CALLERS = 200
LIMIT = 30

PAUSE = 3.0
"""Seconds that a database hangs."""

ARRIVE = 30.0
"""Seconds within which rows are in the database."""

Rows = Callable[[str], list[tuple[Any, ...]]]
"""What a database answers to a query."""

ROUTING = """
[routing]
retries = 0
continuation = false
connect_timeout = "30s"
first_token_timeout = "30s"
idle_timeout = "30s"
"""


def test_no_kill_loses_a_row_or_makes_one_twice(tmp_path: Path) -> None:
    """`KILLS` in the environment says how often. Each time some 200 requests are under way."""
    rows = partial(asked, tmp_path / "manyways.db")
    chance = Random()
    with chat_wall() as wall, calling(CALLERS, chance) as callers:
        set_up(wall)
        config = ROUTING + provider(wall.wall.url, *MODELS)
        with running_gateway(tmp_path, config) as gateway:
            limited = limited_key(gateway)
        for _ in range(KILLS):
            before = len(callers.answered)
            with running_gateway(tmp_path, config) as gateway:
                arrive(rows, callers.answered[:before])
                begin(callers, gateway, limited)
                time.sleep(chance.uniform(0.0, 0.8))
                gateway.stop(signal.SIGKILL)
                callers.stop()
        with running_gateway(tmp_path, config) as gateway:
            begin(callers, gateway, limited)
            gateway.stop()
            callers.stop()
        with running_gateway(tmp_path, config):  # moves what the last one had no time for
            arrive(rows, callers.answered)
        assert callers.failures == []
        check(rows, callers.answered)
        check_all(rows, callers)
        let_in = [one for one in callers.answered if one.kind == "limited" and one.status == 200]
        assert len(let_in) <= LIMIT
    journal = tmp_path / "manyways-journal"
    assert [path.name for path in journal.iterdir() if path.stat().st_size] == []


def test_a_database_that_hangs_costs_no_row_and_nobody_waits_for_it(
    tmp_path: Path, own_postgres: PostgresProcess
) -> None:
    with chat_wall() as wall, calling(CALLERS // 4, Random()) as callers:
        set_up(wall)
        config = ROUTING + provider(wall.wall.url, *MODELS)
        with company(tmp_path, config, nodes=1, postgres=own_postgres) as several:
            (gateway,) = several.nodes
            begin(callers, gateway, limited_key(gateway))
            own_postgres.pause()
            before = len(callers.answered)
            time.sleep(PAUSE)
            meanwhile = callers.answered[before:]
            own_postgres.resume()
            begin(callers, gateway, limited_key(gateway))
            callers.stop()
            arrive(several.rows, callers.answered)
            gateway.stop()
            assert callers.failures == []
            check(several.rows, callers.answered)
            check_all(several.rows, callers)
    assert len(meanwhile) > CALLERS
    assert max(one.seconds for one in meanwhile) < PAUSE / 2


def limited_key(gateway: Gateway) -> str:
    made = gateway.ask(
        "/admin/v1/keys", {"type": "full", "limits": {"requests": LIMIT, "window": "1h"}}
    )
    return str(made.json()["key"])


def begin(callers: Callers, gateway: Gateway, limited: str) -> None:
    """Returns once some have been answered."""
    before = len(callers.answered)
    callers.begin(gateway.root, gateway.key, limited)
    until(lambda: len(callers.answered) > before + CALLERS, 20.0, "nobody is answered")


def arrive(rows: Rows, answered: list[Answered]) -> None:
    """Wait until each of these answers has its row. On a busy machine that takes a while."""
    deadline = time.monotonic() + ARRIVE
    left = [one for one in answered if one.status != 429]
    while left:
        found = {row[0] for row in rows("SELECT id FROM usage_stats")}
        left = [one for one in left if one.id not in found]
        assert not left or time.monotonic() < deadline, f"no rows of {left}"


def check(rows: Rows, answered: list[Answered]) -> None:
    """Each of these answers has its row, with what the answer said; refusals by a limit none."""
    query = (
        "SELECT id, client_request_id, status_code, attempts, prompt_tokens, completion_tokens,"
        " usage_source FROM usage_stats"
    )
    found = {row[0]: row[1:] for row in rows(query)}
    for one in answered:
        if one.status == 429:
            assert one.id not in found, one
            continue
        assert one.id in found, one
        name, status, attempts, *tokens, source = found[one.id]
        assert (name, status) == (one.name, one.status), one
        if one.attempts is not None:
            assert attempts == one.attempts, one
        # A complete answer waits a second for its usage, which a busy machine may not keep.
        if one.tokens is not None and (source == "upstream" or one.seconds < 1.0):
            assert (tuple(tokens), source) == (one.tokens, "upstream"), one
        elif one.kind == "cut":
            assert tokens[1] > 0, one
            assert source == "estimated", one


def check_all(rows: Rows, callers: Callers) -> None:
    """No row is without its request, and none counted twice, here or in the sums."""
    names = Counter(name for (name,) in rows("SELECT client_request_id FROM usage_stats"))
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names) <= callers.sent
    sums = "sum(prompt_tokens), sum(completion_tokens) FROM"
    (found,) = rows(f"SELECT count(*), sum(attempts), {sums} usage_stats")
    for table in ("usage_hourly", "usage_daily"):
        assert rows(f"SELECT sum(requests), sum(attempts), {sums} {table}") == [found]
    assert rows("SELECT count(*) FROM usage_attempts") == [(found[1],)]


def asked(file: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return database.execute(query).fetchall()
