"""Plans as conversations: what was told, and who is asked then."""

import pytest

from manyways.routing.commands import Wait
from manyways.routing.health import SILENCES
from manyways.routing.resolve import Wish
from manyways.routing.settings import Settings
from manyways.types import Needs
from tests.support.routing import (
    ALONE,
    REST,
    SAME_MODEL,
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

# Who comes next


def test_the_references_chain_same_provider_then_another_then_success() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Capi/gemini-2.5-flash", "HuggingSpace/gpt-4"), "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["ask Capi/gemini-2.5-flash"]
    assert talk.fails("provider_error") == ["ask HuggingSpace/gpt-4"]
    assert talk.speaks() == []
    assert talk.succeeds() == []
    assert talk.plan.over


def test_the_same_provider_first_takes_the_model_elsewhere_before_anything_else_there() -> None:
    talk = Talk(SHOP, "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["ask Capi/gemini-2.5-flash"]
    assert talk.fails("provider_error") == ["ask HuggingSpace/gpt-4o"]
    assert talk.fails("provider_error") == ["ask HuggingSpace/gpt-4"]


def test_the_same_model_first_asks_for_it_everywhere_before_another_model() -> None:
    talk = Talk(SHOP, "gpt-4o", settings=SAME_MODEL)
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["ask HuggingSpace/gpt-4o"]
    assert talk.fails("provider_error") == ["ask Capi/gemini-2.5-flash"]
    assert talk.fails("provider_error") == ["ask HuggingSpace/gpt-4"]


def test_the_callers_own_list_is_the_whole_of_it_in_its_order() -> None:
    wish = Wish(models=("gpt-4", "Capi/gpt-4o"), listed=True)
    talk = Talk(SHOP, wish=wish, settings=Settings(retries=0))
    assert talk.begin() == ["ask HuggingSpace/gpt-4"]
    assert talk.fails("provider_error") == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["give up: exhausted"]


def test_without_fallbacks_nobody_is_asked_but_who_was_named() -> None:
    wish = Wish(models=("gpt-4o",), begin=("HuggingSpace",), fallbacks=False)
    talk = Talk(SHOP, wish=wish, settings=Settings(retries=0))
    assert talk.begin() == ["ask HuggingSpace/gpt-4o"]
    assert talk.fails("provider_error") == ["give up: exhausted"]


def test_whoever_cannot_do_what_the_request_needs_is_passed_over() -> None:
    offers = shop(
        model("Capi/gpt-4o", capabilities=("tools",)),
        model("Capi/plain", capabilities=("vision",)),
        model("Capi/flux", category="image"),
        model("Capi/short", context_window=4_000),
        model("Other/able", capabilities=("tools", "vision")),
    )
    needs = Needs(capabilities=("tools",), prompt_tokens=10_000)
    talk = Talk(offers, "gpt-4o", needs=needs, settings=Settings(retries=0))
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["ask Other/able"]
    assert talk.fails("provider_error") == ["give up: exhausted"]


def test_a_provider_that_cannot_be_reached_is_no_longer_the_next_one() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Capi/mini", "Other/big"), "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("connect") == ["ask Other/big"]
    assert talk.fails("model_gone") == ["wait 0.375"], "one of its models is enough to see"
    assert talk.after(0.375).rings() == ["ask Capi/gpt-4o"]


@pytest.mark.parametrize("code", ["crowded", "out_of_sockets"])
def test_where_it_is_about_us_others_come_first_and_nobody_rests(code: str) -> None:
    offers = shop("Capi/gpt-4o", "Capi/mini", "Other/big")
    talk = Talk(offers, "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails(code) == ["ask Other/big"]
    assert talk.fails(code) == ["ask Capi/mini"]
    assert talk.fails(code) == ["wait 0.375"], "it may be over by then"
    again = Talk(offers, "gpt-4o", health=talk.health)
    assert again.begin() == ["ask Capi/gpt-4o"]


def test_a_provider_that_fails_twice_comes_behind_all_others() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Capi/mini", "Capi/nano", "Other/big"), "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("reset") == ["ask Capi/mini"]
    assert talk.fails("reset") == ["ask Other/big"]
    assert talk.fails("reset") == ["ask Capi/nano"]


def test_a_silent_provider_is_not_given_a_second_silence() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Capi/mini", "Other/big"), "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.after(10).fails("timeout") == ["ask Other/big"]
    assert talk.fails("reset")[0] == "ask Capi/mini", "but better than nobody"


def test_a_model_whose_rate_is_limited_says_nothing_of_its_provider() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Capi/mini", "Capi/nano", "Other/big"), "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("rate_limited") == ["ask Capi/mini"]
    assert talk.fails("model_gone") == ["ask Capi/nano"]


def test_of_equals_the_faster_one_is_asked() -> None:
    offers = shop(model("Slow/m", latency_ms=2000), model("Fast/m", latency_ms=300))
    assert Talk(offers, "m").begin() == ["ask Fast/m"]


def test_of_equals_the_one_with_less_to_do_is_asked() -> None:
    offers = shop("One/m", "Two/m")
    health = health_of(offers)
    assert Talk(offers, "m", health=health).begin() == ["ask One/m"]
    assert Talk(offers, "m", health=health).begin() == ["ask Two/m"]


# Keys


def test_behind_a_key_that_is_not_accepted_comes_the_next_one_then_another_candidate() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Other/big"), "gpt-4o", keys={"Capi": 2})
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("credentials") == ["ask Capi/gpt-4o with key 1"]
    assert talk.fails("credentials") == ["ask Other/big"]


def test_a_limited_rate_is_tried_with_the_other_key_at_once() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Other/big"), "gpt-4o", keys={"Capi": 2})
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("rate_limited", retry_after=60) == ["ask Capi/gpt-4o with key 1"]
    assert talk.fails("rate_limited", retry_after=60) == ["ask Other/big"]


def test_a_key_that_is_not_accepted_is_not_asked_again_and_the_other_is_waited_for() -> None:
    for codes in (("rate_limited", "credentials"), ("credentials", "rate_limited")):
        talk = Talk(ALONE, "gpt-4o", keys={"Capi": 2})
        assert talk.begin() == ["ask Capi/gpt-4o"]
        waits = [60.0 if code == "rate_limited" else None for code in codes]
        assert talk.fails(codes[0], retry_after=waits[0]) == ["ask Capi/gpt-4o with key 1"]
        (told,) = talk.fails(codes[1], retry_after=waits[1])
        assert told.startswith("wait 60"), codes
        talk.after(61)
        limited = codes.index("rate_limited")
        assert talk.rings() == [f"ask Capi/gpt-4o{' with key 1' if limited else ''}"]


def test_what_a_provider_tells_of_itself_holds_for_all_its_keys() -> None:
    waits = []
    for count in (1, 2):
        talk = Talk(ALONE, "gpt-4o", keys={"Capi": count})
        talk.begin()
        waits.append(talk.fails("provider_error", retry_after=20))
    assert waits[0] == waits[1]


def test_what_a_model_does_not_have_is_looked_for_elsewhere_where_the_choice_was_ours() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Other/big"), "auto")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.refuses("not_supported") == ["ask Other/big"]
    assert talk.refuses("not_supported") == ["give up: refused"]
    named = Talk(shop("Capi/gpt-4o", "Other/big"), "gpt-4o")
    named.begin()
    assert named.refuses("not_supported") == ["give up: refused"]


def test_another_key_is_no_cure_for_a_broken_provider() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Other/big"), "gpt-4o", keys={"Capi": 2})
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["ask Other/big"]


def test_keys_take_turns_from_one_request_to_the_next() -> None:
    health = health_of(ALONE, keys={"Capi": 3})
    asked = [Talk(ALONE, "gpt-4o", health=health).begin()[0] for _ in range(4)]
    assert [one.removeprefix("ask Capi/gpt-4o") for one in asked] == [
        "", " with key 1", " with key 2", ""
    ]  # fmt: skip


def test_a_repeat_takes_the_key_that_is_accepted() -> None:
    talk = Talk(ALONE, "gpt-4o", keys={"Capi": 2})
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("credentials") == ["ask Capi/gpt-4o with key 1"]
    assert talk.fails("provider_error") == ["wait 0.375"]
    assert talk.after(0.375).rings() == ["ask Capi/gpt-4o with key 1"]


# The same again


def test_when_nobody_is_left_the_same_is_asked_three_times_more_after_growing_pauses() -> None:
    talk = Talk(ALONE, "gpt-4o", chance=lambda: 0.5)  # in the middle of the jitter
    assert talk.begin() == ["ask Capi/gpt-4o"]
    for pause in (0.5, 1.0, 2.0):
        assert talk.fails("reset") == [f"wait {pause:g}"]
        assert talk.after(pause).rings() == ["ask Capi/gpt-4o"]
    assert talk.fails("reset") == ["give up: exhausted"]


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 0.375), (0.999999, 0.625)])
def test_a_pause_is_up_to_a_quarter_shorter_or_longer(chance: float, pause: float) -> None:
    talk = Talk(ALONE, "gpt-4o", chance=lambda: chance)
    talk.begin()
    assert talk.fails("reset") == [f"wait {pause:g}"]


def test_a_repeat_waits_as_long_as_the_provider_asks_for() -> None:
    talk = Talk(ALONE, "gpt-4o")
    talk.begin()
    assert talk.fails("rate_limited", retry_after=7) == ["wait 7"]
    assert talk.after(7).rings() == ["ask Capi/gpt-4o"]


def test_repeats_of_several_keep_a_distance_that_grows_with_their_pauses() -> None:
    talk = Talk(shop("One/m", "Two/m", "Three/m"), "m")
    talk.begin()
    talk.fails("reset")
    talk.fails("reset")
    began = []
    while (said := talk.fails("reset")) != ["give up: exhausted"]:
        assert [type(command) for command in talk.commands] == [Wait], said
        (wait,) = (command for command in talk.commands if isinstance(command, Wait))
        assert talk.after(wait.until - talk.now).rings()[0].startswith("ask ")
        began.append(talk.now - T0)
    assert began == [0.375, 0.75, 1.125, 1.875, 2.625, 3.375, 4.875], "ten attempts in all"


def test_the_distance_is_kept_from_the_end_of_the_latest_attempt() -> None:
    talk = Talk(shop("One/m", "Two/m"), "m")
    assert talk.begin() == ["ask One/m"]
    assert talk.fails("reset") == ["ask Two/m"]
    assert talk.after(5).fails("reset") == ["wait 0.375"], "though the pause of One/m is over"
    assert talk.after(0.375).rings() == ["ask One/m"]


def test_a_pause_that_ends_behind_the_deadline_is_not_waited_for() -> None:
    talk = Talk(ALONE, "gpt-4o", deadline=30)
    talk.begin()
    assert talk.fails("rate_limited", retry_after=60) == ["give up: exhausted"]
    assert talk.told.retry_after == 60


def test_of_several_the_one_whose_pause_ends_first_is_asked_again() -> None:
    talk = Talk(shop("One/m", "Two/m"), "m", settings=SAME_MODEL)
    assert talk.begin() == ["ask One/m"]
    assert talk.fails("rate_limited", retry_after=20) == ["ask Two/m"]
    assert talk.fails("rate_limited", retry_after=5) == ["wait 5"]
    assert talk.after(5).rings() == ["ask Two/m"]


@pytest.mark.parametrize("code", ["credentials", "model_gone", "too_large"])
def test_what_will_not_change_is_not_asked_again(code: str) -> None:
    talk = Talk(ALONE, "gpt-4o")
    talk.begin()
    assert talk.fails(code) == ["give up: exhausted"]


def test_no_more_than_max_attempts_are_made() -> None:
    talk = Talk(shop(*(f"P/m{i}" for i in range(9))), "m0", settings=Settings(max_attempts=3))
    talk.begin()
    assert talk.fails("reset") == ["ask P/m1"]
    assert talk.fails("reset") == ["ask P/m2"]
    assert talk.fails("reset") == ["give up: exhausted"]


def test_giving_up_says_when_the_first_of_them_asked_to_come_back() -> None:
    talk = Talk(shop("One/m", "Two/m"), "m", settings=Settings(max_attempts=2))
    talk.begin()
    talk.fails("rate_limited", retry_after=20)
    talk.fails("rate_limited", retry_after=12)
    assert talk.told.retry_after == 12


# What the caller caused


def test_what_the_caller_caused_is_told_at_once() -> None:
    talk = Talk(SHOP, "gpt-4o")
    talk.begin()
    assert talk.refuses("provider_refused") == ["give up: refused"]
    assert talk.told.refusal is not None
    assert talk.told.refusal.code == "provider_refused"


def test_too_long_a_prompt_goes_to_windows_that_are_longer_or_unknown() -> None:
    offers = shop(
        model("Capi/gpt-4o", context_window=16_000),
        model("Capi/short", context_window=8_000),
        model("Capi/alike", context_window=16_000),
        model("Other/long", context_window=128_000),
        model("Other/unknown"),
    )
    talk = Talk(offers, "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.refuses("context_length_exceeded") == ["ask Other/long"]
    assert talk.refuses("context_length_exceeded") == ["ask Other/unknown"]
    assert talk.refuses("context_length_exceeded") == ["give up: refused"]
    assert talk.told.refusal is not None
    assert talk.told.refusal.code == "context_length_exceeded"


def test_whoever_failed_and_has_too_short_a_window_is_not_asked_again() -> None:
    offers = shop(
        model("Capi/gpt-4o", context_window=8_000), model("Other/long", context_window=16_000)
    )
    talk = Talk(offers, "gpt-4o")
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("provider_error") == ["ask Other/long"]
    assert talk.refuses("context_length_exceeded") == ["give up: refused"]


@pytest.mark.parametrize(
    ("setting", "said"), [("refuse", "give up: refused"), ("next", "ask Capi/gemini-2.5-flash")]
)
def test_a_filter_is_final_unless_it_is_set_to_be_passed_on(setting: str, said: str) -> None:
    known = Settings(content_filter="next" if setting == "next" else "refuse")
    talk = Talk(SHOP, "gpt-4o", settings=known)
    talk.begin()
    assert talk.refuses("content_filter") == [said]


def test_a_stand_in_of_unknown_abilities_that_refuses_is_not_the_callers_fault() -> None:
    offers = shop(model("Capi/gpt-4o", capabilities=("tools",)), "Capi/unknown", "Other/unknown")
    talk = Talk(offers, "gpt-4o", needs=Needs(capabilities=("tools",)))
    assert talk.begin() == ["ask Capi/gpt-4o"]
    assert talk.fails("reset") == ["ask Capi/unknown"]
    assert talk.refuses("provider_refused") == ["ask Other/unknown"]


def test_the_asked_models_refusal_is_the_callers_also_when_it_is_asked_again() -> None:
    talk = Talk(ALONE, "gpt-4o", needs=Needs(capabilities=("tools",)))
    talk.begin()
    talk.fails("provider_error")
    talk.after(0.375).rings()
    assert talk.refuses("provider_refused") == ["give up: refused"]


# Time


def test_a_silent_provider_costs_at_most_the_limit_for_a_first_token() -> None:
    talk = Talk(shop("Capi/gpt-4o", "Other/big"), "gpt-4o", settings=Settings(retries=3))
    talk.begin()
    assert talk.limit == 10
    assert talk.after(10).fails("timeout") == ["ask Other/big"]
    assert talk.fails("reset") == ["wait 0.375"]
    assert talk.after(0.375).rings() == ["ask Other/big"], "the silent one is not asked again"


def test_a_whole_answer_may_take_its_own_time() -> None:
    talk = Talk(ALONE, "gpt-4o", stream=False)
    talk.begin()
    assert talk.limit == 120


def test_near_the_deadline_each_attempt_leaves_a_share_for_the_next() -> None:
    talk = Talk(shop("A/m", "B/m", "C/m"), "m", deadline=8)
    talk.begin()
    assert talk.limit == 6.0
    talk.after(6).fails("timeout")
    assert talk.limit == 1.5
    talk.after(1.5).fails("timeout")
    assert talk.limit == 0.5, "nobody follows the last one"
    assert talk.after(0.5).fails("timeout") == ["give up: deadline"]


def test_nobody_to_follow_is_no_reason_to_wait_longer_than_set() -> None:
    talk = Talk(ALONE, "gpt-4o", deadline=12)
    talk.begin()
    assert talk.limit == 10


@pytest.mark.parametrize("stream", [True, False])
def test_a_callers_own_hurry_says_nothing_about_a_provider(stream: bool) -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    hurried = Talk(offers, "gpt-4o", deadline=0.5, stream=stream)
    hurried.begin()
    assert hurried.limit == 0.5
    assert hurried.after(0.5).fails("timeout") == ["give up: deadline"]
    next_one = Talk(offers, "gpt-4o", health=hurried.health, now=hurried.now, stream=stream)
    assert next_one.begin() == ["ask Capi/gpt-4o"]


def test_hurried_callers_have_told_something_once_several_have_waited_for_nothing() -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    health = health_of(offers)
    for i in range(SILENCES + 1):
        talk = Talk(offers, "gpt-4o", health=health, now=T0 + 5 * i, deadline=4)
        expected = "ask Capi/gpt-4o" if i < SILENCES else "ask Other/big"
        assert talk.begin() == [expected]
        if i < SILENCES:
            assert talk.after(talk.limit).fails("timeout") == ["ask Other/big"]
    assert health.candidate(offers.models[0]).outcomes["timeout"] == 1


def test_a_silent_one_rests_although_every_caller_is_in_some_hurry() -> None:
    offers = shop("Capi/gpt-4o", "Other/big")
    known = Settings(rest=REST, deadline=8)
    talk = Talk(offers, "gpt-4o", settings=known)
    talk.begin()
    assert talk.after(talk.limit).fails("timeout") == ["ask Other/big"]
    next_one = Talk(offers, "gpt-4o", settings=known, health=talk.health, now=talk.now)
    assert next_one.begin() == ["ask Other/big"]


def test_a_request_that_comes_too_late_asks_nobody() -> None:
    assert Talk(ALONE, "gpt-4o", deadline=0).begin() == ["give up: deadline"]


def test_what_comes_of_a_cancelled_attempt_is_not_heard() -> None:
    talk = race()
    talk.begin()
    talk.after(2).rings()
    assert talk.speaks(1) == ["cancel 0"]
    assert talk.fails("reset", attempt=0) == []
    assert talk.refuses("provider_refused", attempt=0) == []
    assert talk.succeeds(0) == []
    assert not talk.plan.over
    assert talk.succeeds(1) == []


def test_a_caller_that_leaves_ends_what_runs() -> None:
    talk = Talk(SHOP, "gpt-4o")
    talk.begin()
    assert talk.leaves() == ["cancel 0"]
    assert talk.rings() == []
    assert [one.outcome for one in talk.plan.attempts] == ["cancelled"]


# What is remembered of earlier requests


def test_whoever_rests_is_passed_over_until_it_is_time_for_a_probe() -> None:
    offers = shop("Capi/gpt-4o", "Capi/mini")
    health = health_of(offers)
    down(health, offers.models[0])
    asked = Talk(offers, "gpt-4o", health=health, now=T0 + 1.9).begin()
    assert asked == ["ask Capi/mini"]
    probe = Talk(offers, "gpt-4o", health=health, now=T0 + 2)
    assert probe.begin()[0] == "ask Capi/gpt-4o"
    beside = Talk(offers, "gpt-4o", health=health, now=T0 + 2).begin()
    assert beside == ["ask Capi/mini"], "one probe is enough"
    probe.speaks()
    assert Talk(offers, "gpt-4o", health=health, now=T0 + 2).begin() == ["ask Capi/gpt-4o"]


def test_one_of_equals_whose_rest_is_over_is_looked_at_once() -> None:
    offers = shop("Slow/m", "Fast/m", "Other/m")
    health = health_of(offers)
    down(health, offers.models[0], now=T0 - 5)
    probe = Talk(offers, "m", health=health)
    assert probe.begin()[0] == "ask Slow/m"
    assert Talk(offers, "m", health=health).begin() != ["ask Slow/m"]


def test_behind_a_remembered_silence_its_mates_come_after_all_others_until_one_has_spoken() -> None:
    offers = shop("Capi/gpt-4o", "Capi/mini", "Other/big")
    health = health_of(offers)
    down(health, offers.models[0], "timeout", took=10)
    assert Talk(offers, "gpt-4o", health=health, now=T0 + 1).begin() == ["ask Other/big"]
    assert Talk(offers, "mini", health=health, now=T0 + 1).begin() == ["ask Capi/mini"]
    answers(health, offers.models[1], 0.3, at=T0 + 2)
    assert Talk(offers, "gpt-4o", health=health, now=T0 + 3).begin() == ["ask Capi/mini"]


def test_where_nobody_else_is_left_a_silent_ones_mates_are_better_than_it() -> None:
    offers = shop("Capi/gpt-4o", "Capi/mini")
    health = health_of(offers)
    down(health, offers.models[0], "timeout", took=10)
    assert Talk(offers, "gpt-4o", health=health, now=T0 + 1).begin() == ["ask Capi/mini"]


def test_a_resting_model_is_stood_in_for_in_its_own_order() -> None:
    health = health_of(SHOP)
    down(health, SHOP.models[0])
    down(health, SHOP.by_id("gpt-4o")[1])
    talk = Talk(SHOP, "gpt-4o", health=health)
    assert talk.begin() == ["ask Capi/gemini-2.5-flash"]


def test_where_all_rest_the_one_that_is_back_first_is_asked() -> None:
    offers = shop("One/m", "Two/m")
    health = health_of(offers)
    down(health, offers.models[0], now=T0)
    down(health, offers.models[1], now=T0 - 1)
    talk = Talk(offers, "m", health=health)
    assert talk.begin() == ["ask Two/m"]
    assert talk.fails("reset") == ["ask One/m"]
