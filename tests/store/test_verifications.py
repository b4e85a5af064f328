"""Runs of verifications, what they found, and the latest word on each model."""

from collections.abc import Callable
from typing import Any

import pytest

from manyways.store import verifications as store
from manyways.store.database import Database
from manyways.store.verifications import CheckRow, RunRow, VerificationRow


def run_row(run_id: str, due: str | None = None, **fields: Any) -> RunRow:
    row = RunRow(run_id, due, "asked for", "{}", store.RUNNING, 100)
    return row._replace(**fields) if fields else row


def found(run_id: str, model: str = "m", at: int = 200, **fields: Any) -> VerificationRow:
    row = VerificationRow(run_id, "P", model, at, "passed", 120, 7.5, '{"a": 1}')
    return row._replace(**fields)


Do = Callable[..., Any]


@pytest.fixture
def do(database: Database) -> Do:
    """Runs a function of `store` in a transaction of its own."""

    def run(work: Callable[..., Any], *args: Any, **how: Any) -> Any:
        return database.run(lambda connection: work(connection, *args, **how), write=True)

    return run


def test_a_day_has_one_run_however_many_want_it(do: Do) -> None:
    assert do(store.insert_run, run_row("1", "2026-11-23"))
    assert not do(store.insert_run, run_row("2", "2026-11-23"))
    assert do(store.insert_run, run_row("3", "2026-11-24"))
    for run_id in ("4", "5"):
        assert do(store.insert_run, run_row(run_id)), "those that were asked for are no day's"

    assert [row.id for row in do(store.unfinished)] == ["1", "3", "4", "5"]
    assert do(store.run, "2") is None


def test_a_run_is_begun_once_and_ended_for_a_reason(do: Do) -> None:
    do(store.insert_run, run_row("1"))
    do(store.begin_run, "1", models=3, now=110)
    do(store.begin_run, "1", models=4, now=150)
    begun = do(store.run, "1")
    assert (begun.began_at, begun.models, begun.status) == (110, 4, "running")

    do(store.end_run, "1", problem="no database", now=190)
    ended = do(store.run, "1")
    assert (ended.status, ended.ended_at, ended.problem) == ("failed", 190, "no database")
    assert do(store.unfinished) == []


def test_what_was_found_is_kept_once_and_is_the_latest_word(do: Do) -> None:
    do(store.insert_run, run_row("1"))
    for rows in ([found("1"), found("1", "n")], [found("1", at=300, verdict="failed")]):
        do(store.save_verifications, rows, cost=0.5)

    assert do(store.verified_in, "1") == {("P", "m"), ("P", "n")}
    assert do(store.counts, "1") == {"passed": 2}
    assert do(store.verifications, "1")[0].at == 200
    assert do(store.run, "1").cost == 1.0
    assert do(store.counted) == 2
    assert [one[:2] for one in do(store.verified, 1)] == [("P", "m")]


def test_what_says_nothing_of_a_model_leaves_the_latest_word_on_it(do: Do) -> None:
    do(store.insert_run, run_row("1"))
    do(store.insert_run, run_row("2"))
    do(store.save_verifications, [found("1")], cost=0)
    unsure = found("2", verdict="unsure", document="{}")
    do(store.save_verifications, [unsure], cost=0.5, silent={("P", "m")})

    assert [row.verdict for row in do(store.verifications, "2")] == ["unsure"]
    assert do(store.run, "2").cost == 0.5
    assert do(store.verified) == [("P", "m", '{"a": 1}', 1)]


def test_checks_are_of_the_newest_verification_of_their_model(do: Do) -> None:
    for run_id, at in (("1", 200), ("2", 300)):
        rows = [CheckRow("P", "m", "answers", f'"{run_id}"'), CheckRow("P", "n", "answers", "1")]
        do(store.save_checks, run_id, rows)
        do(store.save_checks, run_id, rows)
        do(store.save_verifications, [found(run_id, at=at)], cost=0)

    assert len(do(store.checks, "1")) == 2
    assert do(store.latest_checks, "P", "m") == [CheckRow("P", "m", "answers", '"2"')]
    assert do(store.latest_checks, "P", "unknown") == []
    newest = do(store.history, provider="P", model="m", limit=5)
    assert [row.run_id for row in newest] == ["2", "1"]


def test_old_runs_go_with_what_they_found_and_the_latest_word_stays(do: Do) -> None:
    for run_id, ended in (("1", 100), ("2", 200), ("3", 300)):
        do(store.insert_run, run_row(run_id, ended_at=ended, status=store.DONE))
        do(store.save_checks, run_id, [CheckRow("P", "m", "answers", "{}")])
        do(store.save_verifications, [found(run_id, at=ended)], cost=0)

    do(store.prune, runs_before=150, checks_before=250)

    assert [row.id for row in do(store.runs, 9)] == ["3", "2"]
    assert do(store.checks, "2") == []
    assert len(do(store.checks, "3")) == 1
    assert len(do(store.verified)) == 1
    do(store.forget, [("P", "m")])
    assert do(store.verified) == []
