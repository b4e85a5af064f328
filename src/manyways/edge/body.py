"""The JSON body of a request to a page: the fields that the page knows, each checked."""

import math
import re
from typing import Any, Final

import msgspec

from manyways.dialects import json_text
from manyways.edge.exchange import Exchange
from manyways.errors import Refusal
from manyways.operations.wording import hint

_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|)\s*")
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FOREVER: Final = 1e12
_LONGEST: Final = 64 * 1024
_QUOTED: Final = 60


class Fields:
    """What came. Each reader raises `Refusal` naming the field; absent and `null` are `None`,
    and `in` tells the two apart."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise wrong(name, "must be a text")
        return value

    def needed(self, name: str) -> str:
        """A string that has to be there."""
        value = self.text(name)
        if not value:
            raise wrong(name, "is needed")
        return value

    def seconds(self, name: str, *, or_never: bool = False) -> float | None:
        """A duration: a number of seconds, or with a unit, `"30d"`; infinity for `"never"`."""
        value = self._values.get(name)
        if value is None:
            return None
        if or_never and value == "never":
            return math.inf
        found = as_seconds(value)
        if found is None:
            never = ', or "never"' if or_never else ""
            raise wrong(name, f'must be a time such as "90s", "1m", "24h" or "30d"{never}')
        return found

    def value(self, name: str) -> Any:
        """Whatever it is."""
        return self._values.get(name)


async def body_fields(exchange: Exchange, *names: str) -> Fields:
    """The body, a JSON object with no other fields than these; or none at all. Raises `Refusal`."""
    body = await exchange.body()
    if len(body) > _LONGEST:
        raise Refusal("request_too_large", f"The body is larger than {_LONGEST:,} bytes.")
    if not body.strip():
        return Fields({})
    try:
        values = {
            name: msgspec.json.decode(value)
            for name, value in json_text.decode_object(body).items()
        }
    except (json_text.NotJson, msgspec.DecodeError) as error:
        raise Refusal("invalid_request", f"The body is not a JSON object: {error}.") from None
    for name in values:
        if name not in names:
            words = f"{short(name)}: there is no such field{hint(name, names)}"
            raise Refusal("invalid_request", words, param=short(name))
    return Fields(values)


def as_seconds(value: object) -> float | None:
    """A duration as people or programs write it; `None` where it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value <= _FOREVER else None
    written = _DURATION.fullmatch(value) if isinstance(value, str) else None
    found = float(written[1]) * _UNITS[written[2]] if written else math.inf
    return found if found <= _FOREVER else None


def wrong(name: str, what: str) -> Refusal:
    """400, naming the field."""
    return Refusal("invalid_request", f"{name}: {what}.", param=name)


def short(name: str) -> str:
    """A name that somebody else chose, as it may be repeated."""
    return name if len(name) <= _QUOTED else f"{name[:_QUOTED]}…"
