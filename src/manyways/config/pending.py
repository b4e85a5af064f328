"""What the file may say already although nothing follows from it yet. A row goes when its
part is built."""

import re
from collections.abc import Callable
from typing import Any, Final

from manyways.config.settings import Settings


def _off(value: object) -> bool:
    return not value


def _one(value: object) -> bool:
    return value == 1


def _unlimited(value: object) -> bool:
    return value is None


def _never(_: object) -> bool:
    return False


_ROWS: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    (r"cluster\.redis", _off, "cluster.redis: this is one process, and remembers by itself"),
    (r"usage\.journal", _off, "usage.journal: usage is not recorded yet"),
    (r"routing\.order", _never, "routing.order: there is no fallback yet"),
    (r"routing\.max_attempts", _one, "routing.max_attempts: one attempt is made"),
    (r"routing\.hedge", _off, "routing.hedge: attempts do not race yet"),
    (r"routing\.assemble", _off, "routing.assemble: whole answers are asked for as such"),
    (r"routing\.continuation", _off, "routing.continuation: a broken answer ends in an error"),
    (r"catalog\.refresh", _never, "catalog.refresh: models are not verified yet"),
    (r"catalog\.timezone", _never, "catalog.timezone: models are not verified yet"),
    (r"catalog\.probe", _off, "catalog.probe: models are not verified yet"),
    (
        r"keys\.types\.(.+)\.(requests|window|tokens|tokens_window|concurrent|quota)",
        _unlimited,
        "keys.types.{0}.{1}: limits are not enforced yet",
    ),
)
"""Pattern of the setting, when it asks for nothing, and what is to be said otherwise."""


def words(settings: Settings) -> tuple[str, ...]:
    """What was given without effect, a sentence each, in the file's order."""
    said = []
    for setting in settings.origins:
        for pattern, inert, text in _ROWS:
            match = re.fullmatch(pattern, setting)
            if match and not inert(_value(settings, setting, match)):
                said.append(text.format(*match.groups()))
    return tuple(said)


def _value(settings: Settings, setting: str, match: re.Match[str]) -> object:
    if setting.startswith("keys.types."):
        return getattr(settings.keys.types[match[1]], match[2])
    section, key = setting.split(".")
    return getattr(getattr(settings, section), key)
