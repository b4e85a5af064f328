"""What a setting may be, beyond its type: units, bounds and shapes, one row a setting.

A row's name is the setting's path, with `*` for an index or a name of the operator's own.
A check gets the value in its own type, returns it in its final form, and raises `Wrong`
with words that follow the setting's name: "must be between 0 and 65535".
"""

import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from manyways.config import quantities
from manyways.errors import ManywaysError
from manyways.store import redis_address
from manyways.store.database_address import checked
from manyways.types import Quota
from manyways.upstream import proxies
from manyways.upstream.outlets import STRAIGHT

Check = Callable[[Any], Any]

SERVED: Final = ("openai", "local")
PLANNED: Final = ("anthropic", "gemini", "ollama", "pollinations", "gradio")
RESERVED: Final = (
    "/admin/v1",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/v1beta",
    "/dashboard",
    "/status",
    "/media",
)

_MOUNT: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_SECRET_LETTERS: Final = 32
"""Fewer random letters than this could be guessed."""


class Wrong(Exception):
    """A value cannot be used; the message follows the setting's name."""


def between(low: float, high: float, write: Callable[[Any], str] = "{:g}".format) -> Check:
    """A number from `low` to `high`, both allowed."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise Wrong(f"must be between {write(low)} and {write(high)}")
        return value

    return check


def _seconds(low: float, high: float) -> Check:
    return between(low, high, quantities.write_seconds)


def _size(low: int, high: int) -> Check:
    return between(low, high, quantities.write_size)


def _price(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise Wrong("must be a finite number, 0 or more")
    return value


def _name(value: str) -> str:
    if not value.strip():
        raise Wrong("is empty")
    if value != value.strip() or not value.isprintable():
        raise Wrong("has blanks around it or characters that cannot be printed")
    return value


def _provider_name(value: str) -> str:
    if "/" in value:
        raise Wrong(
            "has a slash in it: callers write provider/model, so a provider's name cannot hold one"
        )
    return _name(value)


def _web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good, parts = False, urlsplit("")
    if not good or " " in value or not value.isprintable():
        raise Wrong('should be an address like "https://api.example.com/v1"')
    if parts.username is not None or parts.password is not None:
        raise Wrong("cannot have a user or a password in it; use api_key, or headers")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise Wrong("cannot have a query or a fragment (from ? or # on)")
    return value.rstrip("/")


def _base_url(value: str) -> str:
    return _web_address(value) if value else value


def _models_url(value: str) -> str:
    return _web_address(value) if value else value


def _protocol(value: str) -> str:
    if value in PLANNED:
        raise Wrong(f'is "{value}", which is not served yet; served are {_listed(SERVED)}')
    if value not in SERVED:
        raise Wrong(f"is none that we know{near(value, (*SERVED, *PLANNED), _listed(SERVED))}")
    return value


def _api_key(value: str) -> str:
    if not value:
        raise Wrong("is empty; leave it out if the provider needs none")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise Wrong("has blanks or letters in it that no key has; is it pasted whole?")
    return value


def _header_name(value: str) -> None:
    if not _TOKEN.fullmatch(value):
        raise Wrong("is no name for an HTTP header")
    if value.lower() in {"host", "content-length", "transfer-encoding", "connection"}:
        raise Wrong("is set by the connection itself")


def _header_value(value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise Wrong("should be one line of ASCII text, as HTTP headers are")
    return value


def _mount(value: str) -> str:
    if not value.startswith("/"):
        raise Wrong('should start with a slash, like "/v1"')
    if value.endswith("/"):
        raise Wrong("should not end with a slash")
    if not _MOUNT.fullmatch(value):
        raise Wrong("should be a plain path: letters, digits, and any of . _ ~ - between slashes")
    for taken in RESERVED:
        if f"{value}/".startswith(f"{taken}/") or f"{taken}/".startswith(f"{value}/"):
            raise Wrong(f"collides with {taken}, which stands at the root")
    return value


def _host(value: str) -> str:
    if not value or " " in value or "/" in value or not value.isprintable():
        raise Wrong('should be a host name or an address, like "127.0.0.1" or "0.0.0.0"')
    return value


def _database(value: str) -> str:
    try:
        checked(value)
    except ManywaysError as error:
        raise Wrong(str(error).removeprefix("database.url ")) from None
    return value


def _redis(value: str) -> str:
    if value:
        try:
            redis_address.parse(value)
        except ValueError as error:
            raise Wrong(str(error)) from None
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Wrong('should be an address or a network, like "127.0.0.1" or "10.0.0.0/8"') from None
    return value


def _proxy(value: str) -> str:
    if value and value != STRAIGHT:
        try:
            proxies.parse(value)
        except ValueError as error:
            raise Wrong(str(error)) from None
    return value


def _spared(value: str) -> str:
    if not value or " " in value or "," in value or "://" in value or not value.isprintable():
        raise Wrong('should be one host, like "localhost", ".example.com" or "10.0.0.0/8"')
    if "/" in value:
        return _network(value)
    if not proxies.can_be_meant(value):
        raise Wrong("has a port that is none, or an address that is none")
    return value


def _quota(value: Quota) -> Quota:
    amounts = (value.requests, value.tokens, value.cost)
    if all(amount is None for amount in amounts):
        raise Wrong("says no amount: give requests, tokens or cost (in USD)")
    if any(amount is not None and not 0 < amount <= 10**15 for amount in amounts):
        raise Wrong("has an amount that is not between 0 and 1000000000000000")
    return value


def _clock(value: str) -> str:
    if not _CLOCK.fullmatch(value):
        raise Wrong('should be a time of day from "00:00" to "23:59"')
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        raise Wrong(
            f"is no time zone that is known here{near(value, known, 'a name like Europe/Moscow')}"
        ) from None
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,16}", value):
        raise Wrong("should be at most 16 letters, digits, _ or -")
    return value


def _not_empty(value: tuple[object, ...]) -> tuple[object, ...]:
    if not value:
        raise Wrong("is an empty list")
    return value


def _models(value: tuple[object, ...] | None) -> tuple[object, ...] | None:
    if value == ():
        raise Wrong("is an empty list; leave it out to ask the provider for its models")
    return value


def _providers(value: tuple[object, ...]) -> tuple[object, ...]:
    if not value:
        raise Wrong("is empty; leave it out to serve the embedded model")
    return value


def near(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean "port"?` if something like `word` is known, else what there is."""
    names = list(known)
    by_folded = {name.casefold(): name for name in names}
    match = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    if match:
        return f'; did you mean "{by_folded[match[0]]}"?'
    return f"; there is {otherwise}" if otherwise else ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)


_DAY: Final = 86400.0
_CENTURY: Final = 36500 * _DAY
_TIMEOUT: Final = _seconds(0.001, _DAY)
_PAUSE: Final = _seconds(0.001, 3600.0)
_COUNT: Final = between(1, 10**15, "{:.0f}".format)

SECONDS: Final = frozenset(
    {
        "server.body_timeout",
        "server.header_timeout",
        "server.send_timeout",
        "server.drain",
        "routing.retry_pause",
        "routing.rest",
        "routing.rest_limit",
        "routing.connect_timeout",
        "routing.first_token_timeout",
        "routing.idle_timeout",
        "routing.answer_timeout",
        "routing.deadline",
        "upstream.keepalive",
        "upstream.max_age",
        "upstream.dns_ttl",
        "catalog.discovery_interval",
        "catalog.forget_after",
        "catalog.probe_pause",
        "catalog.probe_timeout",
        "catalog.quality_interval",
        "providers.*.probe_pause",
        "keys.types.*.window",
        "keys.types.*.lifetime",
        "keys.types.*.tokens_window",
        "accounts.window",
        "accounts.tokens_window",
        "usage.sync",
        "usage.retention",
    }
)
"""Settings that are durations: text like "5s", or a number of seconds."""

SIZES: Final = frozenset({"server.max_body"})
"""Settings that are sizes: text like "32MiB", or a number of bytes."""

LIFTABLE: Final = frozenset(
    f"keys.types.*.{limit}"
    for limit in (
        "requests",
        "window",
        "lifetime",
        "tokens",
        "tokens_window",
        "concurrent",
    )
)
"""Limits for which `"none"` is written where a built-in one is to be lifted."""

SECRETS: Final = (
    "database.url",
    "cluster.redis",
    "providers.*.api_key",
    "providers.*.headers",
    "providers.*.base_url",
    "providers.*.proxy",
    "upstream.proxy",
)
"""Settings whose values, and all below them, never appear in a message."""

CHECKS: Final[dict[str, Check]] = {
    "server.host": _host,
    "server.port": between(0, 65535),
    "server.mounts": _not_empty,
    "server.mounts.*.path": _mount,
    "server.max_body": _size(1024, 4 * 1024**3),
    "server.body_timeout": _TIMEOUT,
    "server.header_timeout": _TIMEOUT,
    "server.send_timeout": _TIMEOUT,
    "server.drain": _seconds(0, _DAY),
    "server.backlog": between(128, 65535),
    "server.max_connections": between(1, 1_000_000, "{:.0f}".format),
    "server.public_url": _web_address,
    "database.url": _database,
    "cluster.redis": _redis,
    "routing.max_attempts": between(1, 100),
    "routing.retries": between(0, 10),
    "routing.retry_pause": _PAUSE,
    "routing.rest": _PAUSE,
    "routing.rest_limit": _PAUSE,
    "routing.connect_timeout": _TIMEOUT,
    "routing.first_token_timeout": _TIMEOUT,
    "routing.idle_timeout": _TIMEOUT,
    "routing.answer_timeout": _TIMEOUT,
    "routing.deadline": _TIMEOUT,
    "routing.hedge_budget": between(0, 1),
    "upstream.proxy": _proxy,
    "upstream.no_proxy.*": _spared,
    "upstream.pool_size": between(0, 1_000_000, "{:.0f}".format),
    "upstream.keepalive": _seconds(0, _DAY),
    "upstream.max_age": _seconds(1, 365 * _DAY),
    "upstream.dns_ttl": _seconds(0, _DAY),
    "catalog.title": _name,
    "catalog.refresh": _clock,
    "catalog.timezone": _timezone,
    "catalog.discovery_interval": _seconds(1, 30 * _DAY),
    "catalog.forget_after": _seconds(0, 365 * _DAY),
    "catalog.probe_concurrency": between(1, 1000),
    "catalog.probe_pause": _seconds(0, 3600.0),
    "catalog.probe_timeout": _seconds(1, 3600.0),
    "catalog.probe_budget": between(0, 1_000_000),
    "catalog.quality_interval": _seconds(0, 365 * _DAY),
    "keys.prefix": _prefix,
    "keys.length": between(_SECRET_LETTERS, 256),
    **{
        f"{table}.{name}": check
        for table in ("keys.types.*", "accounts")
        for name, check in (
            ("requests", _COUNT),
            ("window", _seconds(1, _CENTURY)),
            ("tokens", _COUNT),
            ("tokens_window", _seconds(1, _CENTURY)),
            ("concurrent", _COUNT),
        )
    },
    "keys.types.*.lifetime": _seconds(1, _CENTURY),
    "keys.types.*.quota.*": _quota,
    "accounts.quota.*": _quota,
    "keys.wrong_a_minute": _COUNT,
    "limits.output_tokens": _COUNT,
    "usage.sync": _seconds(0.01, 3600.0),
    "usage.retention": _seconds(_DAY, _CENTURY),
    "server.trusted_proxies.*": _network,
    "defaults.temperature": between(0, 2),
    "defaults.max_tokens": _COUNT,
    "defaults.top_p": between(0, 1),
    "defaults.frequency_penalty": between(-2, 2),
    "defaults.presence_penalty": between(-2, 2),
    "providers": _providers,
    "providers.*.name": _provider_name,
    "providers.*.protocol": _protocol,
    "providers.*.base_url": _base_url,
    "providers.*.models_url": _models_url,
    "providers.*.probe_pause": _seconds(0, 3600.0),
    "providers.*.proxy": _proxy,
    "providers.*.api_key": _not_empty,
    "providers.*.api_key.*": _api_key,
    "providers.*.headers.*": _header_value,
    "providers.*.models": _models,
    "providers.*.models.*.id": _name,
    "providers.*.models.*.upstream_id": _name,
    "providers.*.models.*.context_window": _COUNT,
    "providers.*.models.*.max_output_tokens": _COUNT,
    "providers.*.models.*.pricing.*": _price,
}

NAMES: Final[dict[str, Check]] = {
    "keys.types": _name,
    "providers.*.headers": _header_name,
}
"""Checks of names that operators choose for the entries of a table."""
