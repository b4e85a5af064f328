"""Verifications that are asked for, and how far they are."""

import json
from typing import Any

import msgspec
import pytest

from manyways.catalog.verified import Check, Quality, Verified
from manyways.operations.catalog import (
    Scope,
    flags,
    latencies,
    progress,
    refresh,
    refresh_status,
    refreshes,
    under_way,
)
from manyways.store import verifications
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.verifications import CheckRow, RunRow
from tests.support.verifications import found, save

NOON = 1_800_000_000
"""2027-01-15T08:00:00Z."""
CAPI = Scope(provider="Capi")


def status(database: Database, run_id: str) -> dict[str, Any]:
    document = refresh_status(database, run_id)
    assert document is not None
    assert json.loads(json.dumps(document)) == document
    return document


def test_what_is_asked_for_is_a_run_that_nobody_has_begun(database: Database) -> None:
    run = refresh(database, Scope(provider="Capi", model="gpt-4o"), now=NOON)

    assert run.status == "running"
    assert status(database, run.id) == {
        "id": run.id,
        "object": "catalog.refresh",
        "status": "running",
        "reason": "asked",
        "scope": {"provider": "Capi", "model": "gpt-4o"},
        "created_at": "2027-01-15T08:00:00Z",
        "started_at": None,
        "ended_at": None,
        "counts": {
            "models": None, "done": 0, "passed": 0, "failed": 0, "unsure": 0, "skipped": 0,
        },
        "cost_usd": 0.0,
        "problem": None,
        "results": [],
    }  # fmt: skip


def test_the_same_asked_for_twice_is_one_run(database: Database) -> None:
    first = refresh(database, CAPI, now=NOON)

    assert refresh(database, CAPI, now=NOON + 5) == first
    assert database.run(lambda one: under_way(one, CAPI)) == first


@pytest.mark.parametrize(
    "other",
    [Scope(), Scope(provider="Space"), Scope(model="Capi"), Scope(provider="Capi", model="gpt-4o")],
)
def test_another_scope_is_another_run(database: Database, other: Scope) -> None:
    first = refresh(database, CAPI, now=NOON)

    assert refresh(database, other, now=NOON).id != first.id


def test_once_it_is_over_it_is_asked_for_anew(database: Database) -> None:
    first = refresh(database, CAPI, now=NOON)
    database.run(lambda one: verifications.end_run(one, first.id, problem=None, now=NOON))

    assert database.run(lambda one: under_way(one, CAPI)) is None
    assert refresh(database, CAPI, now=NOON + 1).id != first.id


@pytest.mark.parametrize(
    ("due", "reason", "same"),
    [("2027-01-15", "due", True), (None, "new", False)],
    ids=["the daily run", "a run of what is new alone"],
)
def test_a_run_that_does_the_same_unasked_is_joined(
    database: Database, due: str | None, reason: str, same: bool
) -> None:
    row = RunRow(new_id(), due, reason, '{"provider":null,"model":null}', "running", NOON)
    database.run(lambda one: verifications.insert_run(one, row), write=True)

    assert (refresh(database, Scope(), now=NOON).id == row.id) is same


def test_a_run_tells_what_it_has_found(database: Database) -> None:
    run = refresh(database, CAPI, now=NOON)
    database.run(lambda one: verifications.begin_run(one, run.id, models=3, now=NOON + 1))
    save(
        database,
        run.id,
        found(
            "gpt-4o",
            latency_ms=812,
            proven=("streaming",),
            withdrawn={"vision": "it names no colour"},
            quality=Quality(score=7.5, low=6.9, high=8.1, version="1", at=NOON),
            flags={"drift": "it answers otherwise than before"},
            tokens=120,
            cost=0.002,
        ),
        found("flux", verdict="failed", reason="HTTP 500"),
    )
    database.run(lambda one: verifications.end_run(one, run.id, problem=None, now=NOON + 9))
    told = status(database, run.id)

    assert (told["status"], told["started_at"], told["ended_at"]) == (
        "done", "2027-01-15T08:00:01Z", "2027-01-15T08:00:09Z",
    )  # fmt: skip
    assert told["counts"] == {
        "models": 3, "done": 2, "passed": 1, "failed": 1, "unsure": 0, "skipped": 0,
    }  # fmt: skip
    assert told["cost_usd"] == pytest.approx(0.002)
    flux, gpt = told["results"]
    assert (flux["verdict"], flux["reason"], flux["quality_interval"]) == (
        "failed", "HTTP 500", None,
    )  # fmt: skip
    assert gpt == {
        "object": "catalog.verification",
        "provider": "Capi",
        "model": "gpt-4o",
        "verified_at": "2027-01-15T08:00:00Z",
        "verdict": "passed",
        "reason": None,
        "latency_ms": 812,
        "first_token_ms": None,
        "tokens_per_second": None,
        "quality_score": 7.5,
        "quality_interval": [6.9, 8.1],
        "quality_version": "1",
        "proven": ["streaming"],
        "withdrawn": {"vision": "it names no colour"},
        "flags": {"drift": "it answers otherwise than before"},
        "requests": 0,
        "tokens": 120,
        "cost_usd": 0.002,
    }


def test_a_run_that_failed_says_why(database: Database) -> None:
    run = refresh(database, CAPI, now=NOON)
    database.run(lambda one: verifications.end_run(one, run.id, problem="no such", now=NOON))

    assert (status(database, run.id)["status"], status(database, run.id)["problem"]) == (
        "failed", "no such",
    )  # fmt: skip


def test_a_run_that_is_not_there_is_not_told_of(database: Database) -> None:
    assert refresh_status(database, new_id()) is None
    assert database.run(lambda one: progress(one, new_id())) is None


def test_the_latest_runs_are_told_newest_first(database: Database) -> None:
    ids = [
        refresh(database, Scope(provider=name), now=NOON + at).id
        for at, name in enumerate(("a", "b", "c"))
    ]
    told = refreshes(database, limit=2)

    assert [row["id"] for row in told] == [ids[2], ids[1]]
    assert all("results" not in row for row in told)


def test_progress_names_what_is_being_asked(database: Database) -> None:
    run = refresh(database, CAPI, now=NOON)
    waiting = database.run(lambda one: progress(one, run.id))
    assert waiting is not None
    assert (waiting.models, waiting.done, waiting.current) == (None, 0, ())

    check = msgspec.json.encode(Check(name="answers", verdict="passed")).decode()

    def begin(connection: Any) -> None:
        verifications.begin_run(connection, run.id, models=3, now=NOON)
        rows = [CheckRow("Capi", name, "answers", check) for name in ("b", "a", "done")]
        verifications.save_checks(connection, run.id, rows)

    database.run(begin, write=True)
    save(database, run.id, found("done", verdict="failed", cost=0.5))
    at_work = database.run(lambda one: progress(one, run.id))
    assert at_work is not None
    assert (at_work.models, at_work.done, at_work.failed) == (3, 1, 1)
    assert at_work.current == ("Capi/a", "Capi/b")
    assert at_work.cost == pytest.approx(0.5)

    database.run(lambda one: verifications.end_run(one, run.id, problem=None, now=NOON))
    over = database.run(lambda one: progress(one, run.id))
    assert over is not None
    assert (over.status, over.current) == ("done", ())


def test_latencies_are_the_verifications_in_their_order(database: Database) -> None:
    def verify(at: int, *rows: Verified) -> None:
        run = refresh(database, Scope(model=str(at)), now=at)
        save(database, run.id, *rows)

    verify(NOON - 100, found("gpt-4o", at=NOON - 100, latency_ms=1))
    verify(NOON + 2, found("gpt-4o", at=NOON + 2, latency_ms=30))
    verify(NOON + 1, found("gpt-4o", at=NOON + 1, verdict="failed"), found("flux", latency_ms=7))

    assert database.run(lambda one: latencies(one, since=NOON)) == {
        ("Capi", "gpt-4o"): [None, 30],
        ("Capi", "flux"): [7],
    }


def test_flags_are_those_of_the_latest_word(database: Database) -> None:
    run = refresh(database, CAPI, now=NOON)
    save(database, run.id, found("a", flags={"drift": "slower"}), found("b"))
    assert database.run(flags) == {("Capi", "a"): {"drift": "slower"}}

    again = refresh(database, Scope(), now=NOON)
    save(database, again.id, found("a"))
    assert database.run(flags) == {}
