"""Single values: what fits a setting's type, and words for what does not."""

import datetime as dt
import sys
from typing import Final, cast

from msgspec import inspect

from manyways.config import quantities
from manyways.config.document import FromVariable
from manyways.config.rules import LIFTABLE, SECONDS, SECRETS, SIZES, Wrong, near

_LONGEST_QUOTE: Final = 60
_LONGEST_NUMBER: Final = 10**20
_TRUTH: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)


def present(kind: inspect.Type) -> inspect.Type:
    """What a value must be where one is given: `int` of `int | None`."""
    if isinstance(kind, inspect.UnionType):
        kinds = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
        return kinds[0] if len(kinds) == 1 else inspect.UnionType(kinds)
    return kind


def is_scalar(kind: inspect.Type) -> bool:
    return not isinstance(
        present(kind), inspect.StructType | inspect.DictType | inspect.VarTupleType
    )


def scalar(kind: inspect.Type, value: object, pattern: str) -> object:
    """`value` as `kind`; raises `Wrong` if it is something else."""
    if pattern in LIFTABLE and value == "none":
        return None
    if isinstance(value, str) and pattern in SECONDS | SIZES:
        quantity = (quantities.seconds if pattern in SECONDS else quantities.size)(value)
        if quantity is not None:
            return quantity
    else:
        kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        for one in kinds:
            read = _parsed(one, str(value)) if isinstance(value, FromVariable) else value
            if _fits(one, read):
                return float(cast("float", read)) if isinstance(one, inspect.FloatType) else read
    hint = ""
    if isinstance(kind, inspect.LiteralType) and isinstance(value, str):
        if not isinstance(value, FromVariable):
            hint = near(value, [str(choice) for choice in kind.values])
    elif isinstance(value, dt.date | dt.time):
        hint = "; write it in quotes"
    raise Wrong(f"should be {words(kind, pattern)}, not {described(value, pattern)}{hint}")


def _parsed(kind: inspect.Type, text: str) -> object:
    """What the text of a variable means where a `kind` is wanted."""
    if isinstance(kind, inspect.BoolType):
        return _TRUTH.get(text.strip().lower(), text)
    try:
        if isinstance(kind, inspect.IntType):
            return int(text)
        if isinstance(kind, inspect.FloatType):
            return float(text)
    except ValueError:
        pass
    return text


def _fits(kind: inspect.Type, value: object) -> bool:
    match kind:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and abs(value) <= sys.float_info.max  # also False where it is no number
            )
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.LiteralType():
            return isinstance(value, str) and value in kind.values
        case _:
            raise TypeError(f"no setting can be a {kind}")


def words(kind: inspect.Type, pattern: str = "") -> str:
    """What a value of `kind` is called."""
    if pattern in SECONDS:
        return 'a duration like "5s", "500ms", "1m", "2h" or "30d" (or a number of seconds)'
    if pattern in SIZES:
        return 'a size like "32MiB" or "10MB" (or a number of bytes)'
    kind = present(kind)
    match kind:
        case inspect.UnionType():
            return " or ".join(words(one) for one in kind.types)
        case inspect.LiteralType():
            choices = [f'"{choice}"' for choice in kind.values]
            return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        case inspect.VarTupleType():
            return "a list"
        case _:
            return _WORDS.get(type(kind), "a table")


_WORDS: Final[dict[type, str]] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a text in quotes",
}


def described(value: object, pattern: str) -> str:
    """What was found instead, without giving a secret away."""
    if isinstance(value, FromVariable):
        return "what the variable holds"
    if isinstance(value, str):
        hidden = any(pattern == secret or pattern.startswith(f"{secret}.") for secret in SECRETS)
        return "a text" if hidden or len(value) > _LONGEST_QUOTE else f'the text "{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        too_long = isinstance(value, int) and abs(value) >= _LONGEST_NUMBER
        return "a number that is far too large" if too_long else f"the number {value}"
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else "a date or time"
