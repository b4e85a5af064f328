"""Refusals by limits are counted by key, code and minute: a flood fills no disk."""

import pytest

from manyways.attempts import refusals
from manyways.attempts.refusals import RefusalCounts
from manyways.types import Caller
from manyways.usage.record import RefusalRecord

NOON = 1_764_072_000


def caller(key: str, account: str | None = None) -> Caller:
    return Caller(key_id=key, last4="abcd", key_type="full", account_id=account)


def test_a_flood_is_one_row_a_key_a_code_and_a_minute() -> None:
    counts, written = RefusalCounts(), list[RefusalRecord]()
    for second in range(120):
        counts.add(caller("a", "ann"), "rate_limit_exceeded", NOON + second + 0.5)
    counts.add(caller("a", "ann"), "quota_exceeded", NOON + 59.9)
    counts.add(caller("b"), "rate_limit_exceeded", NOON + 59.9)
    counts.flush(written.append)
    assert {(row.api_key_id, row.user_id, row.code, row.minute, row.count) for row in written} == {
        ("a", "ann", "rate_limit_exceeded", NOON, 60),
        ("a", "ann", "rate_limit_exceeded", NOON + 60, 60),
        ("a", "ann", "quota_exceeded", NOON, 1),
        ("b", None, "rate_limit_exceeded", NOON, 1),
    }
    assert len({row.id for row in written}) == 4
    assert counts.by_code == {"rate_limit_exceeded": 121, "quota_exceeded": 1}


def test_what_was_written_is_not_written_again() -> None:
    counts, written = RefusalCounts(), list[RefusalRecord]()
    counts.add(caller("a"), "quota_exceeded", NOON)
    counts.flush(written.append)
    counts.flush(written.append)
    counts.add(caller("a"), "quota_exceeded", NOON)
    counts.flush(written.append)
    assert [row.count for row in written] == [1, 1]


def test_of_more_keys_than_are_held_those_that_came_first_go_on_being_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "AT_MOST", 2)
    counts, written = RefusalCounts(), list[RefusalRecord]()
    for key in ("a", "b", "c", "a"):
        counts.add(caller(key), "quota_exceeded", NOON)
    counts.flush(written.append)
    assert {(row.api_key_id, row.count) for row in written} == {("a", 2), ("b", 1)}
    assert counts.by_code["quota_exceeded"] == 4
