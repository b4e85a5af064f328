"""The account of usage: exactly once, in rows and in sums, whoever writes and how often."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection, Table, func, select

from manyways.store import tables, usage
from manyways.store.condensed import condense_day
from manyways.store.database import Database, Settings, open_database
from manyways.store.ids import new_id
from manyways.types import Usage
from manyways.usage.record import OURS, RefusalRecord, UsageRecord
from tests.support.records import NOON, attempt, record

HOUR = 1_770_033_600
DAY = 1_769_990_400
AT_NOON = datetime.fromtimestamp(NOON, UTC).replace(tzinfo=None)


def rows(database: Database, table: Table) -> list[dict[str, Any]]:
    def read(connection: Connection) -> list[dict[str, Any]]:
        query = select(table).order_by(*table.primary_key)
        return [dict(row) for row in connection.execute(query).mappings()]

    return database.run(read)


def insert(
    database: Database, requests: Sequence[UsageRecord], refusals: Sequence[RefusalRecord] = ()
) -> int:
    return database.run(partial(usage.insert, requests=requests, refusals=refusals), write=True)


def everything(database: Database) -> list[list[dict[str, Any]]]:
    written = (
        tables.usage_stats,
        tables.usage_attempts,
        tables.usage_refusals,
        tables.usage_hourly,
        tables.usage_daily,
    )
    return [rows(database, table) for table in written]


def make_key(database: Database, id: str, **fields: Any) -> None:  # noqa: A002
    values = {
        "id": id,
        "digest": id.encode().ljust(32),
        "last4": "abcd",
        "type": "full",
        "created_at": 0,
        "change": 7,
        **fields,
    }
    database.run(lambda c: c.execute(tables.api_keys.insert().values(values)), write=True)


def test_a_record_becomes_a_row_with_every_field(database: Database) -> None:
    full = record(
        user_id="u",
        requested_model="auto",
        requested_provider="Capi",
        stream=True,
        usage=Usage(
            prompt_tokens=7,
            completion_tokens=5,
            cached_tokens=3,
            reasoning_tokens=2,
            source="estimated",
        ),
        first_token_ms=40,
        error_code="timeout",
        error_message="it took too long",
        client_request_id="mine",
    )
    assert insert(database, [full]) == 1
    assert rows(database, tables.usage_stats) == [
        {
            "id": full.id,
            "created_at": AT_NOON,
            "api_key_id": "k",
            "user_id": "u",
            "endpoint": "/chat/completions",
            "requested_model": "auto",
            "requested_provider": "Capi",
            "model": "gpt-4o",
            "provider": "Capi",
            "attempts": 1,
            "stream": 1,
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 12,
            "cached_tokens": 3,
            "reasoning_tokens": 2,
            "usage_source": "estimated",
            "response_time_ms": 100,
            "first_token_ms": 40,
            "status_code": 200,
            "error_code": "timeout",
            "error_message": "it took too long",
            "cost": 0.5,
            "client_request_id": "mine",
        }
    ]


def test_its_attempts_become_rows_in_the_order_they_began(database: Database) -> None:
    failed = attempt(outcome="reset", status_code=502, error_message="gone", method=None, cost=0.25)
    carried_on = attempt(
        provider="Other",
        method="replay",
        first_token_ms=12,
        usage=Usage(prompt_tokens=1, completion_tokens=2, source="upstream"),
    )
    one = record(attempts=(failed, carried_on))
    insert(database, [one])
    first, second = rows(database, tables.usage_attempts)
    assert (first["request_id"], first["number"], second["number"]) == (one.id, 0, 1)
    assert first["started_at"] == AT_NOON
    assert (first["outcome"], first["status_code"], first["error_message"], first["cost"]) == (
        "reset",
        502,
        "gone",
        0.25,
    )
    assert (second["provider"], second["method"], second["total_tokens"]) == ("Other", "replay", 3)


def test_refusals_are_counted_by_minute(database: Database) -> None:
    refused = RefusalRecord(
        id="r", minute=HOUR + 600, api_key_id="k", code="rate_limit_exceeded", count=17
    )
    assert insert(database, [], [refused]) == 1
    assert insert(database, [], [refused]) == 0
    (row,) = rows(database, tables.usage_refusals)
    assert (row["minute"], row["count"]) == (AT_NOON.replace(microsecond=0), 17)


def test_texts_that_a_database_does_not_take_are_made_fit(database: Database) -> None:
    insert(
        database,
        [
            record(
                requested_model="gpt\0-4o\ud800",
                error_message="ж" * 600 + "\0",
                client_request_id="a\udfff",
                model="\0",
                attempts=(attempt(error_message="\0" * 600, upstream_model="\ud83d"),),
            )
        ],
    )
    (row,) = rows(database, tables.usage_stats)
    assert row["requested_model"] == "gpt\ufffd-4o\ufffd"
    assert row["error_message"] == "ж" * 500
    assert row["client_request_id"] == "a\ufffd"
    assert rows(database, tables.usage_hourly)[0]["model"] == "\ufffd"
    (tried,) = rows(database, tables.usage_attempts)
    assert (tried["error_message"], tried["upstream_model"]) == ("\ufffd" * 500, "\ufffd")


def test_the_same_records_again_change_nothing(database: Database) -> None:
    some = [record() for _ in range(70)]
    assert insert(database, some) == 70
    before = everything(database)
    assert insert(database, some) == 0
    assert everything(database) == before


def test_of_known_and_new_records_in_any_mixture_the_new_ones_are_written(
    database: Database,
) -> None:
    some = [record() for _ in range(60)]
    insert(database, some[10:20] + some[33:34] + some[59:])
    assert insert(database, some) == 60 - 12
    assert len(rows(database, tables.usage_stats)) == 60
    (hour,) = rows(database, tables.usage_hourly)
    assert (hour["requests"], hour["prompt_tokens"]) == (60, 600)


def test_a_record_twice_in_one_batch_is_one_record(database: Database) -> None:
    one, other = record(), record()
    assert insert(database, [one, other, one]) == 2
    (day,) = rows(database, tables.usage_daily)
    assert (day["requests"], day["attempts"]) == (2, 2)


def test_two_ledgers_with_the_same_records_at_once_write_each_once(database: Database) -> None:
    some = [record(api_key_id=f"k{i % 7}") for i in range(300)]
    errors: list[Exception] = []

    def write(order: Sequence[UsageRecord], size: int) -> None:
        try:
            for start in range(0, len(order), size):
                insert(database, order[start : start + size])
        except Exception as error:  # noqa: BLE001 - told in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=write, args=(some, size)) for size in (11, 50, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(rows(database, tables.usage_stats)) == 300
    assert sum(row["requests"] for row in rows(database, tables.usage_hourly)) == 300
    assert sum(row["r9"] for row in rows(database, tables.usage_daily)) == 300


def test_a_row_that_no_database_takes_is_refused_and_nothing_is_written(
    database: Database,
) -> None:
    odd = record(usage=Usage(prompt_tokens=2**70, source="upstream"))
    with pytest.raises(usage.RowRefused):
        insert(database, [record(), odd])
    with pytest.raises(usage.RowRefused):
        insert(database, [record(), record(created_at=1e30)])
    assert everything(database) == [[], [], [], [], []]


def test_sums_hold_what_reports_ask_for(database: Database) -> None:
    insert(
        database,
        [
            record(user_id="u", stream=True, first_token_ms=4, response_time_ms=5),
            record(
                user_id="u",
                cost=None,
                response_time_ms=10**9,
                usage=Usage(prompt_tokens=1, cached_tokens=1, source="estimated"),
            ),
            record(status_code=503, error_code="all_models_failed", model=None, provider=None),
        ],
    )
    lost, good = rows(database, tables.usage_hourly)
    assert (lost["bucket"], lost["user_id"], lost["model"], lost["provider"]) == (HOUR, "", "", "")
    assert (lost["requests"], lost["counted"], lost["status_code"]) == (1, 0, 503)
    assert good["user_id"] == "u"
    told = ("requests", "counted", "attempts", "streams", "estimated", "cost", "cached_tokens")
    assert [good[name] for name in told] == [2, 2, 2, 1, 1, 0.5, 1]
    assert (good["response_ms"], good["first_token_ms"], good["first_tokens"]) == (10**9 + 5, 4, 1)
    assert (good["r1"], good["r31"], good["f0"]) == (1, 1, 1)
    days = rows(database, tables.usage_daily)
    assert [{**row, "bucket": HOUR} for row in days] == [lost, good]
    assert {row["bucket"] for row in days} == {DAY}


@given(st.floats(0, 1e9))
def test_a_histogram_counts_what_took_less_than_its_columns_bound(milliseconds: float) -> None:
    column = usage.bound(milliseconds)
    assert column == tables.HISTOGRAM - 1 or milliseconds < 5 * 2 ** (column / 2)
    assert column == 0 or milliseconds >= 5 * 2 ** ((column - 1) / 2)


records = st.builds(
    record,
    created_at=st.floats(NOON - 90_000, NOON + 90_000),
    api_key_id=st.sampled_from("ab"),
    user_id=st.sampled_from([None, "u"]),
    model=st.sampled_from([None, "m", "n"]),
    status_code=st.sampled_from([200, 400, 500]),
    error_code=st.sampled_from([None, "invalid_request", *OURS]),
    attempts=st.lists(st.just(attempt()), max_size=2).map(tuple),
    response_time_ms=st.integers(0, 200_000),
    first_token_ms=st.none() | st.integers(0, 200_000),
    stream=st.booleans(),
    usage=st.builds(
        Usage,
        prompt_tokens=st.integers(0, 10**6),
        completion_tokens=st.integers(0, 10**6),
        source=st.sampled_from(["upstream", "estimated", "none"]),
    ),
    cost=st.none() | st.integers(0, 1000).map(lambda n: n / 8),
)


@settings(max_examples=25)
@given(st.lists(st.lists(records, max_size=12), max_size=4))
def test_sums_are_the_sums_of_rows(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[UsageRecord]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("sums")
    database = open_database(Settings(url=f"sqlite:///{folder}/test.db"))
    try:
        for batch in batches:
            insert(database, batch)
        sums = tables.usage_hourly.c
        stats = tables.usage_stats.c
        requests = [each for batch in batches for each in batch]
        for table in (tables.usage_hourly, tables.usage_daily):
            kept = rows(database, table)
            assert sum(row["requests"] for row in kept) == len(requests)
            assert sum(row["counted"] for row in kept) == sum(each.counted for each in requests)
            assert sum(row[f"r{i}"] for row in kept for i in range(32)) == len(requests)
            assert sum(row[f"f{i}"] for row in kept for i in range(32)) == sum(
                each.first_token_ms is not None for each in requests
            )

        def by_model(connection: Connection) -> tuple[list[Any], list[Any]]:
            figures = (sums.prompt_tokens, sums.completion_tokens, sums.response_ms, sums.cost)
            summed = select(sums.model, sums.status_code, *map(func.sum, figures))
            counted = select(
                func.coalesce(stats.model, ""),
                stats.status_code,
                *map(func.sum, (stats.prompt_tokens, stats.completion_tokens)),
                func.sum(stats.response_time_ms),
                func.sum(func.coalesce(stats.cost, 0.0)),
            )
            return (
                list(connection.execute(summed.group_by(sums.model, sums.status_code))),
                list(connection.execute(counted.group_by(stats.model, stats.status_code))),
            )

        summed, counted = database.run(by_model)
        assert sorted(map(tuple, summed)) == sorted(map(tuple, counted))
        past = database.run(partial(usage.recent, scope_id="key:a", since=0, slice_=0.0))
        wanted = [each for each in requests if each.api_key_id == "a" and each.counted]
        assert sum(count for _, count, _ in past) == len(wanted)
        assert sum(tokens for *_, tokens in past) == sum(each.usage.total_tokens for each in wanted)
    finally:
        database.close()


def test_a_keys_last_use_goes_forward_once_a_minute_and_touches_nothing_else(
    database: Database,
) -> None:
    make_key(database, "k")

    def used(moment: float) -> int | None:
        insert(database, [record(created_at=moment)])
        (row,) = rows(database, tables.api_keys)
        assert row["change"] == 7
        last: int | None = row["last_used_at"]
        return last

    assert used(NOON) == int(NOON)
    assert used(NOON + 59) == int(NOON)
    assert used(NOON + 60) == int(NOON) + 60
    assert used(NOON - 1000) == int(NOON) + 60


def test_totals_are_of_all_keys_of_a_line_or_an_account(database: Database) -> None:
    make_key(database, "old", account_id="u")
    make_key(database, "new", line="old", account_id="u")
    insert(
        database,
        [
            record(api_key_id="old", user_id="u", created_at=DAY - 1),
            record(api_key_id="new", user_id="u"),
            record(api_key_id="new", user_id="u", status_code=500),
            record(api_key_id="another", user_id="u"),
            record(api_key_id="another", user_id="v"),
        ],
    )

    def totals(scope_id: str, since: int | None = None) -> usage.Totals:
        return database.run(partial(usage.totals, scope_id=scope_id, since=since))

    assert totals("key:old") == usage.Totals(2, 45, 1.5)
    assert totals("key:old", DAY) == usage.Totals(1, 30, 1.0)
    assert totals("account:u") == usage.Totals(3, 60, 2.0)
    assert totals("account:nobody") == usage.Totals(0, 0, 0.0)


def test_the_recent_past_is_what_counts_oldest_first(database: Database) -> None:
    make_key(database, "old", account_id="u")
    make_key(database, "new", line="old", account_id="u")
    ids = [usage.first_of(NOON + i)[:-1] + "1" for i in range(6)]
    insert(
        database,
        [
            record(id=ids[2], created_at=NOON + 2, api_key_id="new", user_id="u"),
            record(id=ids[1], created_at=NOON + 1, api_key_id="old", user_id="u"),
            record(id=ids[0], created_at=NOON, api_key_id="old", user_id="u"),
            record(id=ids[3], api_key_id="old", user_id="u", attempts=()),
            record(id=ids[4], api_key_id="old", user_id="u", error_code="shutting_down"),
            record(id=ids[5], api_key_id="stranger", user_id="v"),
        ],
    )

    def recent(scope_id: str, slice_: float = 0.0) -> list[tuple[float, int, int]]:
        return database.run(partial(usage.recent, scope_id=scope_id, since=NOON + 1, slice_=slice_))

    assert recent("key:old") == [(NOON + 1.1, 1, 15), (NOON + 2.1, 1, 15)]
    assert recent("key:old", slice_=86_400.0) == [(NOON + 2.1, 3, 45)], "on the strict side"
    assert recent("account:u") == recent("key:old")
    assert recent("key:nobody") == []


def test_a_request_may_have_been_let_in_as_late_as_at_its_end(database: Database) -> None:
    """Its body may have come slowly. But nobody waits for a body for an hour."""
    make_key(database, "k")
    came = {"slow": (-20.0, 25_000), "quick": (-12.0, 1_000), "long": (-3000.0, 3_600_000)}
    insert(
        database,
        [
            record(id=usage.first_of(NOON + at), created_at=NOON + at, response_time_ms=took)
            for at, took in came.values()
        ],
    )

    def recent(since: float) -> list[float]:
        past = database.run(partial(usage.recent, scope_id="key:k", since=NOON + since, slice_=0.0))
        return [moment - NOON for moment, _, _ in past]

    assert recent(-10.0) == [5.0]
    assert recent(-20.0) == [-11.0, 5.0]
    assert recent(-3600.0) == [-2700.0, -11.0, 5.0]


def test_the_past_counts_by_the_records_own_rule(database: Database) -> None:
    every = [
        record(api_key_id="k" if known else "other", error_code=code, status_code=status,
               attempts=tried)
        for known in (True, False)
        for code in (None, "content_filter", *sorted(OURS))
        for status in (200, 499, 500, 503)
        for tried in ((), (attempt(),))
    ]  # fmt: skip
    insert(database, every)
    past = database.run(partial(usage.recent, scope_id="key:k", since=0, slice_=0.0))
    assert (
        sum(count for _, count, _ in past)
        == sum(each.counted for each in every if each.api_key_id == "k")
        == 4
    )


@given(st.integers(0, 4_000_000_000_000))
def test_no_id_of_a_moment_is_smaller_than_its_first(milliseconds: int) -> None:
    made = new_id(milliseconds * 1_000_000)
    assert usage.first_of(milliseconds / 1000) <= made < usage.first_of(milliseconds / 1000 + 0.002)


# Corrections


def told(**tokens: int) -> Usage:
    return Usage(**{"prompt_tokens": 10, "completion_tokens": 5, **tokens}, source="upstream")


ESTIMATED = Usage(prompt_tokens=9, completion_tokens=2, source="estimated")
AS_ESTIMATED = record(
    status_code=499,
    usage=ESTIMATED,
    cost=0.02,
    attempts=(attempt(outcome="cancelled", usage=ESTIMATED, cost=0.02),),
)
AS_TOLD = replace(
    AS_ESTIMATED,
    usage=told(cached_tokens=3),
    cost=0.05,
    attempts=(replace(AS_ESTIMATED.attempts[0], usage=told(cached_tokens=3), cost=0.05),),
)
CORRECTION = replace(AS_TOLD, corrects=True)


def without_dust(tables: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Sums of costs may differ by what floating point leaves."""
    for row in (row for table in tables for row in table):
        row["cost"] = row.get("cost") and round(row["cost"], 9)
    return tables


@pytest.mark.parametrize(
    "batches",
    [
        [[AS_ESTIMATED], [CORRECTION]],
        [[AS_ESTIMATED, CORRECTION]],
        [[CORRECTION], [AS_ESTIMATED]],
        [[CORRECTION]],
        [[AS_ESTIMATED], [CORRECTION], [AS_ESTIMATED, CORRECTION], [CORRECTION, CORRECTION]],
        [[record(status_code=499), AS_ESTIMATED], [record(status_code=499), CORRECTION]],
    ],
    ids=["behind it", "with it", "before it", "alone", "again and again", "among others"],
)
def test_a_correction_comes_to_the_same_whenever_it_comes(
    database: Database, batches: list[list[UsageRecord]], tmp_path: Path
) -> None:
    new = [insert(database, batch) for batch in batches]
    ids = {each.id for batch in batches for each in batch}
    assert sum(new) == len(ids)
    found = without_dust(everything(database))

    others = [each for batch in batches for each in batch if each.id != AS_TOLD.id]
    fresh = open_database(Settings(url=f"sqlite:///{tmp_path}/fresh.db"))
    insert(fresh, [*others, AS_TOLD])
    assert found == without_dust(everything(fresh))
    fresh.close()


def test_a_correction_of_an_attempt_that_nobody_got_changes_no_sums(database: Database) -> None:
    """As that of a race's loser: it is the operator's to pay."""
    loser = attempt(outcome="cancelled")
    raced = record(attempts=(loser, attempt(provider="Other", usage=told(), cost=0.5)))
    insert(database, [raced, record(cost=0.25)])
    before = everything(database)
    drained = replace(loser, usage=told(completion_tokens=70), cost=0.75)
    known = replace(raced, attempts=(drained, raced.attempts[1]), corrects=True)
    assert insert(database, [known]) == 0
    after = everything(database)
    assert [after[0], *after[2:]] == [before[0], *before[2:]]
    changed = [row for row in after[1] if row not in before[1]]
    assert [(row["request_id"], row["number"], row["total_tokens"]) for row in changed] == [
        (raced.id, 0, 80)
    ]
    assert (changed[0]["cost"], changed[0]["usage_source"]) == (0.75, "upstream")


def test_what_was_condensed_is_added_up_anew_behind_a_correction(database: Database) -> None:
    insert(database, [AS_ESTIMATED])
    database.run(lambda connection: condense_day(connection, DAY), write=True)
    insert(database, [CORRECTION])
    assert rows(database, tables.usage_daily_models) == []
    (day,) = rows(database, tables.usage_daily)
    assert (day["requests"], day["completion_tokens"], day["estimated"]) == (1, 5, 0)


def test_a_correction_that_no_column_holds_is_refused(database: Database) -> None:
    insert(database, [AS_ESTIMATED])
    before = everything(database)
    with pytest.raises(usage.RowRefused):
        insert(database, [replace(CORRECTION, usage=told(completion_tokens=2**70))])
    assert everything(database) == before


def test_a_correction_is_applied_once_by_two_ledgers_at_once(database: Database) -> None:
    some = [replace(AS_ESTIMATED, id=new_id(), api_key_id=f"k{i % 5}") for i in range(60)]
    corrections = [
        replace(each, usage=AS_TOLD.usage, cost=0.05, attempts=AS_TOLD.attempts, corrects=True)
        for each in some
    ]
    errors: list[Exception] = []

    def write(order: Sequence[UsageRecord]) -> None:
        try:
            for start in range(0, len(order), 7):
                insert(database, order[start : start + 7])
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    both = [some + corrections, corrections + some]
    threads = [threading.Thread(target=write, args=(order,)) for order in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {row["total_tokens"] for row in rows(database, tables.usage_stats)} == {15}
    days = rows(database, tables.usage_daily)
    assert sum(day["requests"] for day in days) == 60
    assert sum(day["completion_tokens"] for day in days) == 300
    assert sum(day["estimated"] for day in days) == 0


def test_a_correction_of_what_may_have_left_already_is_no_new_record(database: Database) -> None:
    """Else a machine that comes back late would have it counted twice."""

    def correct(kept_since: float) -> int:
        work = partial(usage.insert, requests=[CORRECTION], kept_since=kept_since)
        return database.run(work, write=True)

    assert correct(NOON + 1) == 0
    assert everything(database) == [[], [], [], [], []]
    insert(database, [AS_ESTIMATED])
    assert correct(NOON + 1) == 0
    (row,) = rows(database, tables.usage_stats)
    assert (row["total_tokens"], row["usage_source"]) == (15, "upstream")
