"""What is claimed of a model, corrected by what was found out."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.truth import told
from manyways.catalog.verified import Live, Quality, Verdict, Verified
from manyways.types import Model

AT = 1_763_195_008.0  # 2025-11-15 08:23:28 UTC
CLAIM = Model(
    id="m", provider="P", upstream_id="m", created=1, capabilities=("tools", "vision", "reasoning")
)


def verified(verdict: Verdict = "passed", **fields: Any) -> Verified:
    return Verified(provider="P", model="m", at=AT, verdict=verdict, **fields)


def test_a_claim_nobody_has_looked_at_is_told_as_it_is() -> None:
    assert told(CLAIM, None, None) == CLAIM


def test_what_was_proven_is_added_and_what_was_refuted_withdrawn() -> None:
    found = verified(proven=("streaming", "tools"), withdrawn={"vision": "it saw nothing"})
    row = told(CLAIM, found, None)
    assert row.capabilities == ("tools", "reasoning", "streaming")
    assert (row.status, row.asked_last) == ("degraded", False)


def test_what_was_measured_is_told_in_the_catalogs_forms() -> None:
    quality = Quality(score=8.4666, low=7.0, high=9.2, version="1", at=AT)
    row = told(CLAIM, verified(latency_ms=1487, quality=quality), None)
    assert (row.latency_ms, row.quality_score) == (1500, 8.5)
    assert row.last_verified == "2025-11-15 08:23:28"


def test_what_could_not_be_found_out_is_no_verification() -> None:
    row = told(CLAIM, verified("unsure", reason="it wants fewer requests"), None)
    assert (row.status, row.last_verified) == ("active", None)


def test_what_failed_is_down_until_callers_have_answers_again() -> None:
    found = verified("failed", reason="no answer")
    down = told(CLAIM, found, Live(attempts=3, success_rate=1.0, answered_at=AT - 1))
    assert (down.status, down.asked_last) == ("down", True)
    some = told(CLAIM, found, Live(attempts=20, success_rate=0.2, answered_at=AT + 1))
    assert (some.status, some.asked_last) == ("degraded", False)
    up = told(CLAIM, found, Live(attempts=3, success_rate=1.0, answered_at=AT + 1))
    assert (up.status, up.asked_last) == ("active", False)


def test_more_than_one_failure_in_ten_is_degraded_where_there_are_ten() -> None:
    def status(rate: float, attempts: int) -> str:
        return told(CLAIM, verified(), Live(attempts=attempts, success_rate=rate)).status

    assert status(0.89, 100) == "degraded"
    assert status(0.90, 100) == "active"
    assert status(0.5, 9) == "active"


def test_who_rests_or_is_gone_is_down_but_only_who_is_gone_is_asked_last() -> None:
    resting = told(CLAIM, verified(), None, resting=True)
    assert (resting.status, resting.asked_last) == ("down", False)
    gone = told(CLAIM, verified(), None, gone=True)
    assert (gone.status, gone.asked_last) == ("down", True)


def test_callers_outweigh_what_was_verified_the_more_the_more_they_are() -> None:
    def latency(attempts: int) -> int | None:
        live = Live(attempts=attempts, first_token_ms=1000)
        return told(CLAIM, verified(latency_ms=100), live).latency_ms

    assert latency(5) == 550
    assert latency(45) == 910
    assert latency(100_000) == 1000
    assert told(CLAIM, None, Live(attempts=3, first_token_ms=1000)).latency_ms == 1000
    assert told(CLAIM, None, Live(attempts=3, latency_ms=3210)).latency_ms == 3200
    assert told(CLAIM, verified(latency_ms=100), Live(latency_ms=3210)).latency_ms == 100


@given(st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 10**6), st.integers(0, 10**6))
def test_latency_lies_between_what_was_asked_and_what_was_seen(
    asked: int | None, seen: int | None, attempts: int
) -> None:
    live = Live(attempts=attempts, first_token_ms=seen)
    found = told(CLAIM, verified(latency_ms=asked), live).latency_ms
    known = [one for one in (asked, seen) if one is not None]
    if not known:
        assert found is None
    else:
        assert found is not None
        assert min(known) * 0.94 <= found <= max(known) * 1.06
        assert len(str(found).rstrip("0")) <= 2
