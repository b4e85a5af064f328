"""How the running gateway finds its providers, as its page of metrics tells: what rests, why,
since when, and until when. Asking needs no key and leaves no trace."""

import time
from collections.abc import Iterable
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
    """What the gateway remembers. `asked` is how many models it has asked since its start."""

    asked: int
    resting: tuple[Rest, ...]
    degraded: tuple[Doubt, ...]


def look(host: str, port: int, *, now: float | None = None) -> tuple[Finding, Health | None]:
    """Ask the gateway there. `now` is Unix seconds, this moment by default."""
    page = _page(host, port)
    try:
        if page is not None:
            return read(page, time.time() if now is None else now)
    except (ValueError, KeyError):  # another version's page
        pass
    finding = Finding(
        name="health",
        status="warning",
        detail="the gateway does not tell how its providers do (GET /metrics)",
        advice="It may be of another version than this program: start it anew.",
    )
    return finding, None


def read(page: str, now: float) -> tuple[Finding, Health]:
    """What a page of metrics tells of health, in words and as values."""
    rests: dict[tuple[str, ...], dict[str, float]] = {}
    degraded: list[Doubt] = []
    asked = set()
    for family in text_string_to_metric_families(page):
        if family.name in _KINDS:
            _take_in(family, rests)
        elif family.name == "manyways_failure_rate":
            degraded += _doubts(family)
        elif family.name == "manyways_attempts":
            asked |= {(s.labels["provider"], s.labels["model"]) for s in family.samples}
    lines, resting = [], []
    for (provider, model, credential, code), moments in rests.items():
        since, until = moments.get("since", now), moments.get("until", now)
        rest = Rest(
            provider=provider,
            model=model or None,
            credential=int(credential) if credential else None,
            code=code,
            resting_since=_iso(since),
            back_at=_iso(until),
        )
        resting.append(rest)
        lines.append(f"{_name(rest)} rests since {_span(now - since)}: {_why(rest, until - now)}")
    closed = {(one.provider, one.model) for one in resting if one.credential is None}
    degraded = [one for one in degraded if (one.provider, one.model) not in closed]
    lines += [
        f"{one.provider}/{one.model} is degraded: {one.failure_rate:.0%} of its latest attempts"
        " failed"
        for one in degraded
    ]
    health = Health(asked=len(asked), resting=tuple(resting), degraded=tuple(degraded))
    return _finding(health, lines), health


def _finding(health: Health, lines: list[str]) -> Finding:
    models = f"{health.asked} model{'' if health.asked == 1 else 's'} asked since its start"
    if not lines:
        words = f"all is well, {models}" if health.asked else "no model was asked yet"
        return Finding(name="health", status="ok", detail=words)
    counts = []
    if count := len(health.resting):
        counts.append(f"{count} {'rests' if count == 1 else 'rest'}")
    if count := len(health.degraded):
        counts.append(f"{count} {'is' if count == 1 else 'are'} degraded")
    shown = lines[:_SHOWN]
    if len(lines) > _SHOWN:
        shown.append(f"and {len(lines) - _SHOWN} more")
    return Finding(
        name="health",
        status="warning",
        detail="\n".join([f"{', '.join(counts)}, of {models}", *shown]),
        advice="Others are asked meanwhile. GET /admin/v1/providers has the providers' own words.",
    )


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
