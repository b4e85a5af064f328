"""Plans of broken answers, of probes and of hedges, as conversations."""

import pytest

from manyways.catalog.snapshot import Snapshot
from manyways.routing.candidate import ENOUGH
from manyways.routing.health import FACTOR
from manyways.routing.settings import Settings
from tests.support.routing import (
    REST,
    SETTINGS,
    SHOP,
    T0,
    Talk,
    answers,
    down,
    health_of,
    model,
    race,
    shop,
)

# Answers that broke


SPEAKERS = shop(
    "Capi/gpt-4o",
    "Capi/mini",
    model("Other/loyal", capabilities=("prefill",)),
    "Other/gpt-4o",
)


def broken(offers: Snapshot = SPEAKERS) -> Talk:
    talk = Talk(offers, "gpt-4o")
    talk.begin()
    talk.after(1).speaks()
    talk.after(1)
    return talk


def test_a_broken_answer_is_gone_on_with_by_whoever_says_the_same() -> None:
    talk = broken()
    assert talk.breaks("cut", "again") == ["ask Other/gpt-4o to again"]
    assert talk.fails("reset") == ["ask Capi/gpt-4o to again"]
    assert talk.fails("reset") == ["ask Other/loyal to again"]


def test_a_prefill_goes_only_to_whoever_takes_one() -> None:
    talk = broken()
    assert talk.breaks("cut", "prefill") == ["ask Other/loyal to prefill"]
    assert talk.refuses("provider_refused") == ["give up: exhausted"], "its form is our fault"
    assert talk.told.refusal is None


def test_instructions_come_last() -> None:
    talk = broken(shop("Capi/gpt-4o", "Other/gpt-4o"))
    assert talk.breaks("cut", "again", "instruct") == ["ask Other/gpt-4o to again"]
    assert talk.fails("diverged") == ["ask Capi/gpt-4o to again"]
    assert talk.fails("diverged") == ["ask Other/gpt-4o to instruct"]
    assert talk.fails("diverged") == ["ask Capi/gpt-4o to instruct"]
    assert talk.fails("diverged") == ["give up: exhausted"]


def test_whoever_stalled_is_asked_behind_all_others() -> None:
    talk = broken(shop("Capi/gpt-4o", "Capi/mini"))
    assert talk.breaks("timeout", "again") == ["ask Capi/mini to again"]
    assert talk.fails("diverged") == ["ask Capi/gpt-4o to again"]


def test_an_answer_that_cannot_be_gone_on_from_ends_with_the_honest_error() -> None:
    assert broken().breaks("cut") == ["give up: exhausted"]


def test_a_continuation_that_breaks_is_continued_too() -> None:
    talk = broken(shop("Capi/gpt-4o", "Other/gpt-4o", "Third/gpt-4o"))
    assert talk.breaks("cut", "again") == ["ask Other/gpt-4o to again"]
    talk.speaks()
    assert talk.breaks("cut", "again") == ["ask Third/gpt-4o to again"]
    talk.speaks()
    assert talk.succeeds() == []
    assert talk.plan.committed is talk.plan.attempts[2]


# Probes


def probing(
    offers: Snapshot,
    *,
    name: str = "gpt-4o",
    usual: float | None = None,
    settings: Settings = SETTINGS,
    deadline: float | None = None,
    stream: bool = True,
) -> Talk:
    """The first of the shop was silent, and its rest is just over. `usual` is how many seconds
    its first tokens took before, or its whole answers."""
    health = health_of(offers, settings)
    first = offers.models[0]
    if usual is not None:
        answers(health, first, usual, times=ENOUGH, stream=stream)
    down(health, first, "timeout", took=REST)
    back = health.back_at(first, T0)[0]
    return Talk(
        offers, name, health=health, now=back, settings=settings, deadline=deadline, stream=stream
    )


def test_a_probe_that_is_silent_is_raced_though_nobody_hedges() -> None:
    talk = probing(shop("Capi/gpt-4o", "Other/big"), usual=0.8)
    assert talk.begin() == ["ask Capi/gpt-4o", "wait 1.2"], "half as long again as nearly always"
    assert talk.after(1.2).rings() == ["ask Other/big"]
    assert talk.budget.saved == 0, "and it costs none of the budget"
    assert talk.after(0.5).speaks() == ["cancel 0"]
    assert talk.succeeds() == []


@pytest.mark.parametrize(("known", "wait"), [(0.8, 2.4), (4.0, 5.0), (None, 5.0)])
def test_where_the_usual_time_is_not_known_a_probe_gets_thrice_a_first_token_or_half_its_limit(
    known: float | None, wait: float
) -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    talk = probing(offers)
    if known is not None:
        answers(talk.health, offers.models[0], known)
    assert talk.begin() == ["ask Capi/gpt-4o", f"wait {wait:g}"]


def test_a_probe_that_is_well_is_raced_by_nobody() -> None:
    talk = probing(shop("Capi/gpt-4o", "Other/big"), usual=0.8)
    talk.begin()
    assert talk.after(0.8).speaks() == []
    assert talk.after(0.4).rings() == []
    assert talk.succeeds() == []
    assert [one.outcome for one in talk.plan.attempts] == ["answered"]


def test_a_probe_that_wins_the_race_is_back_and_the_other_is_left() -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    talk = probing(offers, usual=0.8)
    talk.begin()
    talk.after(1.2).rings()
    assert talk.after(0.1).speaks(0) == ["cancel 1"]
    assert Talk(offers, "gpt-4o", health=talk.health, now=talk.now).begin() == ["ask Capi/gpt-4o"]


def test_a_probe_that_is_outrun_has_failed_and_rests_for_longer() -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    talk = probing(offers, usual=0.8)
    talk.begin()
    talk.after(1.2).rings()
    talk.after(0.5).speaks()
    rest = talk.health.back_at(offers.models[0], talk.now)[0] - talk.now
    assert rest == pytest.approx(REST * FACTOR - 1.7), "since the probe began"
    beside = Talk(offers, "gpt-4o", health=talk.health, now=talk.now + rest - 0.1)
    assert beside.begin() == ["ask Other/big"]


def test_a_probe_that_fails_before_its_race_is_followed_by_the_next_who_is_watched_by_nobody() -> (
    None
):
    talk = probing(shop("Capi/gpt-4o", "Other/big", "Third/big"), usual=0.8)
    talk.begin()
    assert talk.after(0.1).fails("reset") == ["ask Other/big"]
    assert talk.after(1.1).rings() == []
    assert len(talk.plan.attempts) == 2


def test_a_probe_behind_another_attempt_is_raced_too() -> None:
    offers = shop("Capi/gpt-4o", "Other/big", "Third/big")
    health = health_of(offers)
    down(health, offers.models[1])
    talk = Talk(offers, "gpt-4o", health=health, now=T0 + REST)
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("reset") == ["ask Other/big", "wait 5"]
    assert talk.after(5).rings() == ["ask Third/big"]


def test_beside_a_probe_its_providers_other_models_come_last() -> None:
    """They may be as silent as it is."""
    talk = probing(shop("Capi/gpt-4o", "Capi/mini", "Other/big"))
    talk.begin()
    assert talk.after(5).rings() == ["ask Other/big"]


def test_beside_a_probe_one_of_its_provider_is_better_than_nobody() -> None:
    offers = shop("Capi/gpt-4o", "Capi/mini")
    talk = probing(offers)
    answers(talk.health, offers.models[1], 0.3, at=T0 + 1)
    talk.begin()
    assert talk.after(5).rings() == ["ask Capi/mini"]


@pytest.mark.parametrize("since", [0.0, REST])
def test_beside_a_probe_nobody_is_asked_who_may_be_down_too(since: float) -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    talk = probing(offers)
    down(talk.health, offers.models[1], now=talk.now - since)
    assert talk.begin() == ["ask Capi/gpt-4o", "wait 5"]
    talk.after(1.0 if since == 0 else 5.0)  # resting still, or half-open
    if since:
        assert talk.rings() == []
    else:
        assert talk.rings() == ["wait 4"]


def test_nobody_is_asked_beside_a_probe_that_was_the_last_attempt() -> None:
    talk = probing(shop("Capi/gpt-4o", "Other/big"), settings=Settings(rest=REST, max_attempts=1))
    talk.begin()
    assert talk.after(5).rings() == []


def test_a_probe_for_a_whole_answer_is_raced_when_it_takes_longer_than_such_answers_do() -> None:
    talk = probing(shop("Capi/gpt-4o", "Other/big"), usual=0.8, stream=False)
    assert talk.begin() == ["ask Capi/gpt-4o", "wait 2.4"]
    assert talk.after(2.4).rings() == ["ask Other/big"]
    assert talk.after(0.5).came(1) == ["cancel 0"]
    assert talk.succeeds(1) == []
    assert [one.outcome for one in talk.plan.attempts] == ["cancelled", "answered"]


def test_whole_answers_are_not_hedged() -> None:
    talk = race(stream=False)
    assert talk.begin() == ["ask Capi/m"]


def test_a_probe_with_little_time_is_raced_when_half_of_it_is_over() -> None:
    talk = probing(shop("Capi/gpt-4o", "Other/big"), deadline=4)
    assert talk.begin() == ["ask Capi/gpt-4o", "wait 1.5"]
    assert talk.limit == 3


# Hedging


def test_the_second_starts_when_the_first_is_later_than_it_nearly_always_is() -> None:
    talk = race()
    assert talk.begin() == ["ask Capi/m", "wait 2"]
    assert talk.after(2).rings() == ["ask Other/m"]
    assert not talk.budget.covers(), "it is paid for"
    assert talk.after(1).speaks(1) == ["cancel 0"]
    assert talk.succeeds(1) == []
    assert [one.outcome for one in talk.plan.attempts] == ["cancelled", "answered"]


def test_the_first_may_still_win_the_race() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.speaks(0) == ["cancel 1"]


def test_one_that_fails_in_a_race_is_not_replaced_while_the_other_runs() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.fails("reset", attempt=0) == []
    assert talk.fails("reset", attempt=1) == ["wait 0.375"]


def test_a_refusal_by_the_first_ends_the_race() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.refuses("provider_refused", attempt=0) == ["cancel 1", "give up: refused"]


def test_a_refusal_by_the_second_is_told_once_the_first_has_failed() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.refuses("provider_refused", attempt=1) == []
    assert talk.fails("reset", attempt=0) == ["give up: refused"]


def test_a_refusal_by_the_second_is_nothing_when_the_first_speaks() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.refuses("provider_refused", attempt=1) == []
    assert talk.speaks(0) == []
    assert talk.succeeds(0) == []


def test_a_refusal_by_the_second_is_nothing_when_the_answer_of_the_first_breaks() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    talk.refuses("provider_refused", attempt=1)
    talk.speaks(0)
    talk.latest = 0
    assert talk.breaks("cut", "again") == ["ask Capi/m to again"]


def test_a_caller_that_leaves_a_race_ends_both() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.leaves() == ["cancel 0", "cancel 1"]


def test_a_ring_that_comes_early_changes_nothing() -> None:
    talk = race()
    talk.begin()
    assert talk.after(1.5).rings() == ["wait 0.5"]


def test_whoever_has_spoken_is_raced_by_nobody() -> None:
    talk = race()
    talk.begin()
    talk.after(1).speaks()
    assert talk.after(1).rings() == []


def test_without_budget_nobody_races() -> None:
    talk = race(saved=0.9)
    talk.begin()
    assert talk.after(2).rings() == []
    assert len(talk.plan.attempts) == 1


def test_too_few_answers_tell_no_usual_time_and_so_nobody_races() -> None:
    talk = Talk(SHOP, "gpt-4o", settings=Settings(hedge=True))
    assert talk.begin() == ["ask Capi/gpt-4o"]


def test_whoever_follows_a_failure_is_not_raced_in_its_place() -> None:
    talk = race("Third/m")
    talk.begin()
    assert talk.after(0.1).fails("reset") == ["ask Third/m"]
    assert talk.after(1.9).rings() == []


def test_nobody_races_behind_the_deadline() -> None:
    assert race(deadline=1.5).begin() == ["ask Capi/m"]


def test_nobody_races_against_one_that_rests() -> None:
    talk = race()
    talk.begin()
    down(talk.health, model("Other/m"), "connect", now=T0 + 1)
    assert talk.after(1.9).rings() == ["wait 0.1"]
    assert talk.after(0.1).rings() == []
