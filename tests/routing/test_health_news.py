"""What several gateways tell each other of the health they remember."""

from collections.abc import Callable
from itertools import combinations

from manyways.routing.breaker import LEASE, News
from manyways.routing.health import DISBELIEF, HEARSAY, JITTER, Health
from tests.support.routing import (
    ALONE,
    ASKED,
    MATE,
    OFFERS,
    REST,
    SETTINGS,
    T0,
    answered,
    back_in,
    begun,
    failed,
    health_of,
    is_back,
    model,
    no_chance,
)


class Gateways:
    """Several that hear of each other at once, and what was said."""

    def __init__(self, count: int, chance: Callable[[], float] = no_chance) -> None:
        self.all = [health_of(OFFERS, chance=chance) for _ in range(count)]
        self.said: list[News] = []
        self.now = T0
        for health in self.all:
            for row in OFFERS.models:
                health.candidate(row)
            health.share(self._sharing(health))

    def _sharing(self, speaker: Health) -> Callable[[News], None]:
        def share(news: News) -> None:
            self.said.append(news)
            for health in self.all:
                if health is not speaker:
                    health.heard(news, self.now)

        return share

    def resting(self) -> list[bool]:
        return [not is_back(health, self.now) for health in self.all]


def test_what_rests_at_one_rests_at_all_and_comes_back_at_all() -> None:
    gateways = Gateways(3)
    failed(gateways.all[0])
    assert gateways.resting() == [True, True, True]
    gateways.now += REST
    assert gateways.resting() == [False, False, False]
    answered(gateways.all[1], now=gateways.now)
    assert all(health.candidate(ASKED).breaker.why == "" for health in gateways.all[1:])
    assert is_back(gateways.all[0], gateways.now)


def test_what_was_heard_is_not_told_on() -> None:
    gateways = Gateways(3)
    failed(gateways.all[0])
    assert [(news.name, news.seconds) for news in gateways.said] == [(("Capi", "gpt-4o", None), 2)]


def test_of_all_gateways_one_request_probes() -> None:
    gateways = Gateways(3)
    failed(gateways.all[0])
    gateways.now += REST
    begun(gateways.all[2], now=gateways.now)
    assert gateways.resting() == [True, True, True]
    gateways.now += LEASE
    assert gateways.resting() == [False, False, False], "a probe that hangs is not waited for"


def test_a_probe_that_fails_rests_all_for_longer() -> None:
    gateways = Gateways(2)
    failed(gateways.all[0])
    gateways.now += REST
    failed(gateways.all[1], now=gateways.now)
    for health in gateways.all:
        assert back_in(health, now=gateways.now) == 4 * REST
    gateways.now += 4 * REST
    failed(gateways.all[0], now=gateways.now)
    assert back_in(gateways.all[0], now=gateways.now) == SETTINGS.rest_limit


def test_a_rest_that_was_heard_of_never_shortens_ones_own() -> None:
    health = health_of(OFFERS)
    failed(health, retry_after=30)
    health.heard(News(name=("Capi", "gpt-4o", None), seconds=1.0, why="reset"), T0)
    assert back_in(health) == 30


def test_rests_that_were_heard_of_end_at_different_times() -> None:
    chances = iter((0.0, 0.5, 1.0))
    rests = []
    for _ in range(3):
        health = health_of(OFFERS, chance=lambda: next(chances))
        health.candidate(ASKED)
        health.heard(News(name=("Capi", "gpt-4o", None), seconds=10.0, why="reset"), T0)
        rests.append(back_in(health))
    assert rests == [10, 10 * (1 + JITTER / 2), 10 * (1 + JITTER)]
    assert all(later > earlier for earlier, later in combinations(rests, 2))


def test_where_it_failed_too_the_word_that_it_is_back_is_tried_by_one_request() -> None:
    health = health_of(OFFERS)
    failed(health, retry_after=30)
    health.heard(News(name=("Capi", "gpt-4o", None)), T0 + 1)
    begun(health, now=T0 + 1)
    assert not is_back(health, T0 + 1)


def test_others_are_not_believed_about_what_was_found_well_against_their_word() -> None:
    health = health_of(OFFERS)
    news = News(name=("Capi", None, None), seconds=REST, why="connect")
    health.heard(news, T0)
    assert not is_back(health, T0)
    answered(health, now=T0 + REST)
    health.heard(news, T0 + REST + 1)
    assert is_back(health, T0 + REST + 1), "the way of the others is broken, not the provider"
    health.heard(news, T0 + REST + DISBELIEF)
    assert not is_back(health, T0 + REST + DISBELIEF)


def test_keys_and_rates_are_told_too() -> None:
    for code in ("credentials", "rate_limited", "connect"):
        gateways = Gateways(2)
        failed(gateways.all[0], code)
        assert gateways.resting() == [True, True]
        others = [is_back(health, T0, MATE) for health in gateways.all]
        assert others == [code == "rate_limited"] * 2


def test_a_success_in_good_times_is_told_to_nobody() -> None:
    gateways = Gateways(2)
    for _ in range(3):
        answered(gateways.all[0])
    assert not gateways.said


def test_a_model_that_nobody_has_asked_for_yet_rests_when_it_is() -> None:
    health = health_of(ALONE)
    (row,) = ALONE.models
    news = News(name=("Capi", "gpt-4o", None), seconds=5.0, why="reset")
    health.heard(news, T0)
    assert not is_back(health, T0 + 4, row)
    assert is_back(health, T0 + 5, row)


def test_a_model_that_is_back_before_anybody_asked_for_it_does_not_rest() -> None:
    health = health_of(ALONE)
    (row,) = ALONE.models
    health.heard(News(name=("Capi", "gpt-4o", None), seconds=5.0, why="reset"), T0)
    health.heard(News(name=("Capi", "gpt-4o", None)), T0 + 1)
    assert is_back(health, T0 + 1, row)


def test_what_is_told_of_strangers_is_forgotten() -> None:
    health = health_of(ALONE)
    for name in (("Nobody", None, None), ("Capi", None, 7), ("Capi", None, -1)):
        health.heard(News(name=name, seconds=5.0, why="reset"), T0)
    for number in range(HEARSAY + 10):
        health.heard(News(name=("Capi", f"m{number}", None), seconds=5.0, why="reset"), T0)
    known = sum(not is_back(health, T0, model(f"Capi/m{n}")) for n in range(HEARSAY + 10))
    assert known == HEARSAY
    assert is_back(health, T0, ALONE.models[0])
