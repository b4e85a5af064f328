"""What is claimed of a provider's models: by the configuration, by the provider, by the table
of well-known models; whoever comes first is believed.
"""

from collections.abc import Iterable
from typing import Final, get_args

import msgspec
from msgspec import Struct

from manyways.catalog import categories
from manyways.catalog.known import find, is_maker
from manyways.types import Capability, Category, Model, ModelEntry, Provider

CAPABILITIES: Final[tuple[str, ...]] = get_args(Capability)

_BY_SERVER: Final = frozenset({"tools", "json_schema"})


class Discovered(Struct, frozen=True, kw_only=True):
    """One model as its provider describes it. `None`: the provider does not say.

    `upstream_id` is what the provider calls it, where that is not its `id`; `aliases` are
    further names it answers to. `lacks` are capabilities that the provider says it has not.
    """

    id: str
    upstream_id: str | None = None
    aliases: tuple[str, ...] = ()
    created: int | None = None
    category: Category = "text"
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] | None = None
    lacks: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    pricing: dict[str, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which the provider can be asked for it, the best first."""
        return tuple(dict.fromkeys((self.upstream_id or self.id, self.id, *self.aliases)))


def in_order(capabilities: Iterable[str]) -> tuple[str, ...]:
    """These capabilities, each once, as they are always listed."""
    given = set(capabilities)
    return tuple(name for name in CAPABILITIES if name in given)


def guess(model_id: str) -> Category | None:
    """The category of a model of which only the id is known; `None`: nothing that we serve."""
    found = find(model_id)
    return categories.of_id(model_id) if found is None else found.category


def completed(told: Discovered, *, provider: Provider, also: str = "") -> Discovered:
    """What its provider tells of a model, and from the table what it leaves open.

    `also` is one more name that the model goes by. Prices of the table are its maker's: they
    are taken only where the maker is the provider.
    """
    names = (*told.names, also)
    found = next((one for name in names if name and (one := find(name))), None)
    if found is None:
        return msgspec.structs.replace(told, capabilities=_capabilities(told, (), sure=False))
    maker = is_maker(found, provider.base_url)
    window = told.context_window or found.context_window
    output = told.max_output_tokens
    if output is None and found.max_output_tokens is not None:
        # What has less room than its maker gives it does not say as much either.
        output = min(found.max_output_tokens, window or found.max_output_tokens)
    sure = maker or {*found.capabilities} >= _BY_SERVER
    return msgspec.structs.replace(
        told,
        context_window=window,
        max_output_tokens=output,
        capabilities=_capabilities(told, found.capabilities, sure=sure),
        modalities=told.modalities or found.modalities,
        pricing=found.pricing if maker and told.pricing is None else told.pricing,
    )


def _capabilities(told: Discovered, tabled: Iterable[str], *, sure: bool) -> tuple[str, ...] | None:
    """What is told, and what the table adds to it; `None` where that is not all.

    A model with any capability is asked for no other. Tools and schemas are as much the server's
    matter as the model's: unless the table is `sure` of them, they are left open with the rest
    where the provider says nothing of tools.
    """
    has = {*(told.capabilities or ()), *tabled} - {*told.lacks}
    spoken = "tools" in (*(told.capabilities or ()), *told.lacks)
    return (in_order(has) or None) if sure or spoken or told.category != "text" else None


def merge(
    provider: Provider,
    discovered: Iterable[Discovered],
    *,
    now: float,
    known: Iterable[Model] = (),
    untold: bool = False,
) -> tuple[Model, ...]:
    """The provider's rows of the catalog, as they are claimed to be: nothing in them has been
    measured.

    A list of models in the configuration is the whole list and its values win; `discovered`
    then only fills in what it leaves open. Without one, what was discovered is the list. What
    is open after that is filled in from the table of well-known models. `known` are the
    provider's rows so far: `created`, where the provider does not tell it, is when we first
    saw the model. Where its list is `untold`, so far, they also fill in what the configuration
    leaves open.
    """
    known = tuple(known)
    since = {model.id: model.created for model in known if model.provider == provider.name}
    if provider.models is None:
        return tuple(
            _row(provider, completed(one, provider=provider), since.get(one.id, int(now)))
            for one in discovered
        )
    by_name: dict[str, Discovered] = {}
    for one in discovered:
        by_name[one.upstream_id or one.id] = one
        for other in one.names:
            by_name.setdefault(other, one)
    before = {(model.id, model.upstream_id): model for model in known if untold}
    rows: dict[str, Model] = {}
    for entry in provider.models:
        name = entry.upstream_id or entry.id
        told = by_name.get(name)
        if told is None and (row := before.get((entry.id, name))) is not None:
            told = _told_before(row)
        told = told or Discovered(id=name, category=guess(name) or "text")
        told = completed(told, provider=provider, also=entry.id)
        first = since.get(entry.id, int(now))
        rows.setdefault(entry.id, _row(provider, _configured(told, entry, name), first))
    return tuple(rows.values())


def _told_before(row: Model) -> Discovered:
    """What was known of a model in an earlier life, as if its provider told it: with all of its
    capabilities and no others, where there are any."""
    has = row.capabilities
    return Discovered(
        id=row.upstream_id,
        category=row.category,
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        capabilities=has or None,
        lacks=tuple(name for name in CAPABILITIES if name not in has) if has else (),
        modalities=row.modalities,
        pricing=row.pricing,
    )


def _configured(told: Discovered, entry: ModelEntry, name: str) -> Discovered:
    """`told`, but for what the configuration says."""
    given = {
        field: value for field, value in msgspec.structs.asdict(entry).items() if value is not None
    }
    return msgspec.structs.replace(told, **{**given, "upstream_id": name})


def _row(provider: Provider, told: Discovered, first_seen: int) -> Model:
    return Model(
        id=told.id,
        provider=provider.name,
        upstream_id=told.upstream_id or told.id,
        created=first_seen if told.created is None else told.created,
        category=told.category,
        context_window=told.context_window,
        max_output_tokens=told.max_output_tokens,
        capabilities=in_order(told.capabilities or ()),
        modalities=told.modalities,
        pricing=told.pricing,
    )
