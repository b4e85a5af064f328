"""Outages, as the callers of a whole gateway meet them, in virtual time."""

import heapq
import itertools
import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyways.errors import AttemptFailed
from manyways.routing.candidate import SAMPLES
from manyways.routing.commands import Cancel, Commands, Start, Wait
from manyways.routing.plan import Plan
from manyways.routing.resolve import Wish, resolve
from manyways.routing.settings import Settings
from manyways.types import NO_NEEDS
from tests.support.routing import (
    ASKED,
    MATE,
    OFFERS,
    T0,
    answers,
    health_of,
)


class Outage:
    """A primary that is dead from `T0` to `T0 + seconds`, asked once every `every` seconds, as
    the plans of real requests decide. Whoever is well speaks after `FIRST` seconds.

    With `whole`, all of its provider is dead. `probes` are the moments at which the dead were
    asked, `waited` the seconds each caller had to wait, by the moment at which it came.
    """

    def __init__(
        self,
        *,
        seconds: float,
        every: float,
        phase: float,
        chance: Callable[[], float],
        code: str = "",
        whole: bool = False,
        stream: bool = True,
    ) -> None:
        self.ends = T0 + seconds
        self.settings = Settings()
        self.health = health_of(OFFERS, self.settings, chance=chance)
        self.chance = chance
        self.code = code
        self.stream = stream
        self.dead = (ASKED, MATE) if whole else (ASKED,)
        self.probes: list[float] = []
        self.waited: dict[float, float] = {}
        self.back: float | None = None
        self._count = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        for row in OFFERS.models:  # what each of them usually takes is known
            answers(self.health, row, FIRST, times=SAMPLES, at=T0 - 999, stream=stream)
        for i in range(-30, int((seconds + 60) / every)):
            self._at(T0 + phase + i * every, self._comes)
        while self._events:
            now, _, happens = heapq.heappop(self._events)
            happens(now)

    def _at(self, moment: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._count), happens))

    def _comes(self, now: float) -> None:
        plan = Plan(
            resolve(OFFERS, Wish(models=("Capi/gpt-4o",)), NO_NEEDS, self.settings.order),
            self.health,
            self.settings,
            deadline=now + 170,
            stream=self.stream,
            chance=self.chance,
        )
        self._obey(plan, now, plan.begin(now), now)

    def _obey(self, plan: Plan, came: float, commands: Commands, now: float) -> None:
        for command in commands:
            if isinstance(command, Start):
                self._ask(plan, came, command, now)
            elif isinstance(command, Wait):
                self._at(command.until, lambda when: self._obey(plan, came, plan.rang(when), when))
            else:
                assert isinstance(command, Cancel), "everybody is answered"

    def _ask(self, plan: Plan, came: float, start: Start, now: float) -> None:
        attempt = plan.attempts[start.attempt]

        def speaks(when: float) -> None:
            if attempt.outcome is None:
                self.waited[came] = when - came
                began = plan.spoke if self.stream else plan.came
                self._obey(plan, came, began(attempt.id, when), when)
                self._obey(plan, came, plan.succeeded(attempt.id, when), when)

        def fails(when: float) -> None:
            if attempt.outcome is None:
                failure = AttemptFailed(self.code or "timeout", "down")
                self._obey(plan, came, plan.failed(attempt.id, failure, when), when)

        if start.model in self.dead and T0 <= now < self.ends:
            self.probes.append(now)
            if self.code:
                fails(now)
            else:
                self._at(now + start.limit, fails)
            return
        if start.model is ASKED and now >= self.ends and self.back is None:
            self.back = now
        self._at(now + FIRST, speaks)

    @property
    def came_back_after(self) -> float:
        assert self.back is not None
        return self.back - self.ends

    def longest_wait(self, since: float, until: float = math.inf) -> float:
        """Of those who came so many seconds after its beginning."""
        return max(waited for came, waited in self.waited.items() if since <= came - T0 < until)


FIRST = 0.5
"""Seconds to the first token of whoever is well."""
PATIENCE = 1.5 * FIRST
"""How long a probe is waited for by itself."""

chances = st.randoms(use_true_random=False).map(lambda source: source.random)
lasting = st.floats(30, 120)


@settings(max_examples=60, deadline=None)
@given(
    chance=chances,
    phase=st.floats(0, 3.999),
    seconds=lasting,
    code=st.sampled_from(["connect", "provider_error", "reset"]),
)
def test_in_an_outage_the_dead_one_sees_probes_and_is_back_within_15_seconds(
    chance: Callable[[], float], phase: float, seconds: float, code: str
) -> None:
    outage = Outage(seconds=seconds, every=4, phase=phase, chance=chance, code=code)
    early = 4  # one is taken for a stray, and the first rests are short
    assert len(outage.probes) <= early + seconds / 12, "not a request every 4 seconds"
    assert outage.came_back_after <= 15


@settings(max_examples=40, deadline=None)
@given(chance=chances, phase=st.floats(0, 0.099), seconds=lasting)
def test_under_load_the_dead_one_sees_no_more_probes_than_when_it_is_quiet(
    chance: Callable[[], float], phase: float, seconds: float
) -> None:
    outage = Outage(seconds=seconds, every=0.1, phase=phase, chance=chance, code="connect")
    assert len(outage.probes) <= 4 + seconds / 8, "of ten requests a second"
    assert outage.came_back_after <= 10.1


@settings(max_examples=60, deadline=None)
@given(chance=chances, phase=st.floats(0, 3.999), seconds=lasting, whole=st.booleans())
def test_a_silent_one_costs_few_callers_their_time(
    chance: Callable[[], float], phase: float, seconds: float, whole: bool
) -> None:
    """Who came before the first silence of a model was over has waited it out. Everybody else
    waits for a probe at most, and for whoever outruns it: hardly longer than usual, while few
    of the latest first tokens are those of probes, and half of the limit at most."""
    outage = Outage(seconds=seconds, every=4, phase=phase, chance=chance, whole=whole)
    known = 12 * len(outage.dead)
    assert len(outage.probes) <= 3 * len(outage.dead) + 2 + seconds / 8
    assert outage.longest_wait(since=0) <= 10 + FIRST + 1e-6
    assert outage.longest_wait(since=phase + known, until=60) <= PATIENCE + FIRST + 1e-6
    assert outage.longest_wait(since=phase + known) <= 5 + FIRST + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    chance=chances,
    every=st.floats(0.2, 8),
    phase=st.floats(0, 0.999),
    seconds=lasting,
    whole=st.booleans(),
)
def test_a_silent_one_is_back_a_race_and_a_rest_and_a_request_later_at_the_latest(
    chance: Callable[[], float], every: float, phase: float, seconds: float, whole: bool
) -> None:
    """The last probe may begin just before the end: it is outrun, and a rest follows."""
    outage = Outage(seconds=seconds, every=every, phase=phase * every, chance=chance, whole=whole)
    race = 5 + FIRST
    assert outage.came_back_after <= race + Settings().rest_limit + every + 1e-6


@pytest.mark.parametrize("whole", [False, True])
def test_a_silent_one_is_back_within_15_seconds(whole: bool) -> None:
    """A probe at the last moment, a rest that began with it, and the request behind that."""
    luck = Random(1)
    back = [
        Outage(
            seconds=luck.uniform(30, 120),
            every=4,
            phase=luck.uniform(0, 4),
            chance=luck.random,
            whole=whole,
        ).came_back_after
        for _ in range(100)
    ]
    assert max(back) <= 15


@settings(max_examples=40, deadline=None)
@given(chance=chances, phase=st.floats(0, 3.999), seconds=st.floats(150, 600))
def test_whoever_wants_whole_answers_waits_out_one_silence_and_then_a_race_at_most(
    chance: Callable[[], float], phase: float, seconds: float
) -> None:
    """Before the first silence is over nobody can know of it: whole answers give no sign of life.
    Behind it, a probe is raced, and the one that is down sees no more than probes."""
    outage = Outage(seconds=seconds, every=4, phase=phase, chance=chance, stream=False)
    known = phase + Settings().answer_timeout + 0.01
    assert outage.longest_wait(since=known) <= 3 * FIRST + FIRST + 1e-6
    late = [moment for moment in outage.probes if moment > T0 + known]
    assert len(late) <= 2 + (seconds - known) / 8
    assert outage.came_back_after <= 15
