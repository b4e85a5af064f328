"""What holds for every plan, whoever is asked, however they stand, and whatever they answer."""

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyways.catalog.snapshot import Snapshot
from manyways.errors import AttemptFailed, Refusal
from manyways.routing.breaker import Breaker
from manyways.routing.candidate import ENOUGH, Ticket
from manyways.routing.commands import Cancel, Commands, GiveUp, Start, Wait
from manyways.routing.continuation import Method
from manyways.routing.hedging import HedgeBudget
from manyways.routing.plan import JITTER, Plan
from manyways.routing.resolve import Candidates, Wish, fits, resolve
from manyways.routing.settings import Settings
from manyways.types import NO_NEEDS, Model, Needs
from tests.support.routing import T0, full_name, health_of, model, shop

T = TypeVar("T")

PROVIDERS = ("Ann", "Bob", "Cat", "Dan")
IDS = ("m1", "m2", "m3", "m4", "m5", "m6")
CODES = (
    "credentials", "model_gone", "rate_limited", "provider_error", "connect", "tls", "reset",
    "cut", "garbled", "timeout", "too_large", "no_answer", "error_inside",
)  # fmt: skip
REFUSALS = ("provider_refused", "context_length_exceeded", "content_filter", "not_supported")
WAYS: tuple[Method, ...] = ("again", "prefill", "instruct")
STEPS = 400
"""More than any plan takes: one that is not over by then never will be."""

WINDOWS = (None, None, 4_000, 16_000, 64_000)
ABILITIES = ((), ("tools",), ("tools", "vision"), ("tools", "prefill"))
MOMENTS = (0.0, 0.001, 0.3, 0.9, 2.5, 9.0, 31.0)
ASKED_FOR = (None, None, None, 0.0, 2.0, 45.0, 1000.0)
NEEDS = (NO_NEEDS, NO_NEEDS, Needs(capabilities=("tools",)), Needs(prompt_tokens=5_000))


class Pick(Protocol):
    """Chance: one of several."""

    def __call__(self, among: Sequence[T], /) -> T: ...


def some(pick: Pick, among: Sequence[T]) -> tuple[T, ...]:
    return tuple(one for one in among if pick((True, False)))


class World:
    """Everything one request meets, picked at random."""

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.offers = self._offers()
        self.settings = Settings(
            order=pick(("same-provider-first", "same-model-first")),
            max_attempts=pick((10, 1, 2, 3, 5, 12)),
            retries=pick((3, 0, 1)),
            hedge=pick((False, True)),
            hedge_budget=pick((0.05, 0.0, 1.0)),
            content_filter=pick(("refuse", "next")),
            deadline=pick((170.0, 30.0, 12.0, 5.0, 0.4)),
        )
        self.keys = {name: pick((1, 2, 3)) for name in self.offers.provider_names}
        self.health = health_of(self.offers, self.settings, keys=self.keys, chance=self.chance)
        self.wish = self._wish()
        self.needs = pick(NEEDS)
        self.stream = pick((True, False))
        self.now = T0
        for row in some(pick, self.offers.models):
            self._warmed(row, pick((0.0, 0.4, 8.0)))
        self.others = [self._lived() for _ in range(pick(range(12)))]

    def chance(self) -> float:
        return self.pick((0.0, 0.2, 0.5, 0.7, 0.999))

    def _offers(self) -> Snapshot:
        pick = self.pick
        rows = [
            model(
                f"{provider}/{model_id}",
                category=pick(("text", "text", "text", "image")),
                context_window=pick(WINDOWS),
                capabilities=pick(ABILITIES),
                asked_last=pick((False, False, True)),
                quality_score=pick((None, 3.0, 9.0)),
            )
            for provider in PROVIDERS[: pick((1, 2, 3, 4))]
            for model_id in some(pick, IDS) or IDS[:1]
        ]
        return shop(*rows)

    def _wish(self) -> Wish:
        pick = self.pick
        names = list(dict.fromkeys(row.id for row in self.offers.models))
        kind = pick(("plain", "with providers", "with a list"))
        if kind == "with a list":
            listed = some(pick, names) or tuple(names[:1])
            return Wish(models=listed, fallbacks=pick((True, False)), listed=True)
        name = pick(("auto", *names, *map(full_name, self.offers.models)))
        if kind == "plain":
            return Wish(models=(name,))
        known = self.offers.provider_names
        return Wish(
            models=(name,),
            begin=some(pick, known[:2]),
            only=frozenset(some(pick, known)),
            ignore=frozenset(some(pick, known[1:3])),
            fallbacks=pick((True, False)),
        )

    def _warmed(self, row: Model, seconds: float) -> None:
        """It has answered often enough for its usual latency to be known."""
        for _ in range(ENOUGH):
            ticket = Ticket(self.health.candidate(row), 0, self.now - seconds, stream=True)
            self.health.begin(ticket)
            self.health.spoke(ticket, self.now)
            self.health.succeeded(ticket, self.now)

    def _lived(self) -> Ticket | None:
        """What another request met before; some are still under way."""
        pick, health = self.pick, self.health
        row = pick(self.offers.models)
        key = pick(range(self.keys[row.provider]))
        ticket = Ticket(health.candidate(row), key, self.now, stream=True)
        health.begin(ticket)
        self.now += pick(MOMENTS)
        end = pick(("fails", "breaks", "answers", "runs"))
        if end == "runs":
            return ticket
        if end != "fails":
            health.spoke(ticket, self.now)
        if end == "answers":
            health.succeeded(ticket, self.now)
        else:
            health.failed(ticket, self.now, pick(CODES), "before", pick(ASKED_FOR))
        return None

    def breakers(self) -> list[Breaker]:
        found = []
        for _, provider in self.health.providers():
            found += [provider.breaker, *provider.credentials]
        for candidate in self.health.candidates():
            found += [candidate.breaker, *candidate.limited.values()]
        return found


class Witness:
    """Hears every command of a plan, and checks what must hold at each one."""

    def __init__(self, world: World, candidates: Candidates) -> None:
        self.world = world
        self.candidates = candidates
        self.deadline = world.now + world.settings.deadline
        self.budget = HedgeBudget()
        self.plan = Plan(
            candidates,
            world.health,
            world.settings,
            deadline=self.deadline,
            stream=world.stream,
            chance=world.chance,
            budget=self.budget,
        )
        self.now = world.now
        self.running: dict[int, Start] = {}
        self.ends: dict[int, float] = {}  # when each one that is silent runs out of time
        self.spoken: set[int] = set()
        self.started: list[Start] = []
        self.probes: set[int] = set()  # which of them look whether somebody is back
        self.latest_end = -math.inf  # of any attempt
        self.failed: dict[int, str] = {}
        self.waiting: float | None = None
        self.ways: tuple[Method, ...] | None = None
        self.too_short = 0
        self.joined: set[tuple[str, Method | None]] = set()  # how an answer was gone on from
        self.useless: set[tuple[str, Method | None]] = set()  # was said to lead nowhere
        self.dead: set[tuple[str, int]] = set()  # keys that were not accepted
        self.not_reached: set[str] = set()  # providers
        self.silence: dict[str, float] = {}  # seconds each has let us wait for nothing
        self.final = False  # the caller's own fault was told
        self.ended = False
        self.told: GiveUp | None = None

    def hear(self, commands: Commands) -> None:
        assert not self.ended or not commands, "a plan that is over is silent"
        self.waiting = None
        waits = [command for command in commands if isinstance(command, Wait)]
        for command in commands:
            match command:
                case Start():
                    self._start(command)
                    self._check_watch(command, waits)
                case Cancel(attempt=attempt):
                    assert attempt in self.running, "only what runs can be cancelled"
                    del self.running[attempt]
                    self.latest_end = self.now
                case Wait(until=until):
                    assert self.now <= until < self.deadline
                    self.waiting = until
                case GiveUp():
                    assert not self.running, "nothing runs on when all is given up"
                    assert command.retry_after is None or command.retry_after >= 0
                    self.told = command
                    self.ended = True
        self.ended = self.ended or self.plan.over
        assert self.ended or self.running or self.waiting is not None, "a plan that is stuck"

    def _start(self, start: Start) -> None:
        settings, row = self.world.settings, start.model
        assert not self.final, "what the caller caused is not tried again"
        assert start.attempt == len(self.started) < settings.max_attempts
        assert self.now < self.deadline
        assert 0 < start.limit <= self.deadline - self.now + 1e-9
        usual = settings.first_token_timeout if self.world.stream else settings.answer_timeout
        name, left = full_name(row), self.deadline - self.now
        assert start.limit <= usual
        assert start.limit >= min(usual / 5, left / 2), "too little time to be of any use"
        if self.world.stream:
            assert self.silence.get(name, 0.0) + start.limit <= usual + 1e-6
        assert 0 <= start.credential < self.world.keys[row.provider]
        self._check_wish(row)
        self._check_repeat(start)
        self._check_key(start)
        window = row.context_window
        assert window is None or window > self.too_short, "known to be too short"
        if self.ways is None:
            assert start.method is None
        else:
            assert start.method in self.ways
            assert start.method != "prefill" or "prefill" in row.capabilities
            assert (name, start.method) not in self.useless
        if self.running:
            self._check_race(row)
        if self.world.health.is_probe(self.plan.attempts[start.attempt]):
            self.probes.add(start.attempt)
        self.running[start.attempt] = start
        self.ends[start.attempt] = self.now + start.limit
        self.started.append(start)

    def _check_race(self, row: Model) -> None:
        """Two at most, where races are wanted or the first is a probe; who comes second is
        known to be well."""
        (first,) = self.running
        assert first not in self.spoken
        assert (self.world.settings.hedge and self.world.stream) or first in self.probes
        candidate = self.world.health.candidate(row)
        whole = (candidate.breaker, candidate.provider.breaker)
        assert [breaker.state(self.now) for breaker in whole] == ["closed", "closed"]

    def _check_watch(self, start: Start, waits: Sequence[Wait]) -> None:
        """A probe is watched, unless everybody has been asked, or another runs already."""
        alone = list(self.running) == [start.attempt]
        if not (alone and start.attempt in self.probes) or self.ways:
            return
        if start.model in [one.model for one in self.started[:-1]]:
            return  # nobody is left who could race
        (wait,) = waits
        assert wait.until - self.now <= start.limit / 2 + 1e-9

    def _check_wish(self, row: Model) -> None:
        wish, name = self.candidates.wish, full_name(row)
        assert row in self.world.offers.models
        assert fits(row, self.world.needs)
        assert row.provider not in wish.ignore
        assert not wish.only or row.provider in wish.only
        if wish.listed or not wish.fallbacks:
            assert "auto" in wish.models or row.id in wish.models or name in wish.models
        if wish.begin and not wish.fallbacks:
            assert row.provider in wish.begin

    def _check_repeat(self, start: Start) -> None:
        """The same again only when nothing else is left: another key, or nobody new."""
        latest = self.started[-1] if self.started else None
        if self.ways is not None:
            if (full_name(start.model), start.method) in self.joined:
                assert latest is not None
                if (
                    (latest.model, latest.method) != (start.model, start.method)
                    or latest.credential == start.credential
                    or self.failed[latest.attempt] not in {"credentials", "rate_limited"}
                ):
                    self._check_distance()
            self.joined.add((full_name(start.model), start.method))
            return
        before = [one for one in self.started if one.model is start.model]
        if not before or latest is None:
            return
        fresh_key = start.credential not in {one.credential for one in before}
        if latest.model is start.model and fresh_key:
            assert self.failed[latest.attempt] in {"credentials", "rate_limited"} or not self.new()
            return
        self._check_distance()
        assert not self.new(), "somebody has not been asked yet"
        assert self.failed[before[-1].attempt] not in {"model_gone", "refused"}
        same_key = [one for one in before if one.credential == start.credential]
        assert "credentials" not in {self.failed[one.attempt] for one in same_key}

    def _check_distance(self) -> None:
        """Repeats come one after the other."""
        distance = self.world.settings.retry_pause * (1 - JITTER)
        assert self.now >= self.latest_end + distance - 1e-9

    def _check_key(self, start: Start) -> None:
        """A key that was not accepted in this plan rests, while there is another that is well."""
        candidate = self.world.health.candidate(start.model)
        keys = candidate.provider.credentials
        limited = candidate.limited
        well = [
            i for i, key in enumerate(keys) if not (key.why or (i in limited and limited[i].why))
        ]
        if (start.model.provider, start.credential) in self.dead and well:
            assert keys[start.credential].state(self.now) != "open"

    def new(self) -> list[Model]:
        """Who could still be asked, and has not been."""
        first = self.started[0].model
        asked = [one.model for one in self.started]
        return [
            row
            for tier in self.candidates.behind(first)
            for row in tier
            if row not in asked
            and row.provider not in self.not_reached
            and (row.context_window or 10**9) > self.too_short
        ]

    # What happens

    def begin(self) -> None:
        self.hear(self.plan.begin(self.now))

    def speaks(self, attempt: int) -> None:
        self.spoken.add(attempt)
        self.final = False  # it was only the other one of a race
        self.hear(self.plan.spoke(attempt, self.now))
        assert list(self.running) == [attempt]

    def succeeds(self, attempt: int) -> None:
        start = self.running.pop(attempt)
        self.hear(self.plan.succeeded(attempt, self.now))
        assert self.plan.over
        assert self.plan.committed is self.plan.attempts[attempt]
        candidate = self.world.health.candidate(start.model)
        provider = candidate.provider
        way = [candidate.breaker, provider.breaker, provider.credentials[start.credential]]
        if start.credential in candidate.limited:
            way.append(candidate.limited[start.credential])
        began = self.plan.attempts[attempt].began  # what opened since then, it does not disprove
        older = [breaker for breaker in way if breaker.since <= began]
        assert [breaker.state(self.now) for breaker in older] == ["closed"] * len(older)

    def fails(self, attempt: int, code: str, retry_after: float | None = None) -> None:
        start = self.running.pop(attempt)
        self.failed[attempt] = code
        self.latest_end = self.now
        if code == "timeout":
            name = full_name(start.model)
            waited = self.now - self.plan.attempts[attempt].began
            self.silence[name] = self.silence.get(name, 0.0) + waited
        if code in {"connect", "tls"}:
            self.not_reached.add(start.model.provider)
        if code == "diverged":
            self.useless.add((full_name(start.model), start.method))
        if code == "credentials":
            self.dead.add((start.model.provider, start.credential))
        failure = AttemptFailed(code, "now", retry_after=retry_after)
        self.hear(self.plan.failed(attempt, failure, self.now))

    def breaks(self, attempt: int, code: str, ways: tuple[Method, ...]) -> None:
        del self.running[attempt]
        self.failed[attempt] = code
        self.latest_end = self.now
        self.ways = ways
        self.joined.clear()
        self.hear(self.plan.broke(attempt, AttemptFailed(code, "now"), ways, self.now))

    def refuses(self, attempt: int, code: str) -> None:
        start = self.running.pop(attempt)
        self.failed[attempt] = "refused"
        self.latest_end = self.now
        wish, row = self.candidates.wish, start.model
        asked_for = self.candidates.asked_for(row)
        trusted = self.candidates.asked_on_trust(row) and not asked_for
        if self.ways is not None or (trusted and code == "provider_refused"):
            self.useless.add((full_name(row), start.method))  # not the caller's fault
        elif code == "context_length_exceeded" and wish.fallbacks:
            self.too_short = max(self.too_short, row.context_window or 0)
        elif code == "not_supported" and wish.fallbacks and not asked_for:
            pass  # somebody else may have it
        elif code != "content_filter" or self.world.settings.content_filter == "refuse":
            self.final = True
        refusal = Refusal(code, "now")
        self.hear(self.plan.refused(attempt, refusal, self.now))
        if self.final:
            # The other one of a race may still speak.
            assert self.ended or self.running
            assert self.told is None or self.told.reason == "refused"

    def rings(self) -> None:
        self.hear(self.plan.rang(self.now))

    def leaves(self) -> None:
        self.hear(self.plan.left(self.now))
        assert self.plan.over
        assert not self.running


def play(witness: Witness, pick: Pick) -> None:
    """Answer a plan at random until it is over."""
    witness.begin()
    for _ in range(STEPS):
        if witness.ended:
            return
        _pass_time(witness, pick)
        late = [
            attempt
            for attempt in witness.running
            if attempt not in witness.spoken and witness.ends[attempt] <= witness.now
        ]
        if late:
            witness.fails(late[0], "timeout")
        elif witness.waiting is not None and witness.waiting <= witness.now:
            witness.rings()
        elif pick(range(30)) == 29:
            witness.leaves()
        elif not witness.running or pick(range(30)) == 29:
            witness.rings()  # early, which does no harm
        else:
            _answer(witness, pick)
    raise AssertionError("it does not end")


def _pass_time(witness: Witness, pick: Pick) -> None:
    """At most to what was promised to happen: a limit that is over, a ring."""
    ends = [witness.ends[a] for a in witness.running if a not in witness.spoken]
    if witness.waiting is not None:
        ends.append(witness.waiting)
    until = witness.now + pick(MOMENTS)
    if not witness.running or pick(range(5)) == 4:
        until = max([until, *ends])
    witness.now = max(witness.now, min([until, *ends]))


def _answer(witness: Witness, pick: Pick) -> None:
    attempt = pick(sorted(witness.running))
    if attempt in witness.spoken:
        if pick((True, False)):
            witness.succeeds(attempt)
        else:
            code = pick(("cut", "timeout", "garbled", "error_inside", "reset"))
            witness.breaks(attempt, code, some(pick, WAYS))
        return
    match pick(("speaks", "fails", "fails", "fails", "refuses")):
        case "speaks" if witness.world.stream:
            witness.speaks(attempt)
        case "speaks":
            witness.succeeds(attempt)
        case "refuses":
            witness.refuses(attempt, pick(REFUSALS))
        case _:
            # Whoever goes on from a broken answer may say something else.
            codes = CODES if witness.running[attempt].method is None else (*CODES, "diverged")
            witness.fails(attempt, pick(codes), pick(ASKED_FOR))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_plan_ends_in_bounds_and_asks_nobody_it_should_not(data: st.DataObject) -> None:
    check(lambda among: data.draw(st.sampled_from(among)))


def check(pick: Pick) -> None:
    world = World(pick)
    try:
        candidates = resolve(world.offers, world.wish, world.needs, world.settings.order)
    except Refusal:
        return  # nobody can serve it, which is another test's matter
    witness = Witness(world, candidates)
    play(witness, pick)
    plan = witness.plan
    assert plan.over
    witness.rings()  # what comes late is not heard
    assert [one.model for one in plan.attempts] == [start.model for start in witness.started]
    assert all(one.outcome is not None and one.ended is not None for one in plan.attempts)
    for ticket in world.others:
        if ticket is not None:
            world.health.dropped(ticket)
    assert [one for one in world.health.candidates() if one.running] == []
    assert [breaker for breaker in world.breakers() if breaker.probe is not None] == []
