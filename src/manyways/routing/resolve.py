"""Which models can serve a request: a pure look at the catalog's snapshot."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Protocol

from manyways.errors import Refusal
from manyways.types import Model

AUTO = "auto"
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

    def resolve_name(self, name: str) -> Sequence[Model]:
        """The models a caller may mean by `name`: an id, or provider/id."""
        ...


def resolve(
    offers: Offers,
    name: str,
    *,
    begin: Sequence[str] = (),
    only: Collection[str] | None = None,
    ignore: Collection[str] = (),
) -> tuple[Model, ...]:
    """The candidates for `name`, best first, never empty.

    `begin` names providers to start with, in order; `only` and `ignore` restrict. `"auto"`
    stands for every text model. Raises `Refusal`: `model_not_found`, `provider_not_found`,
    `not_supported` for models that no endpoint serves yet.
    """
    if not (begin or only or ignore):
        found = offers.resolve_name(name)
        if len(found) == 1 and found[0].category == "text":
            return tuple(found)  # the usual case, answered at once
    _check_providers(offers, (*begin, *(only or ()), *ignore))
    if name == AUTO:
        found = [m for m in offers.models if m.category == "text"]
    else:
        found = offers.resolve_name(name)
    if not found:
        raise _unknown(offers, name)
    allowed = [m for m in found if m.provider not in ignore and (not only or m.provider in only)]
    missing = begin[0] if begin and not any(m.provider == begin[0] for m in found) else None
    if missing is not None and len(begin) == 1:
        raise Refusal(
            "model_not_found",
            f"Provider {missing} has no model {name}; it is at {_who(found)}.",
            param="model",
        )
    if not allowed:
        raise Refusal(
            "model_not_found",
            f"No provider that may be used has the model {name}; it is at {_who(found)}.",
            param="provider",
        )
    texts = [m for m in allowed if m.category == "text"]
    if not texts:
        raise Refusal(
            "not_supported",
            f"{name} is a model for {allowed[0].category}, which is not served yet.",
            param="model",
        )
    rank = {provider: i for i, provider in enumerate(begin)}
    return tuple(sorted(texts, key=lambda m: (m.status == "down", rank.get(m.provider, len(rank)))))


def _check_providers(offers: Offers, names: Sequence[str]) -> None:
    for name in names:
        if name not in offers.provider_names:
            raise Refusal(
                "provider_not_found",
                f"There is no provider {name}; there are {_listed(offers.provider_names)}.",
                param="provider",
            )


def _unknown(offers: Offers, name: str) -> Refusal:
    ids = list(dict.fromkeys(m.id for m in offers.models))
    close = []
    if len(ids) <= _WORTH_COMPARING and len(name) <= _A_NAME:
        close = _alike(name.rpartition("/")[2], ids)
    hint = f" Did you mean {_listed(close)}?" if close else " GET /v1/models lists what there is."
    return Refusal("model_not_found", f"There is no model {name}.{hint}", param="model")


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
