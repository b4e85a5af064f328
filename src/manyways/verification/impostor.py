"""Whether a provider serves a small model under a big name.

Each sign is an accusation, so each is one that honest providers do not give: what cannot be told
apart from an odd but honest one is no sign.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from manyways.catalog.known import Tokenizer
from manyways.catalog.verified import Fingerprint, Quality, Verified
from manyways.types import Model
from manyways.verification import quality
from manyways.verification.reported import is_telling, likeness

FAR: Final = 3.0
"""Points below one other provider's score that are no chance; two others' need no such distance."""
FEWEST: Final = 4
"""Prompts whose tokens were counted."""
NEAR: Final = 2
"""Tokens that a right count may be off by, and what a provider that only estimates is."""

TOKENS: Final[Mapping[str, Mapping[str, int]]] = {
    "o200k_base": {
        "arithmetic-4": 28,
        "reasoning-2": 56,
        "format-1": 19,
        "format-2": 37,
        "format-3": 49,
        "language-2": 23,
    },
    "cl100k_base": {
        "arithmetic-4": 28,
        "reasoning-2": 56,
        "format-1": 19,
        "format-2": 37,
        "format-3": 79,
        "language-2": 23,
    },
}
"""What the fixed questions come to, by task, without what a chat adds to each: so the tokenizers
need not be loaded. Tasks never change their words."""

_PROMPTS: Final = {task.id: task.prompt for task in quality.ANCHORS}
_ESTIMATES: Final[tuple[Callable[[str], int], ...]] = (
    len,
    lambda text: len(text.encode()),
    lambda text: len(text.split()),
)


def impostor(
    model: Model,
    verified: Verified,
    others: Sequence[Verified],
    floor: float | None,
    *,
    tokenizer: Tokenizer | None = None,
    seen: Fingerprint | None = None,
) -> str | None:
    """Why what answers cannot be the model that it is said to be; `None` where nothing says so.

    `others` are the verifications of the same id at other providers, `floor` the score that the
    true model surely reaches, `tokenizer` the one that it counts with; `None` where that is not
    known. `seen` is today's fingerprint, where it is not the one of `verified`.
    """
    found = verified.fingerprint if seen is None else seen
    reasons = (
        _by_name(model, "" if found is None else found.reported),
        _by_floor(verified.quality, floor),
        _by_others(verified, others),
        _by_tokens(found, tokenizer),
    )
    return "; ".join(reason for reason in reasons if reason) or None


def _by_name(model: Model, reported: str) -> str | None:
    # Asked for under a name of its own, an operator's name for it says nothing about the provider.
    asked = next((name for name in (model.upstream_id, model.id) if is_telling(name)), None)
    if not reported or asked is None or likeness(asked, reported) != "other":
        return None
    return f"the provider says that {reported} has answered, and was asked for {asked}"


def _by_floor(own: Quality | None, floor: float | None) -> str | None:
    if own is None or floor is None or own.high >= floor:
        return None
    return (
        f"its quality is {own.score:.1f} ({own.low:.1f} to {own.high:.1f}); that model reaches"
        f" {floor:g} at least"
    )


def _by_others(verified: Verified, others: Sequence[Verified]) -> str | None:
    own = verified.quality
    if own is None:
        return None
    better = [
        (other, found)
        for other in others
        if other.provider != verified.provider
        and "impostor" not in other.flags
        and (found := other.quality) is not None
        and found.version == own.version
        and found.low > own.high
    ]
    if len(better) < 2 and not any(found.low > own.high + FAR for _, found in better):
        return None
    named = ", ".join(
        f"{found.score:.1f} at {other.provider}"
        for other, found in sorted(better, key=lambda one: -one[1].score)[:3]
    )
    return f"its quality is {own.score:.1f} ({own.low:.1f} to {own.high:.1f}), and {named}"


def _by_tokens(found: Fingerprint | None, tokenizer: Tokenizer | None) -> str | None:
    if found is None or tokenizer is None or found.version != quality.VERSION:
        return None
    right = TOKENS[tokenizer]
    told = {
        task: sample.prompt_tokens
        for task, sample in found.samples.items()
        if sample.prompt_tokens and task in right
    }
    if len(told) < FEWEST or any(_is_near(told, counts) for counts in TOKENS.values()):
        return None  # some count everybody's tokens with one of these
    if any(_is_estimate(told, measure) for measure in _ESTIMATES):
        return None
    usual = statistics.median_low(count - right[task] for task, count in told.items())
    worst = max(told, key=lambda task: abs(told[task] - right[task] - usual))
    expected = right[worst] + max(0, usual)
    return (
        f"its prompts are not counted as by that model's tokenizer ({tokenizer}): one comes to"
        f" {told[worst]} tokens, and should come to {expected}"
    )


def _is_near(told: Mapping[str, int], right: Mapping[str, int]) -> bool:
    """Whether the counts are right, but for what the chat adds to each prompt: the same to all,
    and never less than nothing."""
    added = [count - right[task] for task, count in told.items()]
    return max(added) - min(added) <= NEAR and min(added) >= -NEAR


def _is_estimate(told: Mapping[str, int], measure: Callable[[str], int]) -> bool:
    """Whether the counts follow from the prompts' lengths: then no tokenizer has counted them."""
    lengths = [measure(_PROMPTS[task]) for task in told]
    counts = list(told.values())
    slope, intercept = statistics.linear_regression(lengths, counts)
    return all(
        abs(intercept + slope * length - count) <= NEAR
        for length, count in zip(lengths, counts, strict=True)
    )
