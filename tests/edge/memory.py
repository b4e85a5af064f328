"""A gateway's memory of its providers, as attempts in virtual time leave it."""

from manyways.catalog.catalog import Catalog
from manyways.catalog.settings import Settings as CatalogSettings
from manyways.errors import AttemptFailed
from manyways.routing.candidate import Ticket
from manyways.routing.health import Health
from manyways.routing.settings import Settings
from manyways.routing.standing import Standing, standings
from manyways.types import Model, Provider

NOON = 1_800_000_000.0
"""2027-01-15T08:00:00Z: what the wall clock shows when `Memory.now` is 0."""


class Memory:
    """The health of these providers, whose models the configuration lists."""

    def __init__(self, *providers: Provider) -> None:
        self.now = 0.0
        self.health = Health(
            Settings(), {one.name: len(one.api_keys) for one in providers}, chance=lambda: 0.0
        )
        self.catalog = Catalog(CatalogSettings(), providers, _refused, clock=lambda: NOON)

    def wall(self) -> float:
        return NOON + self.now

    def standings(self) -> tuple[Standing, ...]:
        return standings(self.health, self.now)

    def model(self, name: str) -> Model:
        return self.catalog.snapshot.resolve_name(name)[0]

    def begins(self, name: str, *, credential: int = 0, stream: bool = True) -> Ticket:
        candidate = self.health.candidate(self.model(name))
        ticket = Ticket(candidate, credential, self.now, stream=stream)
        self.health.begin(ticket)
        return ticket

    def fails(
        self, name: str, code: str, words: str = "", *, credential: int = 0, took: float = 2.0
    ) -> None:
        ticket = self.begins(name, credential=credential)
        self.now += took
        self.health.failed(ticket, self.now, code, words)

    def answers(self, name: str, *, stream: bool = True, took: float = 0.5) -> None:
        ticket = self.begins(name, stream=stream)
        self.now += took
        if stream:
            self.health.spoke(ticket, self.now)
        self.health.succeeded(ticket, self.now)


async def _refused(provider: Provider) -> bytes:
    raise AttemptFailed("connect", "nobody listens there")
