"""Values as strangers write them, and what sense they make.

Every function takes a value of any type and gives `None`, or nothing, where it makes no sense:
one odd value costs nobody the rest.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

MILLION: Final = 1_000_000

_MAX_NAME: Final = 256
_MAX_TOKENS: Final = 10**9
_MAX_MOMENT: Final = 253_402_300_799  # the last second of the year 9999
_EXPONENT: Final = 300
_WRITTEN: Final = 64
_DATE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def decoded(text: bytes) -> Any:
    """JSON, its numbers exact. Raises `ValueError` or `RecursionError` where it is none."""
    return _DECODER.decode(text)


def decoded_leniently(text: bytes) -> Any:
    """JSON in which texts may hold surrogates, and numbers any count of digits. Raises as
    `decoded` does."""
    return json.loads(
        text.decode(errors="surrogateescape"), parse_int=_decimal, parse_float=_decimal
    )


def name(value: object) -> str | None:
    """A text that can be a model's name."""
    if not isinstance(value, str):
        return None
    found = value.strip()
    return found if 0 < len(found) <= _MAX_NAME and found.isprintable() else None


def table(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under `key`, or an empty one."""
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def words(value: object) -> Iterator[str]:
    """The texts of a list, in lower case."""
    if isinstance(value, list):
        yield from (
            word.casefold() for word in value if isinstance(word, str) and word.isprintable()
        )


def word(value: object) -> str:
    """A text in lower case, hyphens for its blanks; empty where it is none."""
    return "-".join(value.casefold().split()) if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """A number of tokens, if it can be one."""
    number = _number(value)
    if number is None or not 1 <= number <= _MAX_TOKENS:
        return None
    return int(number)


def first_count(tables: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> int | None:
    """The first number of tokens that stands under one of the keys, table by table."""
    keys = tuple(keys)
    return next((n for t in tables for key in keys if (n := count(t.get(key))) is not None), None)


def moment(value: object) -> int | None:
    """Unix seconds, given as such or as a date of RFC 3339. What is not after 1970 is how some
    say that they do not know."""
    if isinstance(value, str) and (date := _DATE.fullmatch(value[:_WRITTEN])):
        # Fractions of a second are cut: their count of digits is anybody's choice.
        zone = date[2].upper().replace("Z", "+00:00")
        try:
            value = int(dt.datetime.fromisoformat(date[1] + zone).timestamp())
        except (ValueError, OverflowError):
            return None
    number = _number(value)
    return int(number) if number is not None and 1 <= number <= _MAX_MOMENT else None


def price(value: object, per: int = 1) -> float | None:
    """USD for one, where `value` is for `per` of them. A negative one is how "it depends" is
    written, and no price."""
    number = _number(value)
    if number is None or number < 0:
        return None
    found = float(number if per == 1 else number / per)
    return found if math.isfinite(found) else None


def flag(value: object) -> bool | None:
    """Yes or no, also as text, or as the `supported` of an object."""
    if isinstance(value, dict):
        value = value.get("supported")
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.casefold())
    return value if isinstance(value, bool) else None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


_DECODER: Final = msgspec.json.Decoder(float_hook=_decimal)


def _number(value: object) -> Decimal | None:
    if value is None or isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    if isinstance(value, str) and len(value) > _WRITTEN:
        return None
    number = _decimal(value) if isinstance(value, str) else Decimal(value)
    # Beyond these exponents lies no price and no size, but what arithmetic cannot hold.
    return number if number.is_finite() and abs(number.adjusted()) <= _EXPONENT else None
