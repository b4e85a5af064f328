import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.sketch import BUCKETS, ERROR, LEAST, MOST, Sketch

VALUES = st.lists(st.floats(LEAST, MOST), min_size=1, max_size=200)
SHARES = st.sampled_from([0.0, 0.05, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0])


def sketch(values: list[float]) -> Sketch:
    found = Sketch()
    for value in values:
        found.add(value)
    return found


def exactly(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@given(VALUES, SHARES)
def test_a_quantile_is_told_within_the_promised_error(values: list[float], share: float) -> None:
    told = sketch(values).quantile(share)

    assert told == pytest.approx(exactly(values, share), rel=ERROR * 1.0001)


@given(VALUES, VALUES)
def test_sketches_put_together_are_the_sketch_of_all_values(
    some: list[float], others: list[float]
) -> None:
    together = sketch(some)
    together.merge(sketch(others))

    assert together.counts == sketch(some + others).counts
    assert together.weight == len(some) + len(others)


@given(VALUES, SHARES)
def test_weights_alone_move_no_quantile(values: list[float], share: float) -> None:
    scaled = Sketch()
    scaled.merge(sketch(values), 0.37)

    assert scaled.quantile(share) == sketch(values).quantile(share)
    assert scaled.weight == pytest.approx(0.37 * len(values))


def test_what_weighs_more_decides() -> None:
    mixed = sketch([100.0] * 10)
    mixed.merge(sketch([1000.0] * 30), 1 / 8)

    assert mixed.quantile(0.5) == pytest.approx(100, rel=ERROR)
    assert mixed.quantile(0.9) == pytest.approx(1000, rel=ERROR)


def test_a_sketch_survives_json() -> None:
    values = sketch([0.5, 20, 20, 3000])

    again = Sketch(
        {int(one): count for one, count in json.loads(json.dumps(values.counts)).items()}
    )

    assert again.counts == values.counts


def test_the_room_it_takes_has_a_bound() -> None:
    everything = sketch([10 ** (exponent / 500) for exponent in range(-5000, 5000)])

    assert len(everything.counts) == BUCKETS
    assert everything.weight == 10_000


@pytest.mark.parametrize(("value", "told"), [(0.0, LEAST), (-5.0, LEAST), (1e12, MOST)])
def test_values_out_of_range_count_as_the_nearest_in_it(value: float, told: float) -> None:
    assert sketch([value]).quantile(0.5) == pytest.approx(told, rel=ERROR * 1.0001)


def test_no_values_have_no_quantile() -> None:
    assert Sketch().quantile(0.5) is None


def test_its_repr_tells_how_much_is_in_it() -> None:
    assert repr(sketch([1, 1, 50])) == "<Sketch of 3 in 2 buckets>"
