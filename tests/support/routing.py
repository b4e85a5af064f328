"""Shops, healths and conversations: what tests of routing are told with.

talk = Talk(shop("Capi/gpt-4o", "Gemini/gpt-4o"), "gpt-4o")
assert talk.begin() == ["ask Capi/gpt-4o"]
assert talk.fails("reset") == ["ask Gemini/gpt-4o"]
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from manyways.catalog.snapshot import Snapshot
from manyways.errors import AttemptFailed, Refusal
from manyways.routing.candidate import ENOUGH, Ticket
from manyways.routing.commands import Cancel, Command, Commands, GiveUp, Start, Wait
from manyways.routing.continuation import Method
from manyways.routing.health import Health
from manyways.routing.hedging import HedgeBudget
from manyways.routing.plan import Plan
from manyways.routing.resolve import Wish, resolve
from manyways.routing.settings import Settings
from manyways.types import NO_NEEDS, Model, Needs

REST = 2.0
"""Seconds of a first rest in tests, whatever the default is."""
SETTINGS = Settings(rest=REST)
T0 = 1000.0
"""When every conversation begins, in seconds of its clock."""


def no_chance() -> float:
    """Ties are won by the first, rests are as long as they are set, pauses as short as can be."""
    return 0.0


def model(name: str, **fields: Any) -> Model:
    """A model of a catalog out of `"provider/id"`; ids may hold slashes."""
    provider, _, model_id = name.partition("/")
    row: dict[str, Any] = {"upstream_id": f"up-{model_id}", "created": 1, **fields}
    return Model(id=model_id, provider=provider, **row)


def shop(*rows: str | Model, providers: Sequence[str] = ()) -> Snapshot:
    """A catalog; `providers` are those that have no models."""
    models = [model(row) if isinstance(row, str) else row for row in rows]
    names = dict.fromkeys([*(row.provider for row in models), *providers])
    ordered = tuple(row for name in names for row in models if row.provider == name)
    return Snapshot(models=ordered, provider_names=tuple(names), made_at=0.0)


def full_name(row: Model) -> str:
    return f"{row.provider}/{row.id}"


def health_of(
    offers: Snapshot,
    settings: Settings | None = None,
    *,
    keys: Mapping[str, int] | None = None,
    chance: Callable[[], float] = no_chance,
) -> Health:
    """A memory of nothing yet; `keys` tells of providers that have more than one."""
    counts = {name: (keys or {}).get(name, 1) for name in offers.provider_names}
    return Health(settings or SETTINGS, counts, chance=chance)


class Talk:
    """One request's plan, spoken to in short sentences; it answers in such.

    `now` stands still unless `after` moves it. What is said of an attempt is said of the
    latest one that was started, unless `attempt` names another.
    """

    def __init__(
        self,
        offers: Snapshot,
        *names: str,
        settings: Settings | None = None,
        health: Health | None = None,
        keys: Mapping[str, int] | None = None,
        wish: Wish | None = None,
        needs: Needs = NO_NEEDS,
        stream: bool = True,
        now: float = T0,
        deadline: float | None = None,
        budget: HedgeBudget | None = None,
        chance: Callable[[], float] = no_chance,
    ) -> None:
        self.settings = settings or SETTINGS
        self.health = health or health_of(offers, self.settings, keys=keys, chance=chance)
        self.now = now
        self.began = now
        self.budget = HedgeBudget() if budget is None else budget
        self.commands: Commands = ()
        self.latest = 0
        wish = wish or Wish(models=names, listed=len(names) > 1)
        self.plan = Plan(
            resolve(offers, wish, needs, self.settings.order),
            self.health,
            self.settings,
            deadline=now + (self.settings.deadline if deadline is None else deadline),
            stream=stream,
            chance=chance,
            budget=self.budget,
        )

    @property
    def limit(self) -> float:
        """Seconds the latest attempt may take."""
        return next(command.limit for command in self.commands if isinstance(command, Start))

    @property
    def told(self) -> GiveUp:
        """Why it was given up."""
        return next(command for command in self.commands if isinstance(command, GiveUp))

    def after(self, seconds: float) -> "Talk":
        self.now += seconds
        return self

    def begin(self) -> list[str]:
        return self._heard(self.plan.begin(self.now))

    def speaks(self, attempt: int | None = None) -> list[str]:
        return self._heard(self.plan.spoke(self._meant(attempt), self.now))

    def came(self, attempt: int | None = None) -> list[str]:
        return self._heard(self.plan.came(self._meant(attempt), self.now))

    def succeeds(self, attempt: int | None = None) -> list[str]:
        return self._heard(self.plan.succeeded(self._meant(attempt), self.now))

    def fails(
        self, code: str, *, retry_after: float | None = None, attempt: int | None = None
    ) -> list[str]:
        failure = AttemptFailed(code, "in a test", retry_after=retry_after)
        return self._heard(self.plan.failed(self._meant(attempt), failure, self.now))

    def refuses(self, code: str, *, attempt: int | None = None) -> list[str]:
        refusal = Refusal(code, "in a test")
        return self._heard(self.plan.refused(self._meant(attempt), refusal, self.now))

    def breaks(self, code: str, *ways: Method) -> list[str]:
        failure = AttemptFailed(code, "in a test")
        return self._heard(self.plan.broke(self.latest, failure, ways, self.now))

    def rings(self) -> list[str]:
        return self._heard(self.plan.rang(self.now))

    def leaves(self) -> list[str]:
        return self._heard(self.plan.left(self.now))

    def _meant(self, attempt: int | None) -> int:
        return self.latest if attempt is None else attempt

    def _heard(self, commands: Commands) -> list[str]:
        self.commands = commands
        for command in commands:
            if isinstance(command, Start):
                self.latest = command.attempt
        return [self._said(command) for command in commands]

    def _said(self, command: Command) -> str:
        match command:
            case Start(credential=credential, method=method, model=row):
                key = f" with key {credential}" if credential else ""
                return f"ask {full_name(row)}{key}{f' to {method}' if method else ''}"
            case Cancel(attempt=attempt):
                return f"cancel {attempt}"
            case Wait(until=until):
                return f"wait {until - self.now:.4g}"
            case GiveUp(reason=reason):
                return f"give up: {reason}"


# The reference's own example stands on this shelf.
SHOP = shop(
    "Capi/gpt-4o", "Capi/gemini-2.5-flash", "HuggingSpace/gpt-4", "HuggingSpace/gpt-4o"
)  # fmt: skip
SAME_MODEL = Settings(order="same-model-first", rest=REST)
ALONE = shop("Capi/gpt-4o")

OFFERS = shop("Capi/gpt-4o", "Capi/mini", "Other/gpt-4o")
ASKED, MATE, TWIN = OFFERS.models


def begun(
    health: Health, row: Model = ASKED, *, key: int = 0, now: float = T0, caller: str = ""
) -> Ticket:
    ticket = Ticket(health.candidate(row), key, now, stream=True, caller=caller)
    health.begin(ticket)
    return ticket


def answered(
    health: Health, row: Model = ASKED, *, key: int = 0, now: float = T0, caller: str = ""
) -> None:
    ticket = begun(health, row, key=key, now=now, caller=caller)
    health.spoke(ticket, now)
    health.succeeded(ticket, now)


def failed(
    health: Health,
    code: str = "provider_error",
    row: Model = ASKED,
    *,
    key: int = 0,
    now: float = T0,
    took: float = 0.0,
    retry_after: float | None = None,
    caller: str = "",
) -> None:
    ticket = begun(health, row, key=key, now=now - took, caller=caller)
    health.failed(ticket, now, code, "words", retry_after)


def is_back(health: Health, at: float, row: Model = ASKED) -> bool:
    """Whether it may be asked, where nobody else asks."""
    return health.credential(row, at) is not None


def back_in(health: Health, row: Model = ASKED, *, now: float = T0) -> float:
    return health.back_at(row, now)[0] - now


def down(
    health: Health,
    row: Model,
    code: str = "provider_error",
    *,
    now: float = T0,
    took: float = 0.0,
) -> None:
    ticket = Ticket(health.candidate(row), 0, now - took, stream=True)
    health.begin(ticket)
    health.failed(ticket, now, code)


def answers(
    health: Health,
    row: Model,
    seconds: float,
    *,
    times: int = 1,
    at: float = T0 - 30,
    stream: bool = True,
) -> None:
    """It answered, and took so many seconds."""
    for _ in range(times):
        ticket = Ticket(health.candidate(row), 0, at - seconds, stream=stream)
        health.begin(ticket)
        if stream:
            health.spoke(ticket, at)
        health.succeeded(ticket, at)


def race(*others: str, saved: float = 1.0, deadline: float = 170, stream: bool = True) -> Talk:
    """One whose first token nearly always comes within 2 s, and somebody else."""
    offers = shop("Capi/m", "Other/m", *others)
    settings = Settings(hedge=True, order="same-model-first", rest=REST)
    health = health_of(offers, settings)
    answers(health, offers.models[0], 2, times=ENOUGH, at=T0)
    answers(health, offers.models[1], 9, at=T0)
    budget = HedgeBudget()
    budget.saved = saved
    return Talk(
        offers,
        "m",
        settings=settings,
        health=health,
        budget=budget,
        deadline=deadline,
        stream=stream,
    )
