"""What has become of models: changes, incidents and verifications, as operators see them.

Everything may raise `StoreError`.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from manyways.catalog.history import restored, sentence
from manyways.catalog.verified import Check
from manyways.operations.catalog import verified_document
from manyways.operations.reports import iso
from manyways.operations.wording import Mistake
from manyways.store import catalog, incidents, verifications
from manyways.store.catalog import Entry
from manyways.store.incidents import Incident

_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN: Final = re.compile(r"([1-9]\d{0,4})([mhdw])")
_LONGEST: Final = 3660 * 86400
_ALL_KEYS: Final = -1


def since_when(text: str, now: float) -> int:
    """The Unix second that `7d` ago, a date or a moment (`2026-11-23T14:00Z`) is. Raises
    `Mistake` about `since`."""
    words = text.strip()
    span = _SPAN.fullmatch(words)
    if span is not None:
        seconds = int(span[1]) * _UNITS[span[2]]
        if seconds <= _LONGEST:
            return int(now) - seconds
    try:
        # A plus in a query is a blank.
        moment = datetime.fromisoformat(words.replace(" ", "+") if "T" in words else words)
    except ValueError:
        moment = None
    if moment is None or not 2000 <= moment.year <= 2200:
        raise Mistake(
            "since",
            f"{text[:60]!r} is no time: write a span like 24h or 7d, ten years at most, a date"
            " like 2026-11-23, or a moment like 2026-11-23T14:00Z.",
        )
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def changes(
    connection: Connection,
    *,
    provider: str | None = None,
    model: str | None = None,
    since: int | None = None,
    before: str | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """What has changed, the newest first: those before the id `before`."""
    rows = catalog.changes(
        connection, provider=provider, model=model, since=since, before=before, limit=limit
    )
    return [change_document(row) for row in rows]


def listed_incidents(
    connection: Connection,
    *,
    provider: str | None = None,
    model: str | None = None,
    since: int | None = None,
    open_only: bool = False,
    before: str | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """When models or providers were not to be had, the newest first, likewise."""
    rows = incidents.listed(
        connection,
        provider=provider,
        model=model,
        since=since,
        open_only=open_only,
        before=before,
        limit=limit,
    )
    return [incident_document(row) for row in rows]


def latest_verifications(
    connection: Connection, *, provider: str | None = None, model: str | None = None
) -> list[dict[str, Any]]:
    """What was found out last about each model, by provider and model; where both are named,
    with the checks that it follows from, as far as they are kept."""
    found = [
        (its_provider, its_model, document)
        for its_provider, its_model, document, _ in verifications.verified(connection)
        if provider in (None, its_provider) and model in (None, its_model)
    ]
    rows = [verified_document(document) for _, _, document in sorted(found)]
    if provider is not None and model is not None:
        for row in rows:
            row["checks"] = checks(connection, provider, model)
    return rows


def checks(connection: Connection, provider: str, model: str) -> list[dict[str, Any]]:
    """The checks of a model's newest verification, in the order in which they were made."""
    rows = verifications.latest_checks(connection, provider, model)
    made = [msgspec.json.decode(row.document, type=Check) for row in rows]
    return [check_document(one) for one in sorted(made, key=lambda one: one.at)]


def change_document(row: Entry) -> dict[str, Any]:
    """A change as JSON has it, and in a sentence."""
    return {
        "id": row.id,
        "object": "catalog.change",
        "at": iso(row.at),
        "provider": row.provider,
        "model": row.model,
        "kind": row.kind,
        "field": row.field,
        "before": _value(row.before),
        "after": _value(row.after),
        "text": _sentence(row),
    }


def incident_document(row: Incident) -> dict[str, Any]:
    """An incident as JSON has it. The provider's keys are counted from 1."""
    return {
        "id": row.id,
        "object": "catalog.incident",
        "provider": row.provider,
        "model": row.model or None,
        "key": None if row.credential == _ALL_KEYS else row.credential + 1,
        "source": row.source,
        "began_at": iso(row.began),
        "seen_at": iso(row.seen),
        "ended_at": None if row.ended is None else iso(row.ended),
        "why": row.why,
    }


def check_document(check: Check) -> dict[str, Any]:
    """A check as JSON has it."""
    return {
        "name": check.name,
        "verdict": check.verdict,
        "reason": check.reason or None,
        "prompt": check.prompt,
        "answer": check.answer,
        "at": iso(check.at),
        "ms": check.ms,
        "first_token_ms": check.first_token_ms,
        "tokens_per_second": check.tokens_per_second,
        "points": check.points,
        "reported_model": check.reported or None,
        "requests": check.requests,
        "prompt_tokens": check.usage.prompt_tokens,
        "completion_tokens": check.usage.completion_tokens,
        "cost_usd": check.cost,
    }


def _sentence(row: Entry) -> str:
    try:
        return sentence(restored(row[2:]))
    except msgspec.MsgspecError:  # a later version knows what it is
        return f"{row.provider}/{row.model}: {row.kind}"


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
