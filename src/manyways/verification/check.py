"""A check: something that a model is asked, and what its answer proves."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from manyways.catalog.verified import Verdict
from manyways.verification.interview import Interview


class Finding(Struct, frozen=True, kw_only=True):
    """What came of a check. `reason` follows the check's name, where it did not pass: "tools:
    it answered in prose". `prompt` and `answer` are for people: what was asked, in words, and
    what came back. `points`, 0 to 1, are for tasks of the quality set."""

    verdict: Verdict
    prompt: str
    answer: str = ""
    reason: str = ""
    points: float | None = None


Ask = Callable[[Interview], Awaitable[Finding]]
"""Carries out a check. Raises what `Interview` raises: a request that the provider refuses
fails the check, and a provider that cannot be reached leaves it unsure."""


class Step(Struct, frozen=True, kw_only=True):
    """One check of an examination. `tries`: it fails only where it fails so often, for models
    do not always answer alike."""

    name: str
    ask: Ask
    tries: int = 1


def passed(prompt: str, answer: str) -> Finding:
    """It did what was asked."""
    return Finding(verdict="passed", prompt=prompt, answer=answer)


def failed(prompt: str, answer: str, reason: str) -> Finding:
    """It did not, and this is how that shows."""
    return Finding(verdict="failed", prompt=prompt, answer=answer, reason=reason)
