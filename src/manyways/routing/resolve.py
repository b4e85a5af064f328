"""Which models can serve a request: a pure look at the catalog's snapshot."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Final, Protocol

from msgspec import Struct

from manyways.errors import Refusal
from manyways.routing.settings import Order
from manyways.types import NO_NEEDS, Model, Needs

AUTO: Final = "auto"
NEARLY: Final = 1.0
"""So much less quality, of 10, still counts as equal."""
# Comparing names takes time, and the event loop waits: some milliseconds at the most.
_WORTH_COMPARING = 300
_A_NAME = 100


class Offers(Protocol):
    """What routing needs to see of a catalog."""

    @property
    def models(self) -> Sequence[Model]:
        """Every model, in the catalog's order."""
        ...

    @property
    def provider_names(self) -> Sequence[str]:
        """Every configured provider, with models or without."""
        ...

    def of_provider(self, name: str) -> Sequence[Model]:
        """One provider's models; none for a provider that is not known."""
        ...

    def resolve_name(self, name: str) -> Sequence[Model]:
        """The models a caller may mean by `name`: an id, or provider/id."""
        ...


class Wish(Struct, frozen=True, kw_only=True):
    """What the caller asks for. `models` are the only ones to be tried, in this order.

    `begin` names providers to start with, in order; `only` and `ignore` restrict. Without
    `fallbacks`, nobody is asked but who was named.
    """

    models: tuple[str, ...]
    begin: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    fallbacks: bool = True
    listed: bool = False
    """Whether `models` is the caller's own list, and so the whole of it."""


class Candidates(Struct, frozen=True, eq=False):
    """Who can serve one request. `first` are equals, one of which is to be asked first; `rest`
    is who else was named, in tiers. `unfit` was named, and cannot serve it.

    `behind` looks at the catalog only when somebody needs it: most requests never do.
    """

    offers: Offers
    wish: Wish
    needs: Needs
    order: Order
    first: tuple[Model, ...]
    rest: tuple[tuple[Model, ...], ...] = ()
    unfit: Model | None = None

    def __repr__(self) -> str:
        return f"<Candidates {', '.join(f'{m.provider}/{m.id}' for m in self.first)}>"

    def behind(self, chosen: Model) -> Iterator[tuple[Model, ...]]:
        """Whom to ask once `chosen` has failed: tiers of equals, best first.

        A candidate may come more than once.
        """
        wish = self.wish
        if not wish.fallbacks:
            # Only who was named: where no provider was, the others are no choice of the caller's.
            yield from self.rest
            return
        named = (tuple(m for m in self.first if m is not chosen), *self.rest)
        if wish.listed:
            yield from named
            return
        if wish.models == (AUTO,):
            yield from named
            for provider in wish.begin:
                yield from _bands(self._fitting(self.offers.of_provider(provider)))
            yield from _bands(self._fitting(self.offers.models))
            return
        mates = self._fitting(
            m for m in self.offers.of_provider(chosen.provider) if m.id != chosen.id
        )
        twins = self._fitting(self.offers.resolve_name(chosen.id))
        if self.order == "same-provider-first":
            yield mates
            yield from named
            yield twins
        else:
            yield from named
            yield twins
            yield mates
        for provider in wish.begin:
            yield self._fitting(self.offers.of_provider(provider))
        yield self._fitting(self.offers.models)

    def asked_for(self, model: Model) -> bool:
        """Whether the caller named the model, and did not only get it."""
        if self.unfit is not None or self.wish.models == (AUTO,):
            return False
        return any(model.id == named.id for tier in (self.first, *self.rest) for named in tier)

    def asked_on_trust(self, model: Model) -> bool:
        """Whether nothing says that the model can do what the request needs."""
        return bool(self.needs.capabilities) and not model.capabilities

    def _fitting(self, models: Iterable[Model]) -> tuple[Model, ...]:
        wish, needs = self.wish, self.needs
        return tuple(m for m in models if _allowed(m, wish) and fits(m, needs))


def resolve(
    offers: Offers, wish: Wish, needs: Needs, order: Order, untold: Collection[str] = ()
) -> Candidates:
    """The candidates for a wish; `first` is never empty.

    `"auto"` stands for the best of all text models that can serve the request, and those nearly as
    good. `untold` are providers that may have more models than
    is known: what is wanted of them is looked for elsewhere, and a name that nobody knows
    spoils no list. Raises `Refusal`: `model_not_found`,
    `provider_not_found`, `context_length_exceeded`, `not_supported` for what no model that may
    be used can do.
    """
    if len(wish.models) == 1 and not (wish.begin or wish.only or wish.ignore):
        found = offers.resolve_name(wish.models[0])
        if len(found) == 1 and needs is NO_NEEDS and found[0].category == "text":
            return Candidates(offers, wish, needs, order, tuple(found))  # the usual case
    _check_providers(offers, (*wish.begin, *wish.only, *wish.ignore))
    tiers: list[tuple[Model, ...]] = []
    unfit: list[Model] = []
    found_at: set[str] = set()
    missing: Refusal | None = None
    for name in wish.models:
        try:
            rows = _named(offers, name, wish, needs, untold)
        except Refusal as refusal:
            if not (wish.listed and untold and refusal.code == "model_not_found"):
                raise
            missing = missing or refusal
            continue
        found_at.update(m.provider for m in rows)
        fitting = tuple(m for m in rows if fits(m, needs))
        unfit.extend(m for m in rows if not fits(m, needs))
        tiers.extend(_in_order(fitting, wish))
    if missing is not None and not found_at:
        raise missing
    if wish.begin and found_at.isdisjoint(wish.begin):
        many = "Providers" if len(wish.begin) > 1 else "Provider"
        have = "have" if len(wish.begin) > 1 else "has"
        raise Refusal(
            "model_not_found",
            f"{many} {_listed(wish.begin)} {have} no model {_listed(wish.models)};"
            f" it is at {_listed(sorted(found_at))}.",
            param=_param(wish),
        )
    named = None
    related = [m for m in unfit if m.category == needs.category]
    if not tiers and related and wish.fallbacks and not wish.listed:
        # Who was named cannot do it; somebody else of its kind may.
        named = related[0]
        others = tuple(m for m in offers.models if _allowed(m, wish) and fits(m, needs))
        tiers.extend(_in_order(others, wish))
    if not tiers:
        raise _unfit(unfit, needs)
    return Candidates(offers, wish, needs, order, tiers[0], tuple(tiers[1:]), named)


def fits(model: Model, needs: Needs) -> bool:
    """Whether a model can serve a request, as far as is known. Without any capability it is
    unknown what a model can do, and so may do all."""
    window = model.context_window
    if model.category != needs.category or (window and needs.prompt_tokens >= window):
        return False
    known = model.capabilities
    return not known or all(capability in known for capability in needs.capabilities)


def _named(
    offers: Offers, name: str, wish: Wish, needs: Needs, untold: Collection[str]
) -> Sequence[Model]:
    """The rows of a wanted model that may be used. Raises `Refusal` where there are none."""
    if name == AUTO:
        found: Sequence[Model] = [m for m in offers.models if m.category == "text"]
    else:
        found = offers.resolve_name(name)
    provider, _, bare = name.partition("/")
    if not found and provider in untold:
        found = offers.resolve_name(bare)
    if not found:
        raise _unknown(offers, name, _param(wish))
    allowed = [m for m in found if _allowed(m, wish)]
    if not allowed:
        raise Refusal(
            "model_not_found",
            f"No provider that may be used has the model {name}; it is at {_who(found)}.",
            param="provider",
        )
    if name != AUTO:
        return allowed
    fitting = [m for m in allowed if fits(m, needs)]
    if not fitting:
        raise _nobody(allowed, needs)
    return next(_bands(fitting))


def _param(wish: Wish) -> str:
    return "models" if wish.listed else "model"


def _allowed(model: Model, wish: Wish) -> bool:
    provider = model.provider
    return provider not in wish.ignore and (not wish.only or provider in wish.only)


def _bands(models: Sequence[Model]) -> Iterator[tuple[Model, ...]]:
    """For `auto`: the models nearly as good as the best, then of the others, and so on. Whoever
    has no score counts as worst, and what failed its verification comes behind all."""
    for last in (False, True):
        left = [m for m in models if m.asked_last is last]
        while left:
            enough = max(m.quality_score or 0.0 for m in left) - NEARLY
            yield tuple(m for m in left if (m.quality_score or 0.0) >= enough)
            left = [m for m in left if (m.quality_score or 0.0) < enough]


def _in_order(models: Sequence[Model], wish: Wish) -> list[tuple[Model, ...]]:
    """Tiers: the providers to begin with, one after the other, then all others as equals.
    What failed its verification comes last."""
    tiers: list[tuple[Model, ...]] = []
    for up in (True, False):
        rows = [m for m in models if m.asked_last is not up]
        tiers.extend(tuple(m for m in rows if m.provider == name) for name in wish.begin)
        if wish.fallbacks or not wish.begin:
            tiers.append(tuple(m for m in rows if m.provider not in wish.begin))
    return [tier for tier in tiers if tier]


def _unfit(models: Sequence[Model], needs: Needs) -> Refusal:
    """Why nobody can serve the request."""
    names = _listed([m.id for m in models])
    texts = [m for m in models if m.category == needs.category]
    if not texts:
        category = models[0].category if models else "nothing"
        return Refusal(
            "not_supported",
            f"{names} is a model for {category}, which is not served yet.",
            param="model",
        )
    able = [m for m in texts if fits(m, Needs(capabilities=needs.capabilities))]
    if able:
        longest = max(m.context_window or 0 for m in able)
        return Refusal(
            "context_length_exceeded",
            f"The prompt has over {needs.prompt_tokens} tokens; {names} takes {longest}.",
            param="messages",
        )
    wanted = _listed(needs.capabilities)
    return Refusal(
        "not_supported",
        f"The request needs a model with {wanted}, which {names} does not have.",
        param="model",
    )


def _nobody(models: Sequence[Model], needs: Needs) -> Refusal:
    """Why none of all models can serve a request that left the choice to us."""
    able = [m for m in models if fits(m, Needs(capabilities=needs.capabilities))]
    if able:
        longest = max(m.context_window or 0 for m in able)
        return Refusal(
            "context_length_exceeded",
            f"The prompt has over {needs.prompt_tokens} tokens; no model that may be used takes"
            f" more than {longest}.",
            param="messages",
        )
    return Refusal(
        "not_supported",
        f"The request needs a model with {_listed(needs.capabilities)}, and no model that may be"
        " used has that.",
        param="model",
    )


def _check_providers(offers: Offers, names: Sequence[str]) -> None:
    for name in names:
        if name not in offers.provider_names:
            raise Refusal(
                "provider_not_found",
                f"There is no provider {name}; there are {_listed(offers.provider_names)}.",
                param="provider",
            )


def _unknown(offers: Offers, name: str, param: str) -> Refusal:
    provider, _, bare = name.partition("/")
    elsewhere = offers.resolve_name(bare) if provider in offers.provider_names else ()
    if elsewhere:
        where = f"Provider {provider} has no model {bare}; it is at {_who(elsewhere)}."
        return Refusal("model_not_found", where, param=param)
    ids = list(dict.fromkeys(m.id for m in offers.models))
    close = []
    if len(ids) <= _WORTH_COMPARING and len(name) <= _A_NAME:
        close = _alike(name.rpartition("/")[2], ids)
    hint = f" Did you mean {_listed(close)}?" if close else " GET /v1/models lists what there is."
    return Refusal("model_not_found", f"There is no model {name}.{hint}", param=param)


def _alike(name: str, ids: Sequence[str]) -> list[str]:
    """Up to three ids that begin alike or are spelled alike, whatever the case."""
    wanted = name.casefold()
    folded = {model_id.casefold(): model_id for model_id in ids}
    begin = [model_id for low, model_id in folded.items() if wanted and low.startswith(wanted)]
    close = [folded[low] for low in get_close_matches(wanted, folded, n=3, cutoff=0.6)]
    return list(dict.fromkeys([*begin, *close]))[:3]


def _who(models: Sequence[Model]) -> str:
    return _listed([m.provider for m in models])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "none"
