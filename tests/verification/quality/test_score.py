"""The arithmetic: what a score is, how sure it is, and what lies between two."""

import itertools
from random import Random

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manyways.catalog.verified import Quality
from manyways.verification.quality import (
    CATEGORIES,
    TASKS,
    VERSION,
    comparable,
    differ,
    overlap,
    score,
)
from manyways.verification.quality.score import FEWEST, FEWEST_EACH
from manyways.verification.quality.tasks import category

IDS = tuple(task.id for task in TASKS)
PARTS = st.sampled_from([0.0, 0.0, 1 / 3, 0.5, 1.0, 1.0])
POINTS = st.fixed_dictionaries(dict.fromkeys(IDS, PARTS))


def scored(points: dict[str, float], version: str = VERSION) -> Quality:
    found = score(points, version, at=7.0)
    assert found is not None
    return found


def larger(points: dict[str, float], times: int) -> dict[str, float]:
    """A set of so many times as many tasks, with the same points."""
    return {
        f"{name}{time:03}": value for name, value in points.items() for time in range(1, times + 1)
    }


@given(POINTS)
def test_a_score_lies_in_its_interval_and_on_the_scale(points: dict[str, float]) -> None:
    found = scored(points)

    assert 0.0 <= found.low <= found.score <= found.high <= 10.0
    assert found.high - found.low > 0.9  # thirty tasks are never sure
    assert (found.version, found.at, found.tasks) == (VERSION, 7.0, points)


@given(POINTS, st.randoms(use_true_random=False))
def test_a_score_depends_on_nothing_but_the_points(points: dict[str, float], order: Random) -> None:
    names = list(points)
    order.shuffle(names)

    assert scored({name: points[name] for name in names}) == scored(points)


@given(POINTS, st.integers(2, 20))
def test_more_tasks_make_it_narrower_and_no_other(points: dict[str, float], times: int) -> None:
    few, many = scored(points), scored(larger(points, times))

    assert many.score == pytest.approx(few.score, abs=0.011)
    assert many.high - many.low < few.high - few.low


@given(POINTS, st.sampled_from(IDS))
def test_more_points_are_never_a_lower_score(points: dict[str, float], better: str) -> None:
    few, many = scored(points), scored({**points, better: 1.0})

    assert few.score <= many.score
    assert few.low <= many.low
    assert few.high <= many.high


@pytest.mark.parametrize("full", CATEGORIES)
def test_each_category_weighs_the_same(full: str) -> None:
    assert scored({name: float(category(name) == full) for name in IDS}).score == 1.43  # 10 / 7


def test_none_and_all_are_the_ends_of_the_scale() -> None:
    none, everything = scored(dict.fromkeys(IDS, 0.0)), scored(dict.fromkeys(IDS, 1.0))

    assert (none.low, none.score) == (0.0, 0.0)
    assert 0.5 < none.high < 2.0
    assert (everything.score, everything.high) == (10.0, 10.0)
    assert 8.0 < everything.low < 9.5


def test_too_few_answers_are_no_score() -> None:
    by_turns = [
        name
        for group in itertools.zip_longest(
            *([name for name in IDS if category(name) == one] for one in CATEGORIES)
        )
        for name in group
        if name is not None
    ]
    assert score({}, VERSION, 0.0) is None
    assert score(dict.fromkeys(by_turns[: FEWEST - 1], 1.0), VERSION, 0.0) is None
    assert scored(dict.fromkeys(by_turns[:FEWEST], 1.0)).score == 10.0


@pytest.mark.parametrize("absent", CATEGORIES)
def test_a_category_with_too_few_answers_is_no_score(absent: str) -> None:
    there = [name for name in IDS if category(name) != absent]
    own = [name for name in IDS if category(name) == absent]

    assert len(there) + FEWEST_EACH - 1 >= FEWEST
    assert score(dict.fromkeys([*there, *own[: FEWEST_EACH - 1]], 1.0), VERSION, 0.0) is None
    assert scored(dict.fromkeys([*there, *own[:FEWEST_EACH]], 1.0)).score == 10.0


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), float("inf")])
def test_points_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="code-1"):
        score({**dict.fromkeys(IDS, 1.0), "code-1": wrong}, VERSION, 0.0)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Models whose true ability in each category is known, asked 30 tasks drawn anew each time.
    Beneath 95 % for no ability by more than the chance of 1,000 draws."""
    chance = Random(20)
    even = [dict.fromkeys(CATEGORIES, p) for p in (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)]
    mixed = [{one: chance.random() for one in CATEGORIES} for _ in range(4)]
    extreme = [{one: chance.betavariate(0.4, 0.4) for one in CATEGORIES} for _ in range(4)]
    shares = []
    for ability in (*even, *mixed, *extreme):
        truth = 10 * sum(ability.values()) / len(CATEGORIES)
        held = 0
        for _ in range(1000):
            found = scored({name: float(chance.random() < ability[category(name)]) for name in IDS})
            held += found.low <= truth <= found.high
        shares.append(held / 1000)

    assert min(shares) >= 0.93
    assert sum(shares) / len(shares) >= 0.95


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says() -> None:
    """Pairs of models, the one alike to the other from not at all to nearly always."""
    chance = Random(21)
    shares = []
    for first, second in ((0.05, 0.05), (0.5, 0.5), (0.9, 0.9), (0.3, 0.6), (0.6, 0.95)):
        for alike in (0.0, 0.5, 0.9):
            held = 0
            for _ in range(500):
                points: tuple[dict[str, float], dict[str, float]] = ({}, {})
                for name in IDS:
                    luck = chance.random()
                    points[0][name] = float(luck < first)
                    other = luck if chance.random() < alike else chance.random()
                    points[1][name] = float(other < second)
                found = comparable(*map(scored, points))
                held += found.low <= 10 * (second - first) <= found.high
            shares.append(held / 500)

    assert min(shares) >= 0.92
    assert sum(shares) / len(shares) >= 0.95


@given(POINTS, POINTS)
def test_a_difference_is_that_of_the_scores(a: dict[str, float], b: dict[str, float]) -> None:
    first, second = scored(a), scored(b)
    found, back = comparable(first, second), comparable(second, first)

    assert found.tasks == tuple(sorted(IDS))
    assert found.difference == pytest.approx(second.score - first.score, abs=0.011)
    assert -10.0 <= found.low <= found.difference <= found.high <= 10.0
    assert (back.difference, back.low, back.high) == (-found.difference, -found.high, -found.low)
    assert found.proven == back.proven == (found.low > 0 or found.high < 0)


@given(POINTS)
def test_nothing_lies_between_a_score_and_itself(points: dict[str, float]) -> None:
    found = comparable(scored(points), scored(points))

    assert (found.difference, found.proven) == (0.0, False)
    assert found.low < 0 < found.high


@given(POINTS, POINTS, st.sets(st.sampled_from(IDS), max_size=6))
def test_versions_are_compared_by_the_tasks_they_share(
    a: dict[str, float], b: dict[str, float], left_out: set[str]
) -> None:
    successors = {f"{category(name)}-9{place}": 1.0 for place, name in enumerate(sorted(left_out))}
    kept = {name: value for name, value in b.items() if name not in left_out}
    assume(all(sum(category(name) == one for name in kept) >= FEWEST_EACH for one in CATEGORIES))
    next_version = scored({**kept, **successors}, version="2")
    first = scored(a)

    found = comparable(first, next_version)

    assert found.tasks == tuple(sorted(kept))
    shared = scored({name: a[name] for name in kept}), scored(kept)
    assert found == comparable(*shared)


def test_fewer_shared_tasks_make_a_difference_less_sure() -> None:
    worse, better = scored(dict.fromkeys(IDS, 0.0)), scored(dict.fromkeys(IDS, 1.0))
    half = dict.fromkeys(IDS[::2], 1.0) | {
        f"{category(name)}-9{name[-1]}": 1.0 for name in IDS[1::2]
    }

    whole, part = comparable(worse, better), comparable(worse, scored(half, version="2"))

    assert whole.difference == part.difference == 10.0
    assert 0 < part.low < whole.low
    assert len(part.tasks) == 15


def test_scores_without_a_common_task_tell_nothing() -> None:
    other = scored({f"{category(name)}-9{name[-1]}": 1.0 for name in IDS}, version="9")

    found = comparable(scored(dict.fromkeys(IDS, 0.0)), other)

    assert (found.tasks, found.difference, found.low, found.high) == ((), 0.0, -10.0, 10.0)
    assert not found.proven


def test_intervals_overlap_where_they_have_a_point_in_common() -> None:
    def between(low: float, high: float) -> Quality:
        return Quality(score=low, low=low, high=high, version=VERSION, at=0.0)

    assert overlap(between(1, 3), between(2, 4))
    assert overlap(between(2, 4), between(1, 3))
    assert overlap(between(1, 2), between(2, 3))
    assert overlap(between(1, 9), between(4, 5))
    assert not overlap(between(1, 2), between(3, 4))
    assert not overlap(between(3, 4), between(1, 2))


def test_scores_of_one_version_differ_by_their_intervals() -> None:
    low, high = scored(dict.fromkeys(IDS, 0.0)), scored(dict.fromkeys(IDS, 1.0))
    assert differ(low, high)
    assert not differ(low, low)


def test_scores_of_two_versions_differ_by_what_is_in_both() -> None:
    """A set that has become harder makes no model worse."""
    half = len(IDS) // 2
    before = scored(dict.fromkeys(IDS, 1.0))
    harder = {**dict.fromkeys(IDS[:half], 1.0), **{f"{one}9": 0.0 for one in IDS[half:]}}
    after = msgspec.structs.replace(before, version="2", tasks=harder, score=5.0, low=3.3, high=6.7)
    assert not overlap(before, after)
    assert not differ(before, after)
    worse = msgspec.structs.replace(after, tasks=dict.fromkeys(harder, 0.0))
    assert differ(before, worse)
