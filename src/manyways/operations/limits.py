"""Limits of a key's or an account's own, checked before they are kept."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from manyways.operations.wording import Mistake, alternatives, hint
from manyways.types import Allowance, Period, Quota

_MOST: Final = 10**15
_CENTURY: Final = 36500 * 86400.0
_AMOUNTS: Final = (("requests", "window"), ("tokens", "tokens_window"))
_WHOLE: Final = (int | None, "must be a whole number")
_NUMBER: Final = (float | None, "must be a number")
_SPAN: Final = (float | None, "must be a time")
_FIELDS: Final[Mapping[str, tuple[Any, str]]] = {
    "requests": _WHOLE,
    "window": _SPAN,
    "tokens": _WHOLE,
    "tokens_window": _SPAN,
    "concurrent": _WHOLE,
}
_QUOTA: Final[Mapping[str, tuple[Any, str]]] = {
    "requests": _WHOLE,
    "tokens": _WHOLE,
    "cost": _NUMBER,
    "per": (Period, f"must be {alternatives(get_args(Period))}"),
}


def as_limits(value: object) -> Allowance | None:
    """Limits as JSON has them: an object with the fields of `Allowance`, durations in seconds, a
    single quota with or without a list around it; `None` for none of one's own. Raises `Mistake`.
    """
    if value is None:
        return None
    fields = dict(_object("limits", value, (*_FIELDS, "quota")))
    quotas = fields.pop("quota", None)
    if isinstance(quotas, Mapping):
        quotas = [quotas]
    if quotas is not None and not isinstance(quotas, list):
        raise _wrong_field("limits.quota", "must be a list of objects, or one of them")
    return checked(
        Allowance(
            **_read("limits", fields, _FIELDS),
            quota=tuple(_quota(f"limits.quota[{at}]", one) for at, one in enumerate(quotas or ())),
        )
    )


def checked(limits: Allowance) -> Allowance:
    """`limits`, where they make sense. Raises `Mistake` for the first thing that does not."""
    for field, words in _wrong(limits):
        raise Mistake(f"limits.{field}", f"limits.{field}: {words}.")
    return limits


def _quota(path: str, value: object) -> Quota:
    return Quota(**_read(path, _object(path, value, tuple(_QUOTA)), _QUOTA))


def _object(path: str, value: object, names: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _wrong_field(path, "must be an object")
    for name in value:
        if name not in names:
            field = f"{path}.{name}"[:100]
            raise Mistake(field, f"{field}: there is no such field{hint(name, names)}")
    return value


def _read(
    path: str, fields: Mapping[str, object], kinds: Mapping[str, tuple[Any, str]]
) -> dict[str, Any]:
    found = {}
    for name, value in fields.items():
        kind, words = kinds[name]
        try:
            found[name] = msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise _wrong_field(f"{path}.{name}", words) from None
    return found


def _wrong_field(path: str, words: str) -> Mistake:
    return Mistake(path, f"{path}: {words}.")


def _wrong(limits: Allowance) -> Iterator[tuple[str, str]]:
    for amount, window in _AMOUNTS:
        count, span = getattr(limits, amount), getattr(limits, window)
        if count is not None and span is None:
            yield window, f"needed beside {amount}, as the time in which they are counted"
        if count is None and span is not None:
            yield amount, f"needed beside {window}, which has nothing to count else"
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
