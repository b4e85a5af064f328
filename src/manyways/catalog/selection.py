"""Which rows of the catalog a question is about, or why there are none to be had."""

from collections.abc import Iterable
from typing import Final, get_args

from manyways.catalog.snapshot import Snapshot
from manyways.errors import Refusal
from manyways.types import CATEGORIES, Capability, Model

CAPABILITIES: Final[tuple[str, ...]] = get_args(Capability)
WINDOWS: Final = ("active_only", "all")
"""What `?status=` may ask for: without the models that are down, or with them."""

_SHOWN: Final = 100
_UNTRIED: Final = 0.01


def select(
    snapshot: Snapshot,
    *,
    provider: str | None = None,
    category: str | None = None,
    capability: str | None = None,
    window: str = "active_only",
) -> tuple[Model, ...]:
    """The models that match every filter given, in the catalog's order.

    Raises `Refusal` for a filter's value that cannot be: `provider_not_found`, naming those
    there are, or `invalid_request`.
    """
    if capability is not None and capability not in CAPABILITIES:
        raise not_one_of("capability", capability, CAPABILITIES)
    if category is not None and category not in CATEGORIES:
        raise not_one_of("category", category, CATEGORIES)
    if window not in WINDOWS:
        raise not_one_of("status", window, WINDOWS)
    if provider is not None and provider not in snapshot.provider_names:
        raise unknown_provider(snapshot, provider, param="provider")
    return tuple(
        model
        for model in (snapshot.models if provider is None else snapshot.of_provider(provider))
        if (category is None or model.category == category)
        and (capability is None or capability in model.capabilities)
        and (window == "all" or model.status != "down")
    )


def named(snapshot: Snapshot, name: str, provider: str | None = None) -> Model:
    """The row that a caller means by a model's name: of several providers' the one that a
    request for it would be sent to first, as far as the catalog tells.

    Raises `Refusal`: `provider_not_found`, or `model_not_found`, saying who has the model.
    """
    if provider is not None and provider not in snapshot.provider_names:
        raise unknown_provider(snapshot, provider, param="provider")
    rows = snapshot.resolve_name(name)
    if provider is not None:
        rows = tuple(row for row in rows if row.provider == provider)
    if not rows:
        raise _unknown_model(snapshot, name, provider)
    return rows[0] if len(rows) == 1 else min(rows, key=_turn)


def _turn(model: Model) -> tuple[bool, bool, float]:
    """Who is asked first: who is well, then who is expected to be quick, in seconds that quality
    makes cheaper. The arithmetic is that of routing, for somebody whom nobody asks just now."""
    seconds = _UNTRIED if model.latency_ms is None else model.latency_ms / 1000
    quality = model.quality_score
    worth = 1.0 if quality is None else max(0.1, quality / 7.0)
    return model.asked_last, model.status == "down", seconds / worth


def unknown_provider(snapshot: Snapshot, name: str, *, param: str) -> Refusal:
    """The refusal of a provider that is not configured."""
    known = ", ".join(snapshot.provider_names) or "none is configured"
    return Refusal(
        "provider_not_found",
        f"There is no provider {_shown(name)}. Known providers: {known}.",
        param=param,
    )


def not_one_of(param: str, value: str, valid: Iterable[str]) -> Refusal:
    """The refusal of a query parameter's value."""
    return Refusal(
        "invalid_request",
        f"{param} cannot be {_shown(value)}. Valid values: {', '.join(valid)}.",
        param=param,
    )


def _unknown_model(snapshot: Snapshot, name: str, provider: str | None) -> Refusal:
    named_provider, model_id = snapshot.split_name(name)
    owners = [row.provider for row in snapshot.by_id(model_id)]
    if provider is not None and named_provider not in (None, provider):
        message = (
            f"The model's name says that it is {named_provider}'s, and 'provider' says"
            f" {provider}: leave one of them out."
        )
    elif owners:
        without = provider or named_provider
        message = f"{without} has no model {_shown(model_id)}; {', '.join(owners)} has it."
    else:
        message = f"There is no model {_shown(name)}. GET /v1/models lists those there are."
    return Refusal("model_not_found", message, param="model")


def _shown(value: str) -> str:
    """The value in quotes, cut where it is too long to be meant."""
    return f"'{value}'" if len(value) <= _SHOWN else f"'{value[:_SHOWN]}…'"
