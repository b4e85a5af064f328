"""Pages of records: every one that is wanted, once, in order, whichever way they are found."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.records import Page, Wanted, id_before, moment_of, page
from manyways.store.reports import DAY, HOUR
from manyways.store.tables import usage_hourly
from manyways.store.usage import insert
from manyways.usage.record import UsageRecord
from tests.support.usage import NOON, fill, request, some, undone

wishes = st.builds(
    Wanted,
    start=st.none() | st.integers(int(NOON) - 5 * DAY, int(NOON)),
    end=st.none() | st.integers(int(NOON) - 5 * DAY, int(NOON)),
    key=st.sampled_from([None, "key-1"]),
    user=st.sampled_from([None, "ann", "bob"]),
    model=st.sampled_from([None, "gpt-4o", "nothing"]),
    provider=st.sampled_from([None, "Groq"]),
    status=st.sampled_from([None, 200, 503]),
    failed=st.booleans(),
)


def fits(record: UsageRecord, wanted: Wanted) -> bool:
    pairs = [
        (wanted.key, record.api_key_id),
        (wanted.user, record.user_id),
        (wanted.model, record.model),
        (wanted.provider, record.provider),
        (wanted.status, record.status_code),
    ]
    return (
        all(wish in (None, value) for wish, value in pairs)
        and (wanted.start is None or record.id > id_before(wanted.start))
        and (wanted.end is None or record.id < id_before(wanted.end))
        and (not wanted.failed or record.status_code >= 400)
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wishes, st.booleans(), st.integers(1, 50), st.integers(0, 3))
def test_page_by_page_all_that_are_wanted_come_once_and_in_order(
    database: Database, wanted: Wanted, oldest_first: bool, limit: int, seed: int
) -> None:
    made = some(150, seed=seed)

    def work(connection: Any) -> list[str]:
        insert(connection, made)
        found: list[str] = []
        cursor = None
        while True:
            records, cursor = page(
                connection, wanted, cursor=cursor, limit=limit, oldest_first=oldest_first
            )
            assert len(records) <= limit
            found += [record["id"] for record in records]
            if cursor is None:
                return found

    expected = sorted(one.id for one in made if fits(one, wanted))
    if not oldest_first:
        expected.reverse()
    assert undone(database, work) == expected


def asked(database: Database, wanted: Wanted, **how: Any) -> Page:
    return database.run(lambda connection: page(connection, wanted, **how))


def test_what_failed_long_ago_is_found_by_its_day(database: Database) -> None:
    seldom = request(NOON - 200 * DAY, status_code=503)
    fill(database, [seldom, *(request(NOON - day * DAY) for day in range(200))])
    old = usage_hourly.c.bucket < NOON - 90 * DAY
    database.run(lambda connection: connection.execute(delete(usage_hourly).where(old)), write=True)

    found = asked(database, Wanted(failed=True))
    assert [record["id"] for record in found.records] == [seldom.id]
    assert found.cursor is None


def test_a_page_that_looked_through_much_is_short_and_goes_on(database: Database) -> None:
    made = [
        request(NOON - hour * HOUR, model="rare", user_id="ann", api_key_id=f"key-{hour % 2}")
        for hour in range(0, 600, 2)
    ]
    # Both are there in every hour, but never together.
    made += [request(NOON - hour * HOUR - 9, status_code=503) for hour in range(600)]
    fill(database, made)
    first = asked(database, Wanted(model="rare"), limit=200)
    second = asked(database, Wanted(model="rare"), limit=1000, cursor=first.cursor)

    assert len(first.records) == 100
    assert first.cursor is not None
    assert len(second.records) == 100
    assert second.records[0]["id"] < first.records[-1]["id"]


def test_attempts_come_on_request(database: Database) -> None:
    fill(database, [request(NOON), request(NOON - 1, model=None, status_code=400)])
    plain = asked(database, Wanted()).records
    whole = asked(database, Wanted(), attempts=True).records

    assert "attempt_records" not in plain[0]
    assert [len(one["attempt_records"]) for one in whole] == [1, 0]
    assert whole[0]["attempt_records"][0]["started_at"] == "2025-11-25T12:00:00.000Z"
    assert whole[0]["created_at"] == "2025-11-25T12:00:00.000Z"
    assert whole[0]["stream"] is False


@pytest.mark.parametrize("moment", [0.0, NOON, NOON + 0.25])
def test_ids_are_told_apart_by_their_moment(moment: float) -> None:
    milliseconds = int(moment * 1000)
    before = new_id((milliseconds - 1) * 1_000_000) if moment else ""
    after = new_id(milliseconds * 1_000_000)

    assert before < id_before(moment) < after
    assert moment_of(after) == moment
