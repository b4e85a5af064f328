"""The benchmark's arithmetic."""

import pytest
from bench.figures import Figure, advantage, percentile, readable
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.lists(st.integers(0, 10_000), min_size=1, max_size=200)


@given(VALUES, st.floats(0.01, 1.0))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[int], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    smaller = [value for value in values if value < found]
    assert len(smaller) < share * len(values)


def test_known_percentiles() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7], 0.01) == 7


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_figure_is_its_median_and_half_its_range() -> None:
    figure = Figure((10.0, 40.0, 20.0))
    assert (figure.median, figure.spread) == (20.0, 15.0)
    assert Figure((3.0,)).spread == 0


def test_an_advantage_is_above_one_where_ours_is_better() -> None:
    fast, slow = Figure((200.0,)), Figure((50.0,))
    assert advantage(fast, slow, more_is_better=True) == 4
    assert advantage(slow, fast, more_is_better=False) == 4
    assert advantage(fast, slow, more_is_better=False) == 0.25


@pytest.mark.parametrize("theirs", [None, Figure((0.0,)), Figure((-0.2,))])
def test_there_is_no_advantage_over_what_is_not_positive(theirs: Figure | None) -> None:
    assert advantage(Figure((1.0,)), theirs, more_is_better=False) is None
    assert advantage(theirs, Figure((1.0,)), more_is_better=True) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_345, "12,300"),
        (999.6, "1000"),
        (431.4, "431"),
        (23.14, "23.1"),
        (9.144, "9.14"),
        (0.3249, "0.325"),
        (-1.5, "-1.50"),
        (0, "0.000"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: float, text: str) -> None:
    assert readable(value) == text
