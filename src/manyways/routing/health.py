"""What is remembered of candidates across requests: who is well, who rests, and why.

A circuit breaker stands at every place that can fail by itself:

| what came back                        | what rests             |
|---------------------------------------|------------------------|
| refused, DNS, TLS                     | the provider           |
| 401, 402, 403                         | the credential         |
| 429                                   | the credential × model |
| everything else that is a failure     | the candidate          |

A success closes all of them on its way, at once. A rest is as long as the failure took, at
least, up to the longest rest there is. Many requests that fail together count once: a failure
counts against a breaker, and a success for it, only if its attempt began after the breaker last
opened. What failed for one caller alone is tried by the first other one, and who is wrong again
and again is not believed for a while (`Doubts`).

Several gateways tell each other what they find out (`share`, `heard`). What was heard is not told
on. Who hears that something rests lets it rest, too, and one request of all of them probes. Where
that finds it well although others said otherwise, they are not believed for a while: their way to
the provider may be what is broken.

Nothing here knows a clock: `now` is handed in, in seconds of any monotonic clock.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from manyways.routing.breaker import LEASE, Breaker, Name, News
from manyways.routing.candidate import Candidate, ProviderHealth, Ticket
from manyways.routing.settings import Settings
from manyways.types import Model

Tell = Callable[[Name, str, float | None], None]
"""Hears that something begins to rest: its name, why, and for how many seconds. `None` seconds
say that it is back, after what it rested for."""
Share = Callable[[News], None]
"""Takes news to other gateways, at once."""

STRAY: Final = 9.0
"""So many successes for each failure make a single quick failure no reason to rest."""
QUICK: Final = 1.0
"""Seconds a stray failure may have taken: a slow one costs callers too much."""
FACTOR: Final = 4.0
"""How much longer each further rest is."""
JITTER: Final = 0.2
"""The share of a rest that is left to chance, so that many gateways do not probe together."""
CREDENTIAL_REST: Final = (15.0, 300.0)
"""First and longest rest of a credential that is not accepted: people have to mend it."""
GONE_REST: Final = (60.0, 900.0)
"""First and longest rest of a model that its provider says it does not have."""
ASKED_FOR: Final = 3600.0
"""The longest rest that a provider's own word is taken for, when it limits a rate."""
BUSY: Final = 60.0
"""The same for other failures that tell a time."""
IMPATIENCE: Final = 2.0
"""Seconds of silence behind which a caller's leaving says something about the provider."""
SILENCES: Final = 3
"""So many in a row are a failure."""
DISBELIEF: Final = 60.0
"""Seconds others are not believed about what was found well here against their word."""
WORSE: Final = 1.5
"""How much dearer a key is to be than the next for the next to be taken in its turn."""
WELL: Final = 60.0
"""Seconds since a model has answered anybody in which a caller may be doubted for whom it fails."""
HEARSAY: Final = 10_000
"""So many models can be told of before anybody asks for them here; of more, nothing is kept."""

_WHOLE_PROVIDER = frozenset({"connect", "tls"})
_WORDS = 300


class Health:
    """The memory of one process. `credentials` tells how many keys each provider has."""

    def __init__(
        self,
        settings: Settings,
        credentials: dict[str, int],
        *,
        chance: Callable[[], float],
        tell: Tell = lambda *_: None,
    ) -> None:
        self.settings = settings
        self._chance = chance
        self._tell = tell
        self._providers = {name: ProviderHealth(name, max(1, n)) for name, n in credentials.items()}
        self._candidates: dict[tuple[str, str], Candidate] = {}
        self._failing: set[Breaker] = set()  # those with failures: mostly there is none
        self._shares: list[Share] = []
        self._hearsay: dict[tuple[str, str], dict[Name, tuple[News, float]]] = {}  # not asked yet

    def __repr__(self) -> str:
        return f"<Health of {len(self._candidates)} candidates>"

    def candidate(self, model: Model) -> Candidate:
        """What is remembered of a model at its provider."""
        key = (model.provider, model.id)
        found = self._candidates.get(key)
        if found is None:
            provider = self._providers.setdefault(model.provider, ProviderHealth(model.provider, 1))
            found = self._candidates[key] = Candidate(model, provider)
            if self._hearsay:
                for news, at in self._hearsay.pop(key, {}).values():
                    self.heard(news, at)
        elif found.model is not model:
            found.model = model  # the catalog has a newer row
        return found

    def keep(self, models: Iterable[Model]) -> None:
        """Forget the candidates that are not among `models`, unless they are at work."""
        known = {(model.provider, model.id) for model in models}
        for key, candidate in list(self._candidates.items()):
            if key not in known and not candidate.running:
                del self._candidates[key]
                self._failing.difference_update((candidate.breaker, *candidate.limited.values()))
        for key in self._hearsay.keys() - known:
            del self._hearsay[key]

    # Who may be asked

    def credentials(self, model: Model) -> int:
        """How many keys there are to ask for this model with."""
        return len(self.candidate(model).provider.credentials)

    def credential(
        self, model: Model, now: float, tried: Iterable[int] = (), caller: str = ""
    ) -> int | None:
        """A key with which the model may be asked now, taken in turn; `None` while all of it
        rests. `tried` are not taken."""
        candidate = self.candidate(model)
        provider = candidate.provider
        if not (candidate.breaker.admits(now, caller) and provider.breaker.admits(now)):
            return None
        if provider.only is not None and not (tried or provider.only.why or candidate.limited):
            return 0  # the usual case: one key, and all is well
        return self.key(model, now, tried)

    def key(self, model: Model, now: float, tried: Iterable[int] = ()) -> int | None:
        """A key that is well, whether the model and its provider are or not; `None` where none
        is. They are taken in turn, but one that fails more or is slower than the next. `tried`
        are not taken."""
        candidate = self.candidate(model)
        provider = candidate.provider
        count = len(provider.credentials)
        first: int | None = None
        for turn in range(provider.turn, provider.turn + count):
            index = turn % count
            limited = candidate.limited.get(index)
            if (
                index in tried
                or not provider.credentials[index].admits(now)
                or not (limited is None or limited.admits(now))
            ):
                continue
            if first is None:
                first = index
                continue
            costs = (provider.credentials[one].cost(now) for one in (first, index))
            return index if next(costs) > WORSE * next(costs) else first
        return first

    def back_at(self, model: Model, now: float, tried: Collection[int] = ()) -> tuple[float, int]:
        """When the model may be asked again, and the key whose rest is over first: what rests
        is asked in this order when nothing else is left. `tried` are not taken unless all are."""
        candidate = self.candidate(model)
        provider = candidate.provider

        def free(index: int) -> float:
            breakers = (provider.credentials[index], candidate.limited.get(index))
            return max((b.until for b in breakers if b is not None and b.why), default=now)

        keys = range(len(provider.credentials))
        key = min([key for key in keys if key not in tried] or keys, key=free)
        whole = (b.until for b in (candidate.breaker, provider.breaker) if b.why)
        return max(free(key), *whole, now), key

    def was_costly(self, model: Model) -> bool:
        """Whether a resting model's failure took long, and nobody of its provider has spoken
        since: its mates may well be the same."""
        candidate = self.candidate(model)
        breaker = candidate.breaker
        return (
            bool(breaker.why)
            and not breaker.late
            and breaker.took >= QUICK
            and breaker.why.partition(":")[0] != "model_gone"
            and candidate.provider.proved < breaker.since
        )

    def is_due(self, model: Model) -> bool:
        """Whether its rest is over, and nobody has tried it yet. For one that may be asked."""
        candidate = self.candidate(model)
        return bool(candidate.breaker.why or candidate.provider.breaker.why)

    def is_probe(self, ticket: Ticket) -> bool:
        """Whether an attempt under way is the one that looks whether somebody is back."""
        return bool(self._failing) and any(b.probe is ticket for b in ticket.way)

    # What becomes of it

    def begin(self, ticket: Ticket) -> None:
        """An attempt starts. Whatever is half-open on its way takes it for its probe."""
        candidate = ticket.candidate
        candidate.running += 1
        candidate.provider.turn = ticket.credential + 1
        if self._failing:
            for breaker in ticket.way:
                if breaker.why and breaker.admits(ticket.began, ticket.caller):
                    breaker.probe = ticket
                    self._share(News(name=breaker.name, seconds=LEASE, probing=True))

    def spoke(self, ticket: Ticket, now: float) -> None:
        """The first token has come. What failed before that point is well again."""
        ticket.heard = True
        self._pace(ticket, now, ticket.candidate.first_token)
        ticket.candidate.spoke(now, ticket.began, stream=True)
        self._recover(ticket)

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """The answer is complete."""
        if not self._end(ticket):
            return
        candidate = ticket.candidate
        self._recover(ticket, complete=True)
        candidate.decay(now)
        candidate.good += 1
        candidate.served += 1
        if not ticket.stream:
            self._pace(ticket, now, candidate.whole)
            candidate.spoke(now, ticket.began, stream=False)
        if candidate.provider.only is None:
            candidate.provider.credentials[ticket.credential].ended(now, well=True)

    def failed(
        self,
        ticket: Ticket,
        now: float,
        code: str,
        words: str = "",
        retry_after: float | None = None,
    ) -> None:
        """The attempt failed through no fault of the caller; `code` is its outcome class."""
        candidate = ticket.candidate
        breaker = self._at_fault(ticket, code)
        probed = breaker.probe is ticket
        if not self._end(ticket):
            return
        candidate.outcomes[code] += 1
        candidate.decay(now)
        caller = ""
        if breaker is candidate.breaker:  # else no request can have caused it
            caller = ticket.caller
            if candidate.doubts.hold(caller, now) and now - candidate.proved < WELL:
                return
            candidate.bad += 1
        if candidate.provider.only is None:
            candidate.provider.credentials[ticket.credential].ended(now, well=False)
        if ticket.began < breaker.since:  # it fell together with the one that opened it
            if caller != breaker.accuser:
                breaker.accuser = ""
            return
        if breaker.why and ticket.began < breaker.until and not probed:
            return  # it was asked although it rests: that says nothing new
        if (
            breaker is candidate.breaker
            and ticket.began < candidate.proved
            and not ticket.heard
            and retry_after is None
        ):
            return  # one that began later has been answered since
        breaker.failures += 1
        self._failing.add(breaker)
        took = now - ticket.began
        stray = (
            breaker is candidate.breaker
            and breaker.failures == 1
            and took < QUICK
            and retry_after is None
            and candidate.good >= STRAY * candidate.bad
        )
        if not stray:
            seconds = self._rest(breaker, code, took, retry_after)
            why = f"{code}: {words[:_WORDS]}" if words else code
            if not breaker.why:
                self._tell(breaker.name, why, seconds)
            breaker.open(now, seconds, why, late=ticket.heard, took=took, caller=caller)
            self._share(breaker.news(now))

    def refused(self, ticket: Ticket) -> None:
        """The provider is well, and says that the request is wrong."""
        if self._end(ticket):
            ticket.candidate.outcomes["refused"] += 1
            self._recover(ticket)

    def dropped(
        self, ticket: Ticket, outran_at: float | None = None, *, outcome: str = "cancelled"
    ) -> None:
        """It was cancelled, or says nothing about the provider: a probe that proved nothing.

        Where another was faster, at `outran_at`, it would have taken longer than until then; a
        probe that is too slow has failed.
        """
        outrun = outran_at is not None and not ticket.heard and self.is_probe(ticket)
        probed = [b for b in ticket.way if b.probe is ticket] if outrun else []
        if not self._end(ticket):
            return
        for breaker in probed:
            silent = (outran_at or 0.0) - ticket.began
            # The race was a part of the rest: nobody else has asked meanwhile.
            seconds = self._rest(breaker, breaker.why.partition(":")[0], 0.0, None) - silent
            seconds = max(seconds, self.settings.rest)
            took = max(breaker.took, silent)
            breaker.open(
                outran_at or 0.0, seconds, breaker.why,
                late=breaker.late, took=took, caller=ticket.caller,
            )  # fmt: skip
            self._share(breaker.news(outran_at or 0.0))
        candidate = ticket.candidate
        candidate.outcomes[outcome] += 1
        if outran_at is not None and ticket.stream and not ticket.heard:
            seconds = outran_at - ticket.began
            if seconds > (candidate.first_token or 0.0):
                candidate.measured(outran_at, seconds, stream=True)

    def left(self, ticket: Ticket, now: float) -> None:
        """Its caller has gone, or its time is over. To leave a long silence says something
        about the provider, when it happens again and again and nobody waits it out."""
        candidate = ticket.candidate
        waited = now - ticket.began
        usual = candidate.first_token or 0.0
        if ticket.stream and not ticket.heard and waited > max(IMPATIENCE, 3 * usual):
            candidate.silences += 1
            if candidate.silences >= SILENCES:
                self.failed(ticket, now, "timeout", f"callers left after {waited:.3g} s of silence")
                return
        self.dropped(ticket)

    # What other gateways find out

    def share(self, share: Share) -> None:
        """From now on, tell `share`, too, what is found out here. It is called where something
        fails, probes or comes back: never for a request that just goes well."""
        self._shares.append(share)

    def _share(self, news: News) -> None:
        for share in self._shares:
            share(news)

    def heard(self, news: News, now: float) -> None:
        """Another gateway has found something out. What is known of nobody here is forgotten, or
        kept until its model is asked for first."""
        provider, model, credential = news.name
        known = self._providers.get(provider)
        if known is None or not 0 <= (credential or 0) < len(known.credentials):
            return
        if model is None:
            breaker = known.breaker if credential is None else known.credentials[credential]
        else:
            candidate = self._candidates.get((provider, model))
            if candidate is None:
                self._keep_hearsay((provider, model), news, now)
                return
            breaker = candidate.breaker
            if credential is not None:
                breaker = candidate.limited.setdefault(credential, Breaker(news.name))
        if news.seconds is None:
            self._heard_back(breaker, now)
        elif news.probing:
            breaker.elsewhere = now + min(news.seconds, LEASE)
        elif now >= breaker.doubted:
            seconds = news.seconds * (1 + JITTER * self._chance())
            if not breaker.why:
                self._tell(breaker.name, news.why, seconds)
            breaker.hear(news, seconds, now)
            self._failing.add(breaker)

    def _heard_back(self, breaker: Breaker, now: float) -> None:
        """What failed here, too, is tried by one request first."""
        breaker.elsewhere = 0.0
        if breaker.hearsay:
            self._tell(breaker.name, breaker.why, None)
            breaker.close()
            self._failing.discard(breaker)
        elif breaker.why:
            breaker.until = min(breaker.until, now)

    def _keep_hearsay(self, model: tuple[str, str], news: News, now: float) -> None:
        kept = self._hearsay.get(model)
        if news.seconds is None and kept is not None:
            kept.pop(news.name, None)
        elif news.seconds is not None and not news.probing:
            if kept is None and len(self._hearsay) < HEARSAY:
                kept = self._hearsay[model] = {}
            if kept is not None:
                kept[news.name] = (news, now)

    # For operators

    def providers(self) -> Iterable[tuple[str, "ProviderHealth"]]:
        """Every provider that was configured or asked, with its breakers."""
        return self._providers.items()

    def candidates(self) -> Iterable[Candidate]:
        """Every model that was ever asked and is still offered."""
        return self._candidates.values()

    def _recover(self, ticket: Ticket, *, complete: bool = False) -> None:
        """A success closes what had opened, and an old failure is no argument any more, unless
        it began before: then it proves nothing, nor does an answer that has only begun prove
        anything against breaking later."""
        if not self._failing:
            return
        for breaker in ticket.way:
            if (
                breaker.failures
                and ticket.began >= breaker.since
                and (complete or (breaker.why and not breaker.late))
            ):
                if breaker.rests:
                    ticket.candidate.forgiven = ticket.candidate.bad
                if breaker.why and breaker.until > breaker.since:
                    self._tell(breaker.name, breaker.why, None)
                if breaker.hearsay:
                    breaker.doubted = ticket.began + DISBELIEF
                if breaker.why and breaker.accuser and ticket.caller not in {"", breaker.accuser}:
                    ticket.candidate.doubts.add(breaker.accuser, ticket.began)
                if breaker.why:
                    self._share(News(name=breaker.name))
                breaker.close()
                self._failing.discard(breaker)

    @staticmethod
    def _pace(ticket: Ticket, now: float, usual: float | None) -> None:
        """What the key did that was asked with, where there are several."""
        provider = ticket.candidate.provider
        if provider.only is None and usual:
            provider.credentials[ticket.credential].measured(now, (now - ticket.began) / usual)

    def _at_fault(self, ticket: Ticket, code: str) -> Breaker:
        candidate = ticket.candidate
        if code == "credentials":
            return candidate.provider.credentials[ticket.credential]
        if code == "rate_limited":
            name = (candidate.model.provider, candidate.model.id, ticket.credential)
            return candidate.limited.setdefault(ticket.credential, Breaker(name))
        if code in _WHOLE_PROVIDER:
            return candidate.provider.breaker
        return candidate.breaker

    def _rest(self, breaker: Breaker, code: str, took: float, retry_after: float | None) -> float:
        first, longest = self.settings.rest, self.settings.rest_limit
        if retry_after is not None:
            # A word that has proved wrong counts for less than what is known by now.
            known = first * FACTOR ** min(breaker.rests - 1, 16) if breaker.rests else 0.0
            told = min(retry_after, ASKED_FOR if code == "rate_limited" else BUSY)
            return max(told, min(known, longest))
        if code == "credentials":
            first, longest = CREDENTIAL_REST
        elif code == "model_gone":
            first, longest = GONE_REST
        seconds = min(longest, max(first * FACTOR ** min(breaker.rests, 16), took))
        return seconds * (1 - JITTER * self._chance())

    def _end(self, ticket: Ticket) -> bool:
        """Whether this is the first word about its end. Its probes are over."""
        if not ticket.open:
            return False
        ticket.open = False
        ticket.candidate.running -= 1
        if self._failing:
            for breaker in ticket.way:
                if breaker.probe is ticket:
                    breaker.probe = None
        return True
