"""Reports are asked for in words, and told in figures that are right."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.access.keys import Settings as KeySettings
from manyways.errors import StoreError
from manyways.operations import create_account, create_key
from manyways.operations.desk import AT_ONCE, WAITING, Desk, TooMany
from manyways.operations.reports import (
    BadQuestion,
    Question,
    Report,
    answer,
    ask,
    over_time,
    percentile,
    wanted,
)
from manyways.store.database import Database
from manyways.store.reports import DAY, GivenUp
from manyways.store.usage import bound
from tests.support.usage import NOON, fill, refusal, request, some


def question(database: Database, **words: Any) -> Question:
    return database.run(lambda connection: ask(connection, **{"now": NOON, **words}))


def report(database: Database, **words: Any) -> Report:
    def work(connection: Any) -> Report:
        return answer(connection, ask(connection, **{"now": NOON, **words}))

    return database.run(work)


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
class TestQuestions:
    """What the words of a question mean."""

    @pytest.mark.parametrize(
        ("words", "start", "end"),
        [
            ({}, "2025-10-27", "2025-11-25T13:00"),
            ({"by": "model"}, "2025-10-27", "2025-11-25T13:00"),
            ({"by": "hour"}, "2025-11-24T13:00", "2025-11-25T13:00"),
            ({"last": "1d"}, "2025-11-25", "2025-11-25T13:00"),
            ({"last": "2w"}, "2025-11-12", "2025-11-25T13:00"),
            ({"last": "24h"}, "2025-11-24T13:00", "2025-11-25T13:00"),
            ({"since": "2025-11-01"}, "2025-11-01", "2025-11-25T13:00"),
            ({"since": "2025-11-01", "until": "2025-11-02"}, "2025-11-01", "2025-11-03"),
            (
                {"since": "2025-11-01T10:59Z", "until": "2025-11-01T12:01"},
                "2025-11-01T10:00",
                "2025-11-01T13:00",
            ),
            (
                {"since": "2025-11-01T10:00 03:00", "until": "2025-11-01T14:00+03:00"},
                "2025-11-01T07:00",
                "2025-11-01T11:00",
            ),
            ({"until": "2025-11-10"}, "2025-10-12", "2025-11-11"),
        ],
    )
    def test_a_span_can_be_said_in_many_ways(
        self, database: Database, words: dict[str, str], start: str, end: str
    ) -> None:
        asked = question(database, **words)

        assert (asked.start, asked.end) == (seconds(start), seconds(end))

    @pytest.mark.parametrize(
        ("words", "field"),
        [
            ({"by": "colour"}, "group_by"),
            ({"by": "day,hour"}, "group_by"),
            ({"by": "day,model,key"}, "group_by"),
            ({"by": "model,model"}, "group_by"),
            ({"by": ""}, "group_by"),
            ({"since": "yesterday"}, "from"),
            ({"since": "0001-01-01"}, "from"),
            ({"until": "2025-13-01"}, "to"),
            ({"since": "2025-11-02", "until": "2025-11-01"}, "from"),
            ({"until": "2025-11-01T10:00", "since": "2025-11-02"}, "from"),
            ({"last": "7 days"}, "last"),
            ({"last": "9999w"}, "last"),
            ({"last": "7d", "since": "2025-11-01"}, "last"),
            ({"since": "2025-03-01T10:00"}, "from"),
            ({"by": "hour", "since": "2025-03-01", "until": "2025-03-02"}, "from"),
            ({"status": "ok"}, "status"),
            ({"key": "nobody"}, "key"),
            ({"account": "nobody"}, "user"),
            ({"model": "a\0b"}, "model"),
            ({"key": "\0"}, "key"),
        ],
    )
    def test_what_cannot_be_is_told_with_its_field(
        self, database: Database, words: dict[str, str], field: str
    ) -> None:
        with pytest.raises(BadQuestion) as told:
            question(database, **words)

        assert told.value.field == field

    def test_whole_days_of_long_ago_can_be_had(self, database: Database) -> None:
        asked = question(database, since="2024-01-01", until="2024-12-31", by="model")

        assert [part.table for part in asked.parts] == ["usage_daily"]

    def test_dimensions_of_time_come_first(self, database: Database) -> None:
        assert question(database, by="model, day").by == ("day", "model")

    def test_keys_and_accounts_are_found_by_what_people_call_them(self, database: Database) -> None:
        account = create_account(database, name="Ada", now=NOON)
        made = create_key(database, KeySettings(), "full", now=NOON)

        asked = question(database, key=made.last4, account="Ada")
        assert (asked.filters.key, asked.filters.user) == (made.id, account.id)
        assert question(database, key=made.id, account=account.id).filters == asked.filters


def test_the_latest_records_are_those_up_to_now(database: Database) -> None:
    found = database.run(lambda connection: wanted(connection, now=NOON + 90, last="1h"))

    assert (found.start, found.end) == (NOON + 90 - 3600, None)
    with pytest.raises(BadQuestion) as told:
        database.run(lambda one: wanted(one, now=NOON, last="1h", until="2025-11-25"))
    assert told.value.field == "last"


def test_an_account_that_is_spelled_alike_is_named(database: Database) -> None:
    create_account(database, name="Ada Ltd", now=NOON)

    with pytest.raises(BadQuestion, match="Did you mean 'Ada Ltd'"):
        question(database, account="ada lt")


class TestReports:
    """What is told."""

    def test_an_empty_one_has_totals(self, database: Database) -> None:
        found = report(database).document()

        assert found["data"] == []
        assert found["totals"]["requests"] == 0
        assert found["totals"]["refused"] == 0
        assert found["totals"]["response_ms"] == {
            "mean": None, "p50": None, "p95": None, "p99": None,
        }  # fmt: skip

    def test_totals_are_the_sums_of_the_rows_however_it_is_grouped(
        self, database: Database
    ) -> None:
        made = some(400)
        fill(database, made, [refusal(count=5)])
        for by in ("day", "hour", "model", "provider", "key", "user", "status", "day,key"):
            found = report(database, by=by, last="96h")
            rows, totals = found.document()["data"], found.document()["totals"]

            assert totals["requests"] == len(made) == sum(row["requests"] for row in rows)
            assert totals["total_tokens"] == sum(one.usage.total_tokens for one in made)
            assert totals["cost"] == pytest.approx(sum(one.cost or 0 for one in made))
            assert totals["errors"] == sum(row["errors"] for row in rows)
            assert totals["refused"] == (None if by in ("model", "provider", "status") else 5)

    def test_time_goes_on_and_groups_come_by_their_size(self, database: Database) -> None:
        fill(database, some(300))
        days = [row["day"] for row in report(database).document()["data"]]
        models = [row["requests"] for row in report(database, by="model").document()["data"]]

        assert days == sorted(days)
        assert models == sorted(models, reverse=True)

    def test_keys_and_accounts_are_named(self, database: Database) -> None:
        account = create_account(database, name="Ada", now=NOON)
        key = create_key(database, KeySettings(), "full", note="bot", account="Ada", now=NOON)
        fill(database, [request(api_key_id=key.id, user_id=account.id), request(model=None)])
        named, other = report(database, by="key").document()["data"]
        names = ("key", "last4", "note", "account")

        assert [named[name] for name in names] in (
            [key.id, key.last4, "bot", "Ada"],
            ["key-1", None, None, None],
        )
        assert {named["key"], other["key"]} == {key.id, "key-1"}
        users = report(database, by="user").document()["data"]
        assert {(row["user"], row["account"]) for row in users} == {
            (account.id, "Ada"),
            (None, None),
        }

    def test_who_was_only_refused_has_a_row_too(self, database: Database) -> None:
        fill(database, [], [refusal(count=3)])
        (row,) = report(database, by="key").document()["data"]

        assert (row["requests"], row["refused"]) == (0, 3)

    def test_a_report_has_an_end(self, database: Database) -> None:
        fill(database, [request(api_key_id=f"key-{number}") for number in range(5)])
        asked = question(database, by="key")

        assert len(database.run(lambda one: answer(one, asked, at_most=5)).rows) == 5
        with pytest.raises(BadQuestion, match="more than 4 rows") as told:
            database.run(lambda one: answer(one, asked, at_most=4))
        assert told.value.field == "group_by"

    def test_cells_are_flat_and_in_the_order_of_the_document(self, database: Database) -> None:
        fill(database, [request(response_time_ms=1000)])
        (row,) = report(database, by="day,model").rows
        cells = row.cells()

        assert list(cells)[:4] == ["day", "model", "requests", "errors"]
        assert cells["response_ms_mean"] == 1000
        assert not any(isinstance(cell, dict) for cell in cells.values())

    def test_over_time_there_is_a_figure_for_every_step(self, database: Database) -> None:
        fill(database, [request(NOON), request(NOON - DAY), request(NOON - DAY)])

        def work(**words: Any) -> Any:
            return database.run(
                lambda connection: over_time(connection, ask(connection, now=NOON, **words))
            )

        assert work(by="model", last="4d") == {("gpt-4o",): [0, 0, 2, 1]}
        assert work(by="model", last="3h") == {("gpt-4o",): [0, 0, 1]}


class TestPercentiles:
    @given(
        st.lists(st.floats(0, 200_000), min_size=1, max_size=300),
        st.sampled_from([0.5, 0.95, 0.99]),
    )
    def test_what_is_told_is_off_by_less_than_the_documented_error(
        self, times: Sequence[float], share: float
    ) -> None:
        histogram = [0] * 32
        for one in times:
            histogram[bound(one)] += 1
        rank = max(1, -int(-share * len(times) // 1))
        true = sorted(times)[rank - 1]
        told = percentile(histogram, share)

        assert told is not None
        assert abs(told - true) <= max(0.42 * true, 5.0) + 0.1

    def test_of_many_that_are_spread_evenly_it_is_nearly_exact(self) -> None:
        chance = Random(7)
        times = [chance.uniform(0, 4000) for _ in range(50_000)]
        histogram = [0] * 32
        for one in times:
            histogram[bound(one)] += 1

        assert percentile(histogram, 0.5) == pytest.approx(2000, rel=0.03)

    @given(st.lists(st.integers(0, 200_000), min_size=1, max_size=5))
    def test_of_few_it_is_never_more_than_they_can_have_taken(self, times: Sequence[int]) -> None:
        histogram = [0] * 32
        for one in times:
            histogram[bound(one)] += 1
        told = percentile(histogram, 0.99, total=sum(times))

        assert told is not None
        assert told <= sum(times)
        assert len(times) > 1 or told == times[0]

    def test_of_nothing_there_is_none(self) -> None:
        assert percentile([0] * 32, 0.5) is None


class TestDesk:
    """Long questions wait for each other, never anybody else for them."""

    @pytest.fixture
    def desk(self, database: Database) -> Any:
        desk = Desk(database)
        yield desk
        desk.close()

    async def test_a_few_are_worked_on_at_once_and_the_others_wait(self, desk: Desk) -> None:
        begun: list[int] = []
        together = threading.Semaphore(0)
        go_on = threading.Event()

        def work(connection: Any) -> None:
            begun.append(1)
            together.release()
            assert go_on.wait(10)

        asked = [asyncio.ensure_future(desk.ask(work)) for _ in range(AT_ONCE + 2)]
        for _ in range(AT_ONCE):
            assert await asyncio.to_thread(together.acquire, timeout=10)
        assert len(begun) == AT_ONCE
        go_on.set()
        await asyncio.gather(*asked)
        assert len(begun) == AT_ONCE + 2

    async def test_a_crowd_is_turned_away(self, desk: Desk) -> None:
        go_on = threading.Event()
        asked = [asyncio.ensure_future(desk.ask(lambda _: go_on.wait(10))) for _ in range(WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="wait already"):
            await desk.ask(lambda _: None)
        go_on.set()
        assert all(await asyncio.gather(*asked))

    async def test_where_each_has_so_many_others_find_room(self, database: Database) -> None:
        desk = Desk(database, at_once=1, waiting=3, each=2)
        go_on = threading.Event()

        def work(connection: Any) -> bool:
            return go_on.wait(10)

        asked = [asyncio.ensure_future(desk.ask(work, who="one")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany, match="2 reports for you"):
            await desk.ask(work, who="one")
        asked.append(asyncio.ensure_future(desk.ask(work, who="other")))
        await asyncio.sleep(0)
        with pytest.raises(GivenUp, match="3 reports wait already"):
            await desk.ask(work, who="third")
        go_on.set()
        assert all(await asyncio.gather(*asked))
        assert await desk.ask(work, who="one")
        desk.close()

    async def test_one_that_takes_too_long_is_given_up_and_ended(self, desk: Desk) -> None:
        ended = threading.Event()

        def forever(connection: Any) -> None:
            try:
                connection.exec_driver_sql(
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                    " SELECT count(*) FROM n"
                )
            finally:
                ended.set()

        with pytest.raises(StoreError, match=r"0\.1 s"):
            await desk.ask(forever, limit=0.1)
        assert await asyncio.to_thread(ended.wait, 10)

    async def test_behind_its_end_nothing_is_begun(self, desk: Desk) -> None:
        desk.close()
        with pytest.raises(StoreError, match="being stopped"):
            await desk.ask(lambda _: None)
