import itertools
import random

import pytest

from manyways.catalog.figures import SLICE, SLICES, Gathered, Traffic, settled
from manyways.catalog.verified import Live
from manyways.store.figures import Row

NOON = 1_800_000_000.0 - 1_800_000_000.0 % SLICE
HOUR = SLICE * SLICES


def saw(
    traffic: Traffic,
    at: float,
    *,
    model: str = "gpt-4o",
    ok: bool | None = True,
    ms: float = 2000.0,
    first: float | None = 400.0,
    tokens: int = 81,
    times: int = 1,
) -> None:
    for _ in range(times):
        traffic.saw(
            "Capi",
            model,
            ok=ok,
            ms=ms,
            first_token_ms=first,
            completion_tokens=tokens,
            ended=at,
        )


def rows(traffic: Traffic, now: float, node: str = "a") -> list[Row]:
    return [Row(node, *row) for row in traffic.finished(now)]


def live(*traffics: Traffic, now: float, model: str = "gpt-4o") -> Live | None:
    gathered = Gathered()
    for number, traffic in enumerate(traffics):
        gathered.take(rows(traffic, now, f"node-{number}"))
    return gathered.live("Capi", model, now)


def test_figures_are_those_of_the_attempts() -> None:
    traffic = Traffic()
    saw(traffic, NOON + 10, times=9)
    saw(traffic, NOON + 20, ok=False, ms=9000, first=None)

    told = live(traffic, now=NOON + SLICE)

    assert told is not None
    assert told.attempts == 10
    assert told.success_rate == 0.9
    assert told.latency_ms == pytest.approx(2000, rel=0.02)
    assert told.latency_p95_ms == pytest.approx(2000, rel=0.02)
    assert told.first_token_ms == pytest.approx(400, rel=0.02)
    assert told.first_token_p95_ms == pytest.approx(400, rel=0.02)
    assert told.tokens_per_second == pytest.approx(80 / 1.6, rel=0.03)
    assert told.answered_at == NOON + 10
    assert told.uptime_24h is None


def test_nothing_is_told_of_whom_nobody_asked() -> None:
    assert live(Traffic(), now=NOON) is None


def test_what_says_nothing_about_a_model_is_no_attempt_but_its_first_token_came() -> None:
    traffic = Traffic()
    saw(traffic, NOON, ok=None, first=300, times=3)
    saw(traffic, NOON, ok=None, first=None)

    told = live(traffic, now=NOON + SLICE)

    assert told is not None
    assert told.attempts == 0
    assert told.success_rate is None
    assert told.latency_ms is None
    assert told.first_token_ms == pytest.approx(300, rel=0.02)


def test_of_too_few_neither_a_rate_nor_a_median_is_told() -> None:
    traffic = Traffic()
    saw(traffic, NOON, times=2)
    saw(traffic, NOON, ok=False, times=2)

    told = live(traffic, now=NOON + SLICE)

    assert told is not None
    assert told.attempts == 4
    assert told.success_rate is None
    assert told.latency_ms is None
    assert told.first_token_ms == pytest.approx(400, rel=0.02)  # of all four
    assert told.tokens_per_second is None


def test_an_answer_in_one_piece_has_no_speed() -> None:
    traffic = Traffic()
    saw(traffic, NOON, ms=410, first=400, times=10)
    saw(traffic, NOON, first=None, times=10)

    told = live(traffic, now=NOON + SLICE)

    assert told is not None
    assert told.tokens_per_second is None


def test_a_slice_counts_once_it_is_over() -> None:
    traffic = Traffic()
    saw(traffic, NOON + 10, times=5)

    assert traffic.finished(NOON + SLICE - 1) == []
    assert [row.at for row in rows(traffic, NOON + SLICE)] == [NOON + SLICE]
    assert traffic.finished(NOON + SLICE + 1) == []  # told already


def test_many_models_are_told_of_in_parts() -> None:
    traffic = Traffic()
    for number in range(7):
        saw(traffic, NOON, model=f"m{number}")

    parts = [traffic.finished(NOON + SLICE, 3) for _ in range(4)]

    assert [len(part) for part in parts] == [3, 3, 1, 0]
    assert len({model for part in parts for _, model, _, _ in part}) == 7


def test_a_model_that_is_not_asked_any_more_is_told_of_once_and_forgotten_in_an_hour() -> None:
    traffic = Traffic()
    saw(traffic, NOON)
    told = [rows(traffic, NOON + SLICE * n) for n in range(1, SLICES + 2)]

    assert [len(one) for one in told] == [1] + [0] * SLICES
    assert repr(traffic) == "<Traffic of 0 models>"


def test_a_row_has_the_whole_last_hour_and_no_more() -> None:
    traffic = Traffic()
    for n in range(20):
        saw(traffic, NOON + SLICE * n)

    (row,) = rows(traffic, NOON + SLICE * 20)
    gathered = Gathered()
    gathered.take([row])
    told = gathered.live("Capi", "gpt-4o", row.at)

    assert row.at == NOON + SLICE * 20
    assert told is not None
    assert told.attempts == SLICES


def test_recent_slices_weigh_more() -> None:
    traffic = Traffic()
    saw(traffic, NOON, ms=9000, times=15)
    saw(traffic, NOON + SLICE * 11, ms=1000, times=10)

    told = live(traffic, now=NOON + HOUR)

    assert told is not None
    assert told.latency_ms == pytest.approx(1000, rel=0.02)
    assert told.attempts == 25


def test_after_an_hour_it_is_as_if_nothing_had_been() -> None:
    traffic = Traffic()
    saw(traffic, NOON, times=9)
    gathered = Gathered()
    gathered.take(rows(traffic, NOON + SLICE))

    assert gathered.live("Capi", "gpt-4o", NOON + HOUR) is not None
    assert gathered.live("Capi", "gpt-4o", NOON + HOUR + SLICE) is None


def test_all_processes_tell_the_same_in_whatever_order_they_heard() -> None:
    chance = random.Random(1)
    traffics = [Traffic() for _ in range(3)]
    for _ in range(500):
        saw(
            chance.choice(traffics),
            NOON + chance.random() * HOUR,
            ok=chance.random() < 0.9,
            ms=chance.lognormvariate(7, 1),
            first=chance.lognormvariate(5, 1),
        )
    now = NOON + HOUR
    told = [row for n, traffic in enumerate(traffics) for row in rows(traffic, now, f"node-{n}")]
    found = set()
    for order in itertools.permutations(told):
        gathered = Gathered()
        gathered.take(order)
        gathered.take(order[:1])  # again
        found.add(gathered.live("Capi", "gpt-4o", now + 100))

    assert len(told) == 3
    assert len(found) == 1


def test_processes_add_up() -> None:
    some, others = Traffic(), Traffic()
    saw(some, NOON, ms=1000, times=30)
    saw(others, NOON, ms=3000, times=60)

    told = live(some, others, now=NOON + SLICE)

    assert told is not None
    assert told.attempts == 90
    assert told.latency_ms == pytest.approx(3000, rel=0.02)


def test_an_older_row_does_not_replace_a_newer_one() -> None:
    traffic = Traffic()
    saw(traffic, NOON)
    early = rows(traffic, NOON + SLICE)
    saw(traffic, NOON + SLICE)
    late = rows(traffic, NOON + 2 * SLICE)
    gathered = Gathered()
    gathered.take(late)
    gathered.take(early)

    told = gathered.live("Capi", "gpt-4o", NOON + 2 * SLICE)

    assert told is not None
    assert told.attempts == 2


def test_rows_of_an_hour_ago_are_dropped() -> None:
    old, new = Traffic(), Traffic()
    saw(old, NOON, model="old")
    saw(new, NOON + HOUR + SLICE, model="new")
    gathered = Gathered()
    gathered.take(rows(old, NOON + SLICE, "gone"))
    gathered.take(rows(new, NOON + HOUR + 2 * SLICE))

    assert list(gathered) == [("Capi", "new")]


def test_a_document_of_another_version_is_passed_over() -> None:
    traffic = Traffic()
    saw(traffic, NOON, times=5)
    gathered = Gathered()
    gathered.take(rows(traffic, NOON + SLICE))
    gathered.take([Row("b", "Capi", "gpt-4o", int(NOON) + SLICE, '{"6000000": {"new": 1}}')])

    told = gathered.live("Capi", "gpt-4o", NOON + SLICE)

    assert told is not None
    assert told.attempts == 5


def test_the_least_used_go_where_there_are_too_many() -> None:
    traffic = Traffic(models=16)
    for number in range(16):
        saw(traffic, NOON, model=f"m{number}", times=1 if number == 7 else 2)

    saw(traffic, NOON, model="one more")

    known = {row.model for row in rows(traffic, NOON + SLICE)}
    assert known == {f"m{n}" for n in range(16) if n != 7} | {"one more"}


@pytest.mark.parametrize("backwards", [1.0, 5000.0])
def test_a_clock_that_is_put_back_does_not_stop_the_counting(backwards: float) -> None:
    traffic = Traffic()
    saw(traffic, NOON)
    traffic.finished(NOON + 1)
    saw(traffic, NOON - backwards, times=5)

    told = live(traffic, now=NOON - backwards + 2 * SLICE)

    assert told is not None
    assert told.attempts >= 5


def test_all_have_told_of_a_slice_some_seconds_after_its_end() -> None:
    assert settled(NOON + SLICE + 10) == NOON
    assert settled(NOON + SLICE + 50) == NOON + SLICE
