"""A report is the sum over the records, whichever roll-ups it was made from."""

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyways.errors import StoreError
from manyways.store.condensed import condense_day, condense_month, month_of
from manyways.store.database import Database
from manyways.store.reports import (
    DAY,
    EVERYTHING,
    HOUR,
    Dimension,
    Filters,
    Span,
    hurried,
    refusals,
    series,
    spans,
    sums,
)
from manyways.store.usage import bound, insert
from manyways.types import Usage
from manyways.usage.record import UsageRecord
from tests.support.usage import NOON, fill, refusal, request, some, undone

MIDNIGHT = int(NOON) // DAY * DAY
DIMENSIONS: tuple[Dimension, ...] = ("day", "hour", "model", "provider", "key", "user", "status")

groupings = st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=2).filter(
    lambda by: not {"day", "hour"} <= set(by)
)
filters = st.builds(
    Filters,
    key=st.sampled_from([None, "key-1"]),
    user=st.sampled_from([None, "ann"]),
    model=st.sampled_from([None, "gpt-4o"]),
    provider=st.sampled_from([None, "Capi"]),
    status=st.sampled_from([None, 200, 503]),
)
records = st.builds(
    lambda at, model, user, tokens, **rest: request(
        at,
        model=model[0],
        provider=model[1],
        user_id=user,
        usage=Usage(
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            cached_tokens=tokens[0] // 2,
            source=tokens[2],
        ),
        **rest,
    ),
    st.floats(NOON - 80 * DAY, NOON) | st.floats(NOON - 4 * DAY, NOON),
    model=st.sampled_from([("gpt-4o", "Capi"), ("gpt-4o", "Groq"), ("o3", "Capi"), (None, None)]),
    user=st.sampled_from([None, "ann", "bob"]),
    tokens=st.tuples(
        st.integers(0, 2**40), st.integers(0, 1000), st.sampled_from(["upstream", "estimated"])
    ),
    api_key_id=st.sampled_from(["key-1", "key-2"]),
    status_code=st.sampled_from([200, 400, 503]),
    response_time_ms=st.integers(0, 300_000),
    first_token_ms=st.none() | st.integers(0, 10_000),
    stream=st.booleans(),
    cost=st.none() | st.integers(0, 1000).map(lambda cents: cents / 64),
)


def value(record: UsageRecord, dimension: Dimension) -> Any:
    at = int(record.created_at)
    return {
        "day": at // DAY * DAY,
        "hour": at // HOUR * HOUR,
        "model": record.model or "",
        "provider": record.provider or "",
        "key": record.api_key_id,
        "user": record.user_id or "",
        "status": record.status_code,
    }[dimension]


def added(found: list[UsageRecord]) -> dict[str, Any]:
    """The sums of these records, the long way."""
    responses, firsts = [0] * 32, [0] * 32
    for one in found:
        responses[bound(one.response_time_ms)] += 1
        if one.first_token_ms is not None:
            firsts[bound(one.first_token_ms)] += 1
    return {
        "requests": len(found),
        "errors": sum(one.status_code >= 400 for one in found),
        "attempts": sum(len(one.attempts) for one in found),
        "streams": sum(one.stream for one in found),
        "estimated": sum(one.usage.source == "estimated" for one in found),
        "prompt_tokens": sum(one.usage.prompt_tokens for one in found),
        "completion_tokens": sum(one.usage.completion_tokens for one in found),
        "cached_tokens": sum(one.usage.cached_tokens for one in found),
        "reasoning_tokens": 0,
        "cost": sum(one.cost or 0.0 for one in found),
        "response_ms": sum(one.response_time_ms for one in found),
        "first_token_ms": sum(one.first_token_ms or 0 for one in found),
        "first_tokens": sum(one.first_token_ms is not None for one in found),
        "responses": tuple(responses),
        "firsts": tuple(firsts),
        "refused": None,
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(records, max_size=30),
    by=groupings,
    only=filters,
    hours=st.tuples(st.integers(0, 2000), st.integers(1, 2000)),
    condensed=st.sets(st.integers(0, 80)),
    months=st.sets(st.integers(0, 2)),
)
def test_the_sums_of_every_group_are_those_of_its_records(
    database: Database,
    *,
    made: list[UsageRecord],
    by: list[Dimension],
    only: Filters,
    hours: tuple[int, int],
    condensed: set[int],
    months: set[int],
) -> None:
    start = MIDNIGHT - 80 * DAY + hours[0] * HOUR
    end = start + hours[1] * HOUR
    parts = spans(start, end, now=NOON, hourly="hour" in by)
    last = max(part.end for part in parts)

    def work(connection: Any) -> Any:
        insert(connection, made[::2])
        for day in condensed:
            condense_day(connection, MIDNIGHT - day * DAY)
        for month in months:
            condense_month(connection, month_of(MIDNIGHT - (month * 30 + 26) * DAY))
        insert(connection, made[1::2])
        return sums(connection, parts, by, only, at_most=1000)

    found = undone(database, work)

    groups = defaultdict(list)
    for one in made:
        fits = all(
            getattr(only, name) in (None, value(one, name))
            for name in DIMENSIONS
            if name in only.__struct_fields__
        )
        if start <= one.created_at < last and fits:
            groups[tuple(value(one, name) for name in by)].append(one)
    assert {
        group: {name: getattr(row, name) for name in row.__struct_fields__}
        for group, row in found.items()
    } == {group: added(of) for group, of in groups.items()}


def test_what_comes_while_a_day_is_condensed_is_not_missed(database: Database) -> None:
    came, go_on = threading.Event(), threading.Event()
    parts = [Span("usage_daily", MIDNIGHT, MIDNIGHT + DAY)]
    fill(database, [request()])

    def late(connection: Any) -> None:
        insert(connection, [request()])
        came.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(database.run, late, write=True, isolated=False)
        assert came.wait(10)
        condensing = threads.submit(
            database.run, lambda one: condense_day(one, MIDNIGHT), write=True, isolated=False
        )
        go_on.set()
        writing.result(10)
        condensing.result(10)
    found = database.run(lambda connection: sums(connection, parts, ["key"], at_most=9))

    assert found["key-1",].requests == 2


def test_whole_days_come_from_the_days_and_the_rest_from_the_hours() -> None:
    start, end = MIDNIGHT - 3 * DAY + 20 * HOUR, MIDNIGHT + 2 * HOUR

    assert spans(start, end, now=NOON + DAY, hourly=False) == [
        Span("usage_hourly", start, MIDNIGHT - 2 * DAY),
        Span("usage_daily", MIDNIGHT - 2 * DAY, MIDNIGHT),
        Span("usage_hourly", MIDNIGHT, end),
    ]


def test_the_day_that_has_not_ended_is_asked_for_whole() -> None:
    end = int(NOON) + HOUR

    assert spans(MIDNIGHT - DAY, end, now=NOON, hourly=False) == [
        Span("usage_daily", MIDNIGHT - DAY, MIDNIGHT + DAY)
    ]


def test_a_few_hours_come_from_the_hours_alone() -> None:
    start = MIDNIGHT + HOUR

    assert spans(start, start + HOUR, now=NOON, hourly=False) == [
        Span("usage_hourly", start, start + HOUR)
    ]
    assert spans(MIDNIGHT - DAY, MIDNIGHT, now=NOON, hourly=True) == [
        Span("usage_hourly", MIDNIGHT - DAY, MIDNIGHT)
    ]


def test_more_groups_than_wanted_show(database: Database) -> None:
    fill(database, [request(api_key_id=f"key-{number}") for number in range(5)])
    parts = [Span("usage_daily", MIDNIGHT, MIDNIGHT + DAY)]
    found = database.run(lambda connection: sums(connection, parts, ["key"], at_most=3))

    assert len(found) == 4


def test_refusals_are_counted_where_they_belong_to_a_group(database: Database) -> None:
    fill(
        database,
        [],
        [
            refusal(NOON, count=7),
            refusal(NOON + 60, count=2, api_key_id="key-2", user_id="ann"),
            refusal(NOON - DAY, count=1),
        ],
    )

    def ask(*by: Dimension, only: Filters = EVERYTHING) -> dict[Any, int] | None:
        return database.run(
            lambda connection: refusals(connection, MIDNIGHT - DAY, MIDNIGHT + DAY, by, only)
        )

    assert ask("day") == {(MIDNIGHT,): 9, (MIDNIGHT - DAY,): 1}
    assert ask("hour", "key") == {
        (int(NOON), "key-1"): 7,
        (int(NOON), "key-2"): 2,
        (int(NOON) - DAY, "key-1"): 1,
    }
    assert ask("user") == {("",): 8, ("ann",): 2}
    assert ask("key", only=Filters(user="ann")) == {("key-2",): 2}
    assert ask("model") is None
    assert ask("day", only=Filters(status=200)) is None


def test_a_series_has_the_requests_of_each_step(database: Database) -> None:
    made = some(300, days=2)
    fill(database, made)
    parts = spans(MIDNIGHT - 3 * DAY, MIDNIGHT + DAY, now=NOON, hourly=False)
    days = database.run(lambda connection: series(connection, parts, ["model"], step=DAY))

    expected: dict[Any, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for one in made:
        expected[one.model,][int(one.created_at) // DAY * DAY] += 1
    assert days == expected


def test_what_takes_too_long_is_ended_and_the_database_goes_on(database: Database) -> None:
    forever = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )

    def work(connection: Any) -> None:
        with hurried(connection, 0.2):
            connection.exec_driver_sql(forever)

    with pytest.raises(StoreError, match=r"took longer than 0\.2 s"):
        database.run(work)
    assert database.run(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
