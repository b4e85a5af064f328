"""How candidates, credentials and providers stand, as plain values for operators."""

from typing import Any, Final

from msgspec import Struct

from manyways.routing.breaker import Breaker, State
from manyways.routing.candidate import SAID
from manyways.routing.health import Health

LINGER: Final = 3.0
"""So many of the longest rests behind its end, something that failed more than once is still taken
to be away, where nobody has asked since."""


class Resting(Struct, frozen=True):
    """Whole providers, and models (provider, id), that rest. `in` asks about a model."""

    providers: frozenset[str] = frozenset()
    models: frozenset[tuple[str, str]] = frozenset()

    def __contains__(self, model: object) -> bool:
        return model in self.models or (isinstance(model, tuple) and model[0] in self.providers)


class Standing(Struct, frozen=True, kw_only=True):
    """One thing that can rest: a provider, a credential, a candidate, or a credential at one
    model whose rate is limited.

    `model` is `None` for what concerns the whole provider; `credential` counts from 0 where
    one key is meant. `why` says in words what opened the breaker, `resting_for` how many
    seconds ago it was well, `back_in` in how many seconds a probe may try. `failure_rate` decays;
    of a credential it is told where its provider has several. The other figures are a candidate's:
    `first_token`, `first_token_p95` and `whole` are seconds, `outcomes` counts attempts that were
    no success by their class.
    """

    provider: str
    model: str | None = None
    credential: int | None = None
    state: State = "closed"
    why: str | None = None
    resting_for: float | None = None
    back_in: float | None = None
    failures: int = 0
    failure_rate: float | None = None
    running: int = 0
    served: int = 0
    outcomes: dict[str, int] = {}
    first_token: float | None = None
    first_token_p95: float | None = None
    whole: float | None = None


def standings(health: Health, now: float) -> tuple[Standing, ...]:
    """Everything that was ever asked, providers first. `now` is of the clock `health` is on."""
    rows = []
    for name, provider in health.providers():
        rows.append(_row(provider.breaker, now, provider=name))
        rows.extend(
            _row(key, now, provider=name, credential=i, failure_rate=key.failure_rate)
            for i, key in enumerate(provider.credentials)
        )
    for candidate in health.candidates():
        candidate.decay(now)
        name, model = candidate.model.provider, candidate.model.id
        seen = candidate.good + candidate.bad
        rows.append(
            _row(
                candidate.breaker,
                now,
                provider=name,
                model=model,
                failure_rate=candidate.failure_rate if seen >= SAID else None,
                running=candidate.running,
                served=candidate.served,
                outcomes=dict(candidate.outcomes),
                first_token=candidate.first_token,
                first_token_p95=candidate.percentile(0.95),
                whole=candidate.whole,
            )
        )
        rows.extend(
            _row(breaker, now, provider=name, model=model, credential=i)
            for i, breaker in candidate.limited.items()
        )
    return tuple(rows)


def resting(health: Health, now: float) -> Resting:
    """What is left alone now, and what is not known to be back since it was."""
    linger = LINGER * health.settings.rest_limit

    def rests(breaker: Breaker) -> bool:
        behind = linger if breaker.failures > 1 else 0.0
        return bool(breaker.why) and now < breaker.until + behind

    return Resting(
        frozenset(
            name
            for name, provider in health.providers()
            if rests(provider.breaker) or all(map(rests, provider.credentials))
        ),
        frozenset(
            (one.model.provider, one.model.id) for one in health.candidates() if rests(one.breaker)
        ),
    )


def _row(breaker: Breaker, now: float, **fields: Any) -> Standing:
    state = breaker.state(now)
    if state != "closed":
        fields["why"] = breaker.why
        fields["resting_for"] = now - breaker.began
        fields["back_in"] = max(0.0, breaker.until - now)
    return Standing(state=state, failures=breaker.failures, **fields)
