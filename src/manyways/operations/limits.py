"""Limits of a key's or an account's own, checked before they are kept."""

import math
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from manyways.operations.wording import Mistake
from manyways.types import Allowance, Quota

_MOST: Final = 10**15
_CENTURY: Final = 36500 * 86400.0
_AMOUNTS: Final = (("requests", "window"), ("tokens", "tokens_window"))
_PATH: Final = re.compile(r"^(?P<words>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def as_limits(value: object) -> Allowance | None:
    """Limits as JSON has them: an object with the fields of `Allowance`, durations in seconds;
    `None` for none of one's own. Raises `Mistake`."""
    try:
        limits = msgspec.convert(value, Allowance | None)
    except msgspec.ValidationError as error:
        found = _PATH.match(str(error))
        words, path = (found["words"], found["path"] or "") if found else (str(error), "")
        raise Mistake(f"limits{path}", f"limits{path}: {words}.") from None
    return None if limits is None else checked(limits)


def checked(limits: Allowance) -> Allowance:
    """`limits`, where they make sense. Raises `Mistake` for the first thing that does not."""
    for field, words in _wrong(limits):
        raise Mistake(f"limits.{field}", f"limits.{field}: {words}.")
    return limits


def _wrong(limits: Allowance) -> Iterator[tuple[str, str]]:
    for amount, window in _AMOUNTS:
        count, span = getattr(limits, amount), getattr(limits, window)
        if count is not None and span is None:
            yield window, f"is missing: say in how long a time {amount} are counted"
        if count is None and span is not None:
            yield amount, f"is missing: {window} has nothing to count"
        if span is not None and not 1 <= span <= _CENTURY:
            yield window, "must be between a second and 100 years"
    for name in ("requests", "tokens", "concurrent"):
        count = getattr(limits, name)
        if count is not None and not 1 <= count <= _MOST:
            yield name, f"must be between 1 and {_MOST}"
    for index, quota in enumerate(limits.quota):
        yield from ((f"quota[{index}]{field}", words) for field, words in _wrong_quota(quota))


def _wrong_quota(quota: Quota) -> Iterator[tuple[str, str]]:
    given = {
        name: amount
        for name in ("requests", "tokens", "cost")
        if (amount := getattr(quota, name)) is not None
    }
    if not given:
        yield "", "says no amount: give requests, tokens or cost (in USD)"
    for name, amount in given.items():
        if not (math.isfinite(amount) and 0 < amount <= _MOST):
            yield f".{name}", f"must be more than 0 and at most {_MOST}"
