"""The catalog while the gateway runs: keeps one snapshot as fresh as providers allow.

How providers are asked is handed in, and so are clock, sleep and jitter: nothing here knows
the network, and tests run in no time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Mapping
from itertools import zip_longest
from operator import is_not
from random import SystemRandom
from typing import Final

import structlog
from msgspec import Struct, structs

from manyways.catalog.claims import Discovered, merge
from manyways.catalog.discovery import parse
from manyways.catalog.selection import unknown_provider
from manyways.catalog.settings import Settings
from manyways.catalog.snapshot import Snapshot
from manyways.catalog.trouble import Trouble, reason
from manyways.catalog.truth import told
from manyways.catalog.verified import Live, Verified
from manyways.errors import ManywaysError
from manyways.types import Model, Provider

Ask = Callable[[Provider], Awaitable[bytes]]
"""Gets the body of the provider's `GET /models`, within time limits of its own. Raises
`ManywaysError` where there is none to be had."""

AT_ONCE: Final = 64
"""How many providers are asked at the same time: those that hang keep few others waiting."""

FIRST_RETRY: Final = 5.0
"""Seconds until a provider that failed is asked again; doubled each time it fails again,
up to the interval of discovery."""

MOST_GONE: Final = 500
"""Models that are gone, of one provider, that are kept at least."""

_NAMED: Final = 20  # so many models are named in one line of the log
_uniform = SystemRandom().uniform
_log = structlog.get_logger(__name__)


class Outcome(Struct, frozen=True, kw_only=True):
    """How asking one provider went. `error` is `None` where it answered with its models."""

    provider: str
    models: int
    error: str | None = None


class _Source:
    """A provider that is asked for its models.

    `failures` counts those in a row. `asked` is set once the provider has been asked for the
    first time, whatever came of it; `settled` is, too, and from the beginning where the
    configuration lists its models. `told`: it has told its list in this life. `trouble` is why
    it could not be asked, until it can. `turn` keeps an earlier answer from coming after a later
    one.
    """

    __slots__ = ("asked", "failures", "provider", "settled", "told", "trouble", "turn")

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.failures = 0
        self.told = False
        self.trouble: Trouble | None = None
        self.turn = asyncio.Lock()
        self.asked = asyncio.Event()
        self.settled = asyncio.Event()
        if provider.models is not None:
            self.settled.set()


Name = tuple[str, str]
"""A model: its provider's name, and its id."""


class Claim(Struct, frozen=True, kw_only=True):
    """A model as its provider and the configuration claim it to be. `gone_since`: when its
    provider listed it no more (Unix seconds)."""

    model: Model
    gone_since: float | None = None

    @property
    def name(self) -> Name:
        """Whose model it is, and its id."""
        return self.model.provider, self.model.id


class Catalog:
    """Holds the `snapshot` that everybody reads, and swaps it whole.

    A provider whose models the configuration lists is served from the first moment, with what an
    earlier life `remembered` of them; others from what that remembered, or once they have been
    asked. A provider
    that fails keeps the models it had, and a model that is not listed any more stays as down for
    `forget_after`. What a provider lists is in the order of the ids: it may tell it in another
    order each time, and to each process. Providers with protocol `local` are not asked: their
    models are those in `Provider.models`.
    """

    def __init__(
        self,
        settings: Settings,
        providers: Iterable[Provider],
        ask: Ask,
        *,
        remembered: Iterable[Claim] = (),
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = _uniform,
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._heard: Callable[[str], None] = lambda _: None
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._places = asyncio.Semaphore(AT_ONCE)
        providers = tuple(providers)
        self._sources = {p.name: _Source(p) for p in providers if p.protocol != "local"}
        self._names = tuple(provider.name for provider in providers)
        self._verified: dict[Name, Verified] = {}
        self._lives: Mapping[Name, Live] = {}
        self._resting: Container[Name] = ()
        known = _by_provider(remembered)
        now = clock()
        self._claims = {
            provider.name: known.get(provider.name, ())
            if provider.models is None
            else tuple(
                Claim(model=model)
                for model in merge(
                    provider,
                    (),
                    now=now,
                    known=[claim.model for claim in known.get(provider.name, ())],
                    untold=True,
                )
            )
            for provider in providers
        }
        self._rows = {name: self._told(name) for name in self._names}
        self.snapshot = self._made(
            untold=tuple(
                name
                for name, source in self._sources.items()
                if source.provider.models is None and not self._claims[name]
            )
        )

    def __repr__(self) -> str:
        waiting = sum(not source.settled.is_set() for source in self._sources.values())
        failing = sum(source.failures > 0 for source in self._sources.values())
        return f"<Catalog {self.snapshot!r}, {waiting} not asked yet, {failing} failing>"

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        """The providers whose lists could not be had at the latest try, and why.

        `since` is when the first of those tries failed that have all failed. It is not only
        about providers that are `untold`: others keep the models that they had.
        """
        return {
            name: source.trouble
            for name, source in self._sources.items()
            if source.trouble is not None
        }

    def has_told(self, provider: str) -> bool | None:
        """Whether a provider has told its list in this life; `None` before it has been asked.
        One that is never asked has."""
        source = self._sources.get(provider)
        if source is None or source.told:
            return True
        return None if source.trouble is None else False

    async def run(self) -> None:
        """Ask every provider now, and again and again, until cancelled.

        Returns at once where there is nobody to ask.
        """
        async with asyncio.TaskGroup() as group:
            for source in self._sources.values():
                group.create_task(self._follow(source))

    async def refresh(self, provider: str | None = None) -> tuple[Outcome, ...]:
        """Ask all providers, or one, now; the snapshot has changed when this returns.

        Raises `Refusal` (`provider_not_found`) for a provider that is not configured. One
        that is never asked answers with what it has.
        """
        if provider is None:
            names = self.snapshot.provider_names
        elif provider in self.snapshot.provider_names:
            names = (provider,)
        else:
            raise unknown_provider(self.snapshot, provider, param="provider")
        return tuple(await asyncio.gather(*(self._outcome(name) for name in names)))

    async def settled(self, names: Iterable[str], limit: float, *, all_told: bool = False) -> bool:
        """Wait until each named provider has been asked once, at most `limit` seconds.

        Returns whether all have. Whoever is not configured, or never asked, is not waited for;
        with `all_told` those are whose models the configuration lists, and say more of them.
        """
        sources = (self._sources.get(name) for name in names)
        waiting = [
            event
            for source in sources
            if source is not None
            and not (event := source.asked if all_told else source.settled).is_set()
        ]
        try:
            async with asyncio.timeout(limit):
                for settled in waiting:
                    await settled.wait()
        except TimeoutError:
            return all(settled.is_set() for settled in waiting)
        return True

    async def _follow(self, source: _Source) -> None:
        interval = self._settings.discovery_interval
        while True:
            await self._discover(source)
            wait = interval
            if source.failures:
                # The exponent is capped, for a float ends at 2.0 ** 1023.
                wait = min(interval, FIRST_RETRY * 2.0 ** min(source.failures - 1, 32))
            await self._sleep(wait * self._jitter(0.9, 1.1))

    async def _outcome(self, name: str) -> Outcome:
        source = self._sources.get(name)
        error = None if source is None else await self._discover(source)
        return Outcome(provider=name, models=len(self.snapshot.of_provider(name)), error=error)

    async def _discover(self, source: _Source) -> str | None:
        """Ask once and take over the answer. Returns what went wrong, in words."""
        async with source.turn:
            problem: str | None = None
            try:
                async with self._places:
                    body = await self._ask(source.provider)
                self._succeeded(source, parse(body))
            except ManywaysError as error:
                problem = reason(error)
                self._failed(source, problem)
            except Exception as error:  # noqa: BLE001 - the other providers are to live on
                problem = reason(error)
                self._failed(source, problem, exc_info=error)
            source.asked.set()
            source.settled.set()
            return problem

    def _failed(
        self, source: _Source, problem: str, *, exc_info: BaseException | None = None
    ) -> None:
        name = source.provider.name
        source.failures += 1
        since = self._clock() if source.trouble is None else source.trouble.since
        source.trouble = Trouble(reason=problem, since=since)
        # Once is news; that it is still so is not.
        tell = _log.warning if source.failures == 1 else _log.debug
        kept = len(self.snapshot.of_provider(name))
        tell(
            f"{name} does not tell its models",
            provider=name,
            reason=problem,
            kept=kept,
            **({"exc_info": exc_info} if exc_info else {}),
        )

    def _succeeded(self, source: _Source, discovered: Iterable[Discovered]) -> None:
        name = source.provider.name
        before = self._claims[name]
        after = self._merged(source.provider, discovered)
        if source.failures:
            _log.info(f"{name} tells its models again", provider=name, failures=source.failures)
            source.failures = 0
            source.trouble = None
        source.told = True
        if after == before and name not in self.snapshot.untold:
            return
        self._claims[name] = after
        for left in {claim.name for claim in before} - {claim.name for claim in after}:
            self._verified.pop(left, None)
        self._rows[name] = self._told(name)
        self.snapshot = self.snapshot.with_provider(name, self._rows[name], self._clock())
        if after == before:
            return
        self._heard(name)
        old, new = (
            {claim.model.id for claim in claims if claim.gone_since is None}
            for claims in (before, after)
        )
        _log.info(
            f"The models of {name} have changed",
            provider=name,
            models=len(new),
            added=sorted(new - old)[:_NAMED],
            removed=sorted(old - new)[:_NAMED],
        )

    def _merged(self, provider: Provider, discovered: Iterable[Discovered]) -> tuple[Claim, ...]:
        """What is listed now, and behind it what was listed until lately."""
        now = self._clock()
        before = self._claims[provider.name]
        known = [claim.model for claim in before]
        listed = merge(provider, discovered, now=now, known=known)
        ids = {model.id for model in listed}
        missed = [
            Claim(model=claim.model, gone_since=claim.gone_since or now)
            for claim in before
            if claim.model.id not in ids and provider.models is None
        ]
        kept = [
            claim
            for claim in missed
            if now - (claim.gone_since or now) < self._settings.forget_after
        ]
        claims = (*(Claim(model=model) for model in listed), *latest(kept, len(listed)))
        return claims if provider.models is not None else _in_order(claims)

    # What is told of them

    def on_change(self, heard: Callable[[str], None]) -> None:
        """Have `heard` called with a provider's name whenever its claims have changed."""
        self._heard = heard

    @property
    def claims(self) -> Mapping[str, tuple[Claim, ...]]:
        """What is claimed of each provider's models."""
        return self._claims

    @property
    def verified(self) -> Mapping[Name, Verified]:
        """The latest word of verification on each model."""
        return self._verified

    def agree(self, created: Mapping[Name, int]) -> None:
        """When models were seen first, as all processes tell it: each asks providers by itself,
        and providers seldom say."""
        for provider in {provider for provider, _ in created} & self._claims.keys():
            self._claims[provider] = tuple(
                structs.replace(claim, model=structs.replace(claim.model, created=at))
                if (at := created.get(claim.name, claim.model.created)) != claim.model.created
                else claim
                for claim in self._claims[provider]
            )
        self._tell(created)

    def learn(self, found: Iterable[Verified]) -> None:
        """What verification has found out; it is told of from now on."""
        new = {(one.provider, one.model): one for one in found}
        self._verified.update(new)
        self._tell(new)

    def see(self, lives: Mapping[Name, Live], resting: Container[Name]) -> None:
        """How all models do with callers, and which of them are left alone now."""
        before, rested = self._lives, self._resting
        self._lives, self._resting = lives, resting
        self._tell(
            {
                name
                for claims in self._claims.values()
                for name in (claim.name for claim in claims)
                if lives.get(name) != before.get(name) or (name in resting) != (name in rested)
            }
        )

    def _tell(self, names: Collection[Name]) -> None:
        """A new snapshot, where what is told of these models differs."""
        changed = False
        for provider in {provider for provider, _ in names} & self._claims.keys():
            before = self._rows[provider]
            rows = self._told(provider, before, names)
            if any(map(is_not, rows, before)):
                self._rows[provider] = rows
                changed = True
        if changed:
            self.snapshot = self._made(untold=self.snapshot.untold)

    def _told(
        self, provider: str, before: Iterable[Model] = (), names: Collection[Name] | None = None
    ) -> tuple[Model, ...]:
        """A provider's rows. Where `names` are given, `before` are its rows so far, and only
        those of these names are made anew; rows that come out equal stay the same."""
        rows = []
        for claim, row in zip_longest(self._claims[provider], before):
            name = claim.name
            if names is not None and name not in names:
                rows.append(row)
                continue
            new = told(
                claim.model,
                self._verified.get(name),
                self._lives.get(name),
                gone=claim.gone_since is not None,
                resting=name in self._resting,
            )
            rows.append(row if new == row else new)
        return tuple(rows)

    def _made(self, untold: tuple[str, ...]) -> Snapshot:
        return Snapshot(
            models=tuple(model for name in self._names for model in self._rows[name]),
            provider_names=self._names,
            made_at=self._clock(),
            untold=untold,
        )


def latest(gone: Iterable[Claim], listed: int) -> list[Claim]:
    """Of claims that are gone, those that are worth keeping beside so many that are listed: a
    provider that lists other models each time must not fill the catalog."""
    newest = sorted(gone, key=lambda claim: -(claim.gone_since or 0.0))
    return newest[: max(MOST_GONE, listed)]


def _by_provider(claims: Iterable[Claim]) -> dict[str, tuple[Claim, ...]]:
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.model.provider, []).append(claim)
    return {name: _in_order(some) for name, some in found.items()}


def _in_order(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(sorted(claims, key=lambda claim: claim.model.id))
