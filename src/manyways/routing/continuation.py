"""Who goes on with an answer that broke, and how: an order of candidates and methods."""

from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal

from manyways.types import Model

Method = Literal["again", "prefill", "instruct"]
"""How an attempt goes on from what the caller already has: by giving the whole answer again,
by going on from it as a prefill, or by being told to."""

Joint = tuple[Model, Method]

LOOKED_AT: Final = 1000
"""So many candidates are looked at."""
UNLIKELY: Final = 3
"""So many other models are asked, whose words will hardly be the same: each costs the caller
time, and somebody money."""


def joints(
    tiers: Iterable[Iterable[Model]],
    broken: Model,
    ways: Collection[Method],
    *,
    stalled: bool,
    unwell: Callable[[Model], bool],
    useless: Collection[tuple[str, str, Method | None]],
) -> list[Joint]:
    """Every candidate with every method that may work for it, best first.

    First whoever is likely to say the same (the model elsewhere, then the `broken` one itself,
    unless it `stalled`) or takes a prefill; then a few others, of other providers first. To
    go on by instruction comes last of all. `useless` are pairs that were tried already.
    """
    candidates: dict[tuple[str, str], Model] = {}
    for model in (model for tier in tiers for model in tier):
        if len(candidates) < LOOKED_AT or model is broken:
            candidates.setdefault((model.provider, model.id), model)
    prefill = "prefill" in ways

    def is_likely(model: Model) -> bool:
        return model.id == broken.id or (prefill and "prefill" in model.capabilities)

    def rank(model: Model) -> tuple[bool, bool, bool, bool]:
        return (
            not is_likely(model) or (stalled and model is broken),
            model is broken or unwell(model),
            model.id != broken.id,
            model.provider == broken.provider,
        )

    ranked = sorted(candidates.values(), key=rank)
    unlikely = [model for model in ranked if not is_likely(model)]
    ranked = [model for model in ranked if model not in unlikely[UNLIKELY:]]
    found: list[Joint] = []
    for model in ranked:
        if prefill and "prefill" in model.capabilities:
            found.append((model, "prefill"))
        if "again" in ways:
            found.append((model, "again"))
    if "instruct" in ways:
        found += [(model, "instruct") for model in ranked]
    return [
        (model, method)
        for model, method in found
        if (model.provider, model.id, method) not in useless
    ]
