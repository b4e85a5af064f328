"""How the running gateway finds its providers, as its page of metrics tells: what rests, why,
since when, and until when. Asking needs no key and leaves no trace."""

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from typing import Final

from msgspec import Struct
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from manyways.cli.checks import Finding
from manyways.edge.wellbeing import DEGRADED
from manyways.edge.wording import MEANINGS

LIMIT: Final = 5.0
"""Seconds for the gateway to say something."""

_MAX_PAGE: Final = 64 * 1024 * 1024
_SHOWN: Final = 20
_KINDS: Final = {
    "manyways_resting": "rests",
    "manyways_resting_since_timestamp_seconds": "since",
    "manyways_resting_until_timestamp_seconds": "until",
}


class Rest(Struct, frozen=True, kw_only=True):
    """Something that rests: a provider, one of its keys (counted from 1), a model, or a key at
    a model. `code` is the outcome class; moments are UTC."""

    provider: str
    model: str | None
    credential: int | None
    code: str
    resting_since: str
    back_at: str


class Doubt(Struct, frozen=True, kw_only=True):
    """A model that answers, but fails too often."""

    provider: str
    model: str
    failure_rate: float


class Health(Struct, frozen=True, kw_only=True):
    """What the gateway remembers. `asked` is how many models it has asked since its start,
    `untold` are the providers that have not told theirs. Where `away`, nobody is left."""

    asked: int
    resting: tuple[Rest, ...]
    degraded: tuple[Doubt, ...]
    untold: tuple[str, ...]
    away: bool


def look(
    host: str, port: int, keys: Mapping[str, int], *, now: float | None = None
) -> tuple[Finding, Health | None]:
    """Ask the gateway there. `keys` tells how many each provider has; `now` is Unix seconds,
    this moment by default."""
    page = _page(host, port)
    try:
        if page is not None:
            return read(page, keys, time.time() if now is None else now)
    except (ValueError, KeyError):  # another version's page
        pass
    finding = Finding(
        name="health",
        status="warning",
        detail="the gateway does not tell how its providers do (GET /metrics)",
        advice="It may be of another version than this program: start it anew.",
    )
    return finding, None


def read(page: str, keys: Mapping[str, int], now: float) -> tuple[Finding, Health]:
    """What a page of metrics tells of health, in words and as values."""
    rests: dict[tuple[str, ...], dict[str, float]] = {}
    degraded: list[Doubt] = []
    asked = set()
    models: dict[str, int] = {}
    untold: list[str] = []
    for family in text_string_to_metric_families(page):
        if family.name in _KINDS:
            _take_in(family, rests)
        elif family.name == "manyways_failure_rate":
            degraded += _doubts(family)
        elif family.name == "manyways_attempts":
            asked |= {(s.labels["provider"], s.labels["model"]) for s in family.samples}
        elif family.name == "manyways_models":
            models = {s.labels["provider"]: int(s.value) for s in family.samples}
        elif family.name == "manyways_models_told":
            untold += [s.labels["provider"] for s in family.samples if not s.value]
    lines = [f"{name} has not told its models since the gateway's start" for name in untold]
    resting = []
    for (provider, model, credential, code), moments in rests.items():
        since, until = moments.get("since", now), moments.get("until", now)
        rest = Rest(
            provider=provider,
            model=model or None,
            credential=int(credential) if credential and keys.get(provider, 1) else None,
            code=code,
            resting_since=_iso(since),
            back_at=_iso(until),
        )
        resting.append(rest)
        lines.append(
            f"{_name(rest)} has been resting for {_span(now - since)}: {_why(rest, until - now)}"
        )
    closed = {(one.provider, one.model) for one in resting if one.credential is None}
    degraded = [one for one in degraded if (one.provider, one.model) not in closed]
    lines += [
        f"{one.provider}/{one.model} is degraded: {one.failure_rate:.0%} of its latest attempts"
        " failed"
        for one in degraded
    ]
    health = Health(
        asked=len(asked),
        resting=tuple(resting),
        degraded=tuple(degraded),
        untold=tuple(untold),
        away=bool(models) and all(_is_away(name, models[name], keys, resting) for name in models),
    )
    return _finding(health, lines), health


def _is_away(name: str, models: int, keys: Mapping[str, int], resting: Iterable[Rest]) -> bool:
    """Whether nothing of the provider is in use: it rests, or all of its keys, or its models."""
    parts: dict[str | None, set[int | None]] = {}
    for rest in resting:
        if rest.provider == name:
            parts.setdefault(rest.model, set()).add(rest.credential)
    enough = max(1, keys.get(name, 1))
    shut = {model for model, which in parts.items() if None in which or len(which) >= enough}
    return None in shut or len(shut) >= models


def _finding(health: Health, lines: list[str]) -> Finding:
    if health.away:
        return Finding(
            name="health",
            status="error",
            detail="\n".join(["nobody is left to ask", *_cut(lines)]),
            advice="Callers get 503 until one is back; what rests is tried all the same. See below"
            " what the providers answer now.",
        )
    if not lines:
        models = f"{_of(health.asked, 'model')} asked since its start"
        words = f"all is well, {models}" if health.asked else "no model was asked yet"
        return Finding(name="health", status="ok", detail=words)
    advice = "Others are asked meanwhile. GET /admin/v1/providers has the providers' own words."
    return Finding(
        name="health",
        status="warning",
        detail="\n".join([", ".join(_counts(health)), *_cut(lines)]),
        advice=advice,
    )


def _counts(health: Health) -> Iterable[str]:
    if count := len(health.untold):
        verb = "does not tell its" if count == 1 else "do not tell their"
        yield f"{_of(count, 'provider')} {verb} models"
    keys = sum(rest.credential is not None for rest in health.resting)
    providers = sum(rest.credential is None and rest.model is None for rest in health.resting)
    for count, what in ((providers, "provider"), (keys, "key")):
        if count:
            yield f"{_of(count, what)} {'rests' if count == 1 else 'rest'}"
    models = _of(health.asked, "model")
    if count := len(health.resting) - providers - keys:
        yield f"{count} of {models} {'rests' if count == 1 else 'rest'}"
    if count := len(health.degraded):
        yield f"{count} of {models} {'is' if count == 1 else 'are'} degraded"


def _of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"and {more} more"] if more > 0 else lines


def _page(host: str, port: int) -> str | None:
    with closing(HTTPConnection(host, port, timeout=LIMIT)) as connection:
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            body = response.read(_MAX_PAGE)
        except (OSError, HTTPException):
            return None
    return body.decode(errors="replace") if response.status == 200 else None


def _take_in(family: Metric, rests: dict[tuple[str, ...], dict[str, float]]) -> None:
    for sample in family.samples:
        key = tuple(sample.labels[name] for name in ("provider", "model", "credential", "why"))
        rests.setdefault(key, {})[_KINDS[family.name]] = sample.value


def _doubts(family: Metric) -> Iterable[Doubt]:
    for sample in family.samples:
        if sample.value > DEGRADED:
            yield Doubt(
                provider=sample.labels["provider"],
                model=sample.labels["model"],
                failure_rate=round(sample.value, 3),
            )


def _name(rest: Rest) -> str:
    whose = rest.provider if rest.model is None else f"{rest.provider}/{rest.model}"
    return whose if rest.credential is None else f"{whose} with key {rest.credential}"


def _why(rest: Rest, left: float) -> str:
    meaning = MEANINGS.get(rest.code, rest.code)
    again = f"is tried again in {_span(left)}" if left > 0 else "the next request may try it"
    return f"{meaning}; {again}"


def _span(seconds: float) -> str:
    """About how long: `8 s`, `3 min`, `2 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{round(seconds / 3600)} h"


def _iso(moment: float) -> str:
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
