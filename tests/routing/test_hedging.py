"""The budget of races: earned slowly, spent whole, never saved up for long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.routing.hedging import SAVED_AT_MOST, HedgeBudget


def test_a_race_costs_what_twenty_requests_earn() -> None:
    budget = HedgeBudget()
    for _ in range(20):
        assert not budget.covers()
        budget.earn(0.05)
    assert budget.covers()
    budget.spend()
    assert not budget.covers()


def test_quiet_times_save_up_a_few_races_and_no_more() -> None:
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.earn(0.05)
    assert budget.saved == SAVED_AT_MOST


@given(
    share=st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0]),
    slow=st.lists(st.booleans(), max_size=300),
)
def test_races_are_never_more_than_the_share_of_requests_and_what_was_saved(
    share: float, slow: list[bool]
) -> None:
    budget, races = HedgeBudget(), 0
    for is_slow in slow:
        budget.earn(share)
        if is_slow and budget.covers():
            budget.spend()
            races += 1
    assert races <= share * len(slow) + 1e-6
    assert budget.saved >= 0


@pytest.mark.parametrize("saved", [0.0, 0.5, 2.25])
def test_a_budget_says_what_it_has(saved: float) -> None:
    budget = HedgeBudget()
    budget.saved = saved
    assert repr(budget) == f"<HedgeBudget {saved:.2f}>"
