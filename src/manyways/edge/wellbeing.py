"""How providers do, as rows for operators: what rests, why, since when, and until when.

A provider, a credential and a model are each in one of these states:

    well            asked lately, and nothing speaks against it
    degraded        answers, but more than one in ten attempts failed, or a part of it rests
    resting         left alone, as it failed; behind `back_at` a request may try it again
    models unknown  a provider that does not tell its models, and has not since the start
    not asked yet   nothing is known of it
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit, urlunsplit

from manyways.catalog.trouble import Trouble
from manyways.edge.wording import NO_FAILURES, Reason
from manyways.routing.standing import Standing
from manyways.types import Model, Provider
from manyways.upstream.failed import Failed

State = Literal["well", "degraded", "resting", "models unknown", "not asked yet"]
STATES: Final[tuple[State, ...]] = get_args(State)

DEGRADED: Final = 0.1
"""The failure rate from which on something is degraded."""

Failures = Callable[[str], Failed | None]
"""Tells the latest exchange of bytes with a provider that failed."""

Proxied = Callable[[Provider], str | None]
"""Names the proxy on the way to a provider, without its password; `None` for none."""

Label = Callable[[str, int], str]
"""Names a provider's credential, counted from 0, without telling it: `key 2 (…Wk8I)`."""


class _State(NamedTuple):
    """These fields of a row. `due`: its rest is over, and the next request may try it.
    `resting_since` is also since when a provider does not tell its models."""

    state: State
    why: str | None = None
    code: str | None = None
    resting_since: str | None = None
    back_at: str | None = None
    due: bool = False


class _Known(NamedTuple):
    """All that is remembered of one provider; credentials by their number."""

    whole: list[Standing]
    credentials: dict[int, Standing]
    models: dict[str, Standing]
    limited: dict[str, dict[int, Standing]]


_WELL = _State("well")
_UNASKED = _State("not asked yet")


def provider_rows(
    providers: Iterable[Provider],
    models: Callable[[str], Sequence[Model]],
    standings: Iterable[Standing],
    label: Label,
    now: float,
    *,
    untold: Mapping[str, Trouble],
    failed: Failures,
    proxied: Proxied,
) -> list[dict[str, Any]]:
    """A row a provider, in their order. `models` tells those of a provider, `now` is Unix seconds.

    `untold` are the providers that were asked for their models and have never told them.
    Moments in the rows are UTC (RFC 3339, milliseconds), latencies milliseconds, rates 0 to 1.
    """
    known: dict[str, _Known] = {}
    for one in standings:
        found = known.setdefault(one.provider, _Known([], {}, {}, {}))
        if one.model is None and one.credential is None:
            found.whole.append(one)
        elif one.model is None and one.credential is not None:
            found.credentials[one.credential] = one
        elif one.model is not None and one.credential is None:
            found.models[one.model] = one
        elif one.model is not None and one.credential is not None:
            found.limited.setdefault(one.model, {})[one.credential] = one
    providers = tuple(providers)
    rows = _Rows(label, now, {one.name for one in providers if not one.api_keys}, untold)
    told = []
    for provider in providers:
        of_it = known.get(provider.name) or _Known([], {}, {}, {})
        row = rows.provider(provider, models(provider.name), of_it)
        row["last_failure"] = _last_failure(failed(provider.name), proxied(provider))
        told.append(row)
    return told


def _last_failure(failed: Failed | None, proxy: str | None) -> dict[str, Any] | None:
    """With the way that was gone: by a proxy, or straight."""
    if failed is None:
        return None
    return {"code": failed.code, "words": failed.words, "at": _iso(failed.at), "proxy": proxy}


class _Rows:
    def __init__(
        self, label: Label, now: float, keyless: set[str], untold: Mapping[str, Trouble]
    ) -> None:
        self._label = label
        self._now = now
        self._keyless = keyless
        self._untold = untold

    def provider(
        self, provider: Provider, models: Sequence[Model], known: _Known
    ) -> dict[str, Any]:
        rows = [self._model(model, known) for model in models]
        state = self._provider_state(provider.name, known, rows)
        return {
            "name": provider.name,
            "object": "provider",
            "protocol": provider.protocol,
            "base_url": _without_secrets(provider.base_url) or None,
            **state._asdict(),
            "totals": {
                "models": len(rows),
                "resting": _count(rows, "resting"),
                "degraded": _count(rows, "degraded"),
                "running": sum(row["running"] for row in rows),
                "served": sum(row["served"] for row in rows),
                "failed": sum(
                    count
                    for row in rows
                    for code, count in row["outcomes"].items()
                    if code not in NO_FAILURES
                ),
            },
            "credentials": [
                {**self._credential(one), "failure_rate": _rate(one.failure_rate)}
                for _, one in sorted(known.credentials.items())
            ],
            "models": rows,
        }

    def _credential(self, one: Standing) -> dict[str, Any]:
        state = _WELL if one.state == "closed" else self._resting(one, "")
        return {
            "label": self._label(one.provider, one.credential or 0),
            **state._asdict(),
            "failures": one.failures,
        }

    def _model(self, model: Model, known: _Known) -> dict[str, Any]:
        own = known.models.get(model.id) or Standing(provider=model.provider, model=model.id)
        limited = known.limited.get(model.id, {})
        state = self._model_state(own, limited, known)
        return {
            "id": model.id,
            "status": model.status,
            **state._asdict(),
            "failures": own.failures,
            "failure_rate": _rate(own.failure_rate),
            "running": own.running,
            "served": own.served,
            "outcomes": own.outcomes,
            "latency": {
                "first_token_ms": _milliseconds(own.first_token),
                "first_token_p95_ms": _milliseconds(own.first_token_p95),
                "whole_ms": _milliseconds(own.whole),
            },
            "limited": [
                self._credential(limited[index])
                for index in sorted(limited)
                if limited[index].state != "closed"
            ],
        }

    def _model_state(self, own: Standing, limited: dict[int, Standing], known: _Known) -> _State:
        closed_to_it = [(one, "the provider ") for one in known.whole if one.state != "closed"]
        if own.state != "closed":
            closed_to_it.append((own, ""))
        shut, count = self._shut(known.credentials, limited)
        if shut and len(shut) == count:
            first = min(shut, key=_back)
            closed_to_it.append((first, self._whose(first)))
        if closed_to_it:
            last, whose = max(closed_to_it, key=lambda one: _back(one[0]))
            return self._resting(last, whose)
        if not _was_asked(own):
            return _UNASKED
        doubts = []
        if own.failure_rate is not None and own.failure_rate > DEGRADED:
            doubts.append(f"{own.failure_rate:.0%} of its latest attempts failed")
        doubts += self._resting_keys(limited.values())
        return _State("degraded", "; ".join(doubts)) if doubts else _WELL

    def _shut(
        self, credentials: dict[int, Standing], limited: dict[int, Standing]
    ) -> tuple[list[Standing], int]:
        """What keeps credentials from being used, one each, and how many credentials there are."""
        numbers = credentials.keys() | limited.keys()
        shut = []
        for number in sorted(numbers):
            both = [rows[number] for rows in (credentials, limited) if number in rows]
            resting = [one for one in both if one.state != "closed"]
            if resting:
                shut.append(max(resting, key=_back))
        return shut, len(numbers)

    def _provider_state(self, name: str, known: _Known, models: list[dict[str, Any]]) -> _State:
        for whole in known.whole:
            if whole.state != "closed":
                return self._resting(whole, "")
        shut, count = self._shut(known.credentials, {})
        if shut and len(shut) == count:
            first = min(shut, key=_back)
            return self._resting(first, self._whose(first))
        if (trouble := self._untold.get(name)) is not None:
            return _State(
                "models unknown",
                f"does not tell its models: {trouble.reason}",
                resting_since=self._moment(trouble.since - self._now),
            )
        resting = [row for row in models if row["state"] == "resting"]
        if resting and len(resting) == len(models):
            first_back = min(resting, key=lambda row: str(row["back_at"]))
            several = f"all of its {len(models)} models rest"
            return _State(
                "resting",
                several if len(models) > 1 else f"its only model rests: {first_back['why']}",
                first_back["code"],
                max(str(row["resting_since"]) for row in resting),
                first_back["back_at"],
                first_back["due"],
            )
        doubts = self._resting_keys(shut)
        if resting:
            doubts.append(_share(len(resting), len(models), "rests", "rest"))
        if degraded := _count(models, "degraded"):
            doubts.append(_share(degraded, len(models), "is degraded", "are degraded"))
        if doubts:
            return _State("degraded", "; ".join(doubts))
        asked = any(row["state"] != _UNASKED.state for row in models)
        return _WELL if asked else _UNASKED

    def _resting(self, one: Standing, whose: str) -> _State:
        reason = Reason.of(one.why or "")
        return _State(
            "resting",
            f"{whose}{reason}",
            reason.code,
            self._moment(-(one.resting_for or 0.0)),
            self._moment(one.back_in or 0.0),
            one.state == "half-open",
        )

    def _resting_keys(self, rows: Iterable[Standing]) -> list[str]:
        return [
            f"{self._whose(one)}{Reason.of(one.why or '')}" for one in rows if one.state != "closed"
        ]

    def _whose(self, one: Standing) -> str:
        """Names the key that rests, where there are keys."""
        if one.provider in self._keyless:
            return ""
        return f"{self._label(one.provider, one.credential or 0)} rests: "

    def _moment(self, seconds: float) -> str:
        """`seconds` from now."""
        return _iso(self._now + seconds)


def _iso(moment: float) -> str:
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _was_asked(own: Standing) -> bool:
    return bool(own.served or own.outcomes or own.running)


def _back(one: Standing) -> float:
    return one.back_in or 0.0


def _count(rows: list[dict[str, Any]], state: str) -> int:
    return sum(row["state"] == state for row in rows)


def _share(part: int, of: int, singular: str, plural: str) -> str:
    models = "model" if of == 1 else "models"
    return f"{part} of {of} {models} {singular if part == 1 else plural}"


def _rate(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _without_secrets(address: str) -> str:
    """The address without user, password and query, any of which may hold a key."""
    if not address:
        return ""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
