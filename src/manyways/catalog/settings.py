"""The `[catalog]` section."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """What is shown of models, how they are found, and how they are verified.

    Every `discovery_interval` seconds, providers are asked for their lists of models. A model
    that is not listed any more is down, and leaves `forget_after` seconds later.

    `refresh` is the time of day in `timezone` at which models are verified. `probe` says
    whether they are asked anything unasked. A verification has `probe_concurrency` requests
    under way at most, begins one at the same provider every `probe_pause` seconds, gives each
    `probe_timeout` seconds, and costs `probe_budget` USD at most, as far as prices are known.
    Quality is scored every `quality_interval` seconds.
    """

    title: str = "Manyways"
    discovery_interval: float = 900.0
    forget_after: float = 604800.0
    refresh: str = "02:00"
    timezone: str = "Europe/Moscow"
    probe: bool = True
    probe_concurrency: int = 16
    probe_pause: float = 0.5
    probe_timeout: float = 60.0
    probe_budget: float = 1.0
    quality_interval: float = 604800.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.refresh):
            raise ValueError(f"refresh {self.refresh!r} is no time of day such as 02:00")
        if not _is_timezone(self.timezone):
            raise ValueError(f"timezone {self.timezone!r} is not known; try Europe/Moscow")
        if not self.discovery_interval > 0:
            raise ValueError("discovery_interval must be more than 0 s")


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return not available_timezones()  # a machine without the database knows none at all
    return True
