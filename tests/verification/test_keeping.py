"""What a run finds out is kept at once, many a transaction, each thing once."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import pytest
from sqlalchemy import Connection

from manyways.catalog.verified import Check, Quality, Verified
from manyways.errors import StoreError
from manyways.store import catalog as catalog_store
from manyways.store import incidents
from manyways.store import verifications as store
from manyways.store.database import Database
from manyways.verification.keeping import PAUSES, Keeping, Name
from tests.support.asked import model

T = TypeVar("T")
NOON = 1_800_000_000
RUN = "run-1"


class Watched(Database):
    """The same database, which counts transactions, and can be away: before it does what it is
    asked for, or behind it, so that nobody hears of it."""

    def __init__(self, real: Database) -> None:
        self.__dict__.update(real.__dict__)
        self.calls = 0
        self.away = 0
        self.unheard = 0
        self.gate: asyncio.Event | None = None

    async def call(
        self,
        work: Callable[[Connection], T],
        *,
        limit: float,
        write: bool = False,
        isolated: bool = True,
    ) -> T:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            self.away -= 1
            raise StoreError("away")
        found = await super().call(work, limit=limit, write=write, isolated=isolated)
        if self.unheard:
            self.unheard -= 1
            raise StoreError("nobody heard of it")
        return found


@pytest.fixture
def watched(database: Database) -> Watched:
    row = store.RunRow(RUN, None, "asked", "{}", store.RUNNING, NOON)
    database.run(lambda connection: store.insert_run(connection, row), write=True)
    return Watched(database)


class Pauses(list[float]):
    """Sleeps by noting how long."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)  # others come meanwhile


def keeping(
    database: Database,
    latest: Mapping[Name, Verified] | None = None,
    *,
    resumed: bool = False,
    told: Callable[[Verified], None] = lambda _: None,
    sleep: Pauses | None = None,
) -> Keeping:
    return Keeping(
        database,
        RUN,
        latest or {},
        resumed=resumed,
        told=told,
        sleep=Pauses() if sleep is None else sleep,
    )


def found(name: str = "m", verdict: str = "passed", **fields: Any) -> Verified:
    row = {"provider": "Test", "model": name, "at": float(NOON), "verdict": verdict}
    return msgspec.convert({**row, **msgspec.to_builtins(fields)}, Verified)


def check(name: str = "answers", **fields: Any) -> Check:
    return Check(name=name, verdict="passed", **fields)


async def verify(keep: Keeping, one: Verified) -> None:
    await keep.made(model(one.model))
    await keep.verified(one)


def latest(database: Database) -> dict[str, Verified]:
    rows = database.run(store.verified)
    return {name: msgspec.json.decode(text, type=Verified) for _, name, text, _ in rows}


def rows(database: Database) -> list[store.VerificationRow]:
    return database.run(lambda connection: store.verifications(connection, RUN))


def kept_checks(database: Database) -> list[tuple[str, str]]:
    found = database.run(lambda connection: store.checks(connection, RUN))
    return sorted((row.model, row.name) for row in found)


def run_cost(database: Database) -> float:
    row = database.run(lambda connection: store.run(connection, RUN))
    assert row is not None
    return row.cost


def open_incidents(database: Database) -> list[tuple[str, str]]:
    listed = database.run(
        lambda connection: incidents.listed(connection, open_only=True, limit=100)
    )
    return [(one.model, one.why) for one in listed]


def changes(database: Database) -> list[tuple[str, str]]:
    listed = database.run(lambda connection: catalog_store.changes(connection, limit=100))
    return [(one.model, one.kind) for one in listed]


class TestChecks:
    async def test_a_check_is_there_once_it_is_said_to_be(self, watched: Watched) -> None:
        await keeping(watched).check(model(), check(answer="yes", cost=0.5))
        (row,) = watched.run(lambda connection: store.checks(connection, RUN, "Test", "m"))
        assert msgspec.json.decode(row.document, type=Check) == check(answer="yes", cost=0.5)

    async def test_many_at_once_share_few_transactions(self, watched: Watched) -> None:
        keep = keeping(watched)
        await asyncio.gather(*(keep.check(model(f"m{n}"), check()) for n in range(500)))
        assert len(kept_checks(watched)) == 500
        assert watched.calls == 2, "the first goes alone, and takes nobody along"

    async def test_one_after_the_other_waits_for_nobody(self, watched: Watched) -> None:
        keep = keeping(watched)
        for number in range(3):
            await keep.check(model(f"m{number}"), check())
            assert len(kept_checks(watched)) == number + 1
        assert watched.calls == 3

    async def test_what_a_broken_run_has_made_is_given_back(self, watched: Watched) -> None:
        keep = keeping(watched)
        await keep.check(model("m"), check("answers"))
        await keep.check(model("m"), check("tools", answer="f()"))
        await keep.check(model("other"), check("answers"))
        again = keeping(watched, resumed=True)
        assert await again.made(model("m")) == {
            "answers": check("answers"),
            "tools": check("tools", answer="f()"),
        }
        assert await again.made(model("new")) == {}

    async def test_a_new_run_need_not_look(self, watched: Watched) -> None:
        assert await keeping(watched).made(model()) == {}
        assert watched.calls == 0

    async def test_a_check_made_twice_stays_the_first(self, watched: Watched) -> None:
        keep = keeping(watched, resumed=True)
        await keep.check(model(), check(answer="first"))
        await keep.check(model(), check(answer="second"))
        assert (await keep.made(model()))["answers"].answer == "first"


class TestOutages:
    async def test_a_database_that_is_away_is_waited_for(self, watched: Watched) -> None:
        pauses = Pauses()
        watched.away = len(PAUSES)
        await keeping(watched, sleep=pauses).check(model(), check())
        assert pauses == list(PAUSES)
        assert kept_checks(watched) == [("m", "answers")]

    async def test_whoever_waits_hears_of_a_failure(self, watched: Watched) -> None:
        keep = keeping(watched)
        watched.away = 10**6
        outcomes = await asyncio.gather(
            *(keep.check(model(f"m{n}"), check()) for n in range(20)), return_exceptions=True
        )
        assert all(isinstance(outcome, StoreError) for outcome in outcomes)
        assert watched.calls == 2 * (len(PAUSES) + 1)
        watched.away = 0
        await keep.check(model("late"), check())
        assert kept_checks(watched) == [("late", "answers")]

    async def test_what_was_written_unheard_is_written_once(self, watched: Watched) -> None:
        """A database that answers too late has done it all the same."""
        watched.unheard = 3
        before = found(at=NOON - 86400.0)
        keep = keeping(watched, {("Test", "m"): before})
        await verify(keep, found(verdict="failed", reason="gone", cost=0.25))
        assert run_cost(watched) == 0.25
        assert changes(watched) == [("m", "failed")]
        assert open_incidents(watched) == [("m", "gone")]

    async def test_reading_is_as_patient(self, watched: Watched) -> None:
        watched.away = 2
        assert await keeping(watched, resumed=True).made(model()) == {}


class TestCancellation:
    async def test_what_one_was_writing_the_next_one_writes(self, watched: Watched) -> None:
        watched.gate = asyncio.Event()
        keep = keeping(watched)
        first = asyncio.create_task(keep.check(model("first"), check()))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(keep.check(model(f"m{n}"), check())) for n in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting[0].cancel()
        watched.gate.set()
        outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [asyncio.CancelledError, asyncio.CancelledError, type(None), type(None)]
        assert {("m1", "answers"), ("m2", "answers")} <= set(kept_checks(watched))

    async def test_nobody_is_told_that_what_is_not_there_is_kept(self, watched: Watched) -> None:
        for moment in range(12):
            keep = keeping(watched)
            names = [f"{moment}-{number}" for number in range(6)]
            tasks = [asyncio.create_task(keep.check(model(name), check())) for name in names]
            for _ in range(moment):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            there = {name for name, _ in kept_checks(watched)}
            for name, outcome in zip(names, outcomes, strict=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError)
                assert outcome is not None or name in there


class TestWords:
    """The latest word on a model, and what has become of it."""

    async def test_what_was_found_is_the_latest_word_and_a_row_of_its_run(
        self, watched: Watched
    ) -> None:
        heard: list[Verified] = []
        keep = keeping(watched, told=heard.append)
        score = Quality(score=7.5, low=6.0, high=8.0, version="1", at=float(NOON))
        one = found(latency_ms=120, quality=score, cost=0.125, proven=("tools",))
        await verify(keep, one)
        assert latest(watched) == {"m": one}
        (row,) = rows(watched)
        assert (row.verdict, row.latency_ms, row.quality, row.at) == ("passed", 120, 7.5, NOON)
        assert msgspec.json.decode(row.document, type=Verified) == one
        assert heard == [one]
        assert await keep.before(model()) == one
        assert run_cost(watched) == 0.125

    @pytest.mark.parametrize("verdict", ["unsure", "skipped"])
    async def test_what_says_nothing_is_kept_and_is_no_latest_word(
        self, watched: Watched, verdict: str
    ) -> None:
        before = found(at=NOON - 86400.0, proven=("tools",))
        await verify(keeping(watched), before)
        heard: list[Verified] = []
        watched.run(
            lambda connection: connection.exec_driver_sql("DELETE FROM catalog_verifications"),
            write=True,
        )
        keep = keeping(watched, {("Test", "m"): before}, told=heard.append)
        await verify(keep, found(verdict=verdict, reason="it wants fewer requests"))
        assert latest(watched) == {"m": before}
        assert [row.verdict for row in rows(watched)] == [verdict]
        assert heard == []
        assert await keep.before(model()) == before
        assert changes(watched) == []

    async def test_it_is_better_than_no_word_at_all(self, watched: Watched) -> None:
        await verify(keeping(watched), found(verdict="unsure"))
        assert latest(watched)["m"].verdict == "unsure"
        assert open_incidents(watched) == []

    async def test_many_at_once_are_all_kept_and_paid_once(self, watched: Watched) -> None:
        keep = keeping(watched)
        await asyncio.gather(*(verify(keep, found(f"m{n}", cost=0.5)) for n in range(100)))
        assert len(rows(watched)) == len(latest(watched)) == 100
        assert run_cost(watched) == 50.0
        assert watched.calls == 2

    async def test_a_failure_is_an_incident_until_it_answers_again(self, watched: Watched) -> None:
        keep = keeping(watched, {("Test", "m"): found(at=NOON - 86400.0)})
        await verify(keep, found(verdict="failed", reason="HTTP 500"))
        assert open_incidents(watched) == [("m", "HTTP 500")]
        assert changes(watched) == [("m", "failed")]

        watched.run(
            lambda connection: connection.exec_driver_sql("DELETE FROM catalog_verifications"),
            write=True,
        )
        await verify(keep, found(at=NOON + 1800.0))
        assert open_incidents(watched) == []
        assert sorted(changes(watched)) == [("m", "failed"), ("m", "recovered")]

    async def test_an_unsure_look_ends_no_incident(self, watched: Watched) -> None:
        keep = keeping(watched)
        await verify(keep, found(verdict="failed", reason="HTTP 500"))
        watched.run(
            lambda connection: connection.exec_driver_sql("DELETE FROM catalog_verifications"),
            write=True,
        )
        await verify(keep, found(verdict="unsure"))
        assert open_incidents(watched) == [("m", "HTTP 500")]

    async def test_what_is_withdrawn_is_history(self, watched: Watched) -> None:
        keep = keeping(watched, {("Test", "m"): found(proven=("tools",))})
        await verify(keep, found(withdrawn={"tools": "prose"}))
        assert changes(watched) == [("m", "withdrawn")]


class TestImpostors:
    """Whoever is far worse than others of the same name is suspected."""

    @staticmethod
    def scored(score: float) -> Quality:
        return Quality(
            score=score, low=score - 0.5, high=min(10.0, score + 0.5), version="1", at=float(NOON)
        )

    def others(self) -> dict[Name, Verified]:
        return {
            (name, "big"): msgspec.structs.replace(
                found("big", quality=self.scored(9.5)), provider=name
            )
            for name in ("A", "B", "C")
        }

    async def test_it_is_flagged_with_the_reason(self, watched: Watched) -> None:
        heard: list[Verified] = []
        keep = keeping(watched, self.others(), told=heard.append)
        await verify(keep, found("big", quality=self.scored(2.0)))
        assert heard[0].flags["impostor"]
        assert latest(watched)["big"].flags == heard[0].flags
        assert ("big", "flagged") in changes(watched)

    async def test_one_that_is_as_good_is_cleared(self, watched: Watched) -> None:
        accused = found("big", quality=self.scored(9.0), flags={"impostor": "x", "drift": "y"})
        keep = keeping(watched, {**self.others(), ("Test", "big"): accused})
        await verify(keep, accused)
        assert latest(watched)["big"].flags == {"drift": "y"}

    async def test_what_was_found_in_this_run_counts_too(self, watched: Watched) -> None:
        keep = keeping(watched)
        for one in self.others().values():
            await keep.made(msgspec.structs.replace(model("big"), provider=one.provider))
            await keep.verified(one)
        await verify(keep, found("big", quality=self.scored(2.0)))
        assert "impostor" in (await keep.before(model("big")) or found()).flags

    async def test_models_of_other_names_are_no_measure(self, watched: Watched) -> None:
        keep = keeping(watched, self.others())
        await verify(keep, found("small", quality=self.scored(2.0)))
        assert latest(watched)["small"].flags == {}

    async def test_who_does_not_answer_is_accused_of_nothing_else(self, watched: Watched) -> None:
        keep = keeping(watched, self.others())
        await verify(keep, found("big", "failed", quality=self.scored(2.0)))
        assert latest(watched)["big"].flags == {}


async def test_what_could_not_be_asked_is_the_latest_word_until_something_is_known(
    watched: Watched,
) -> None:
    """So that it is known how often it was tried; what was found out before stays."""
    waiting = found("new", "skipped", postponed=1)
    known = found("old", "failed", failures=2)
    names: dict[Name, Verified] = {("Test", "new"): waiting, ("Test", "old"): known}
    keep = keeping(watched, names)
    await verify(keep, found("new", "skipped", postponed=2))
    await verify(keep, found("old", "skipped", postponed=1))
    assert {name: one.postponed for name, one in latest(watched).items()} == {"new": 2}
    assert len(rows(watched)) == 2


async def test_a_harder_set_of_tasks_is_no_worse_model(watched: Watched) -> None:
    easy = Quality(score=9.0, low=8.0, high=9.5, version="1", at=1.0, tasks={"reasoning-1": 1.0})
    hard = Quality(score=5.0, low=3.5, high=6.5, version="2", at=2.0, tasks={"reasoning-1": 1.0})
    keep = keeping(watched, {("Test", "m"): found(quality=easy)})
    await verify(keep, found(quality=hard))
    assert latest(watched)["m"].quality == hard
    assert changes(watched) == []
