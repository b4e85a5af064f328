"""What has changed in the catalog, as values and as sentences."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from manyways.catalog.readings import MILLION
from manyways.catalog.verified import Quality, Verified
from manyways.types import Model

Kind = Literal[
    "added",
    "gone",
    "returned",
    "left",
    "changed",
    "failed",
    "recovered",
    "withdrawn",
    "proven",
    "score",
    "flagged",
    "cleared",
]
"""`gone`: its provider lists it no more; `left`: it is forgotten. `changed` names a field of
`FIELDS`, `withdrawn` and `proven` a capability, `flagged` and `cleared` a flag."""

FIELDS: Final = (
    "category",
    "context_window",
    "max_output_tokens",
    "capabilities",
    "modalities",
    "pricing",
)
"""What is compared, as it is claimed."""

Columns = tuple[str, str, str, str | None, str | None, str | None]
"""Provider, model, kind, field, and as JSON: before, after."""

_SENTENCES: Final[dict[str, str]] = {
    "added": "{name} is new",
    "gone": "{name} is not listed any more",
    "returned": "{name} is listed again",
    "left": "{name} has left the catalog",
    "failed": "{name} fails{because}",
    "recovered": "{name} answers again",
    "withdrawn": "{name}: {field} is withdrawn{because}",
    "proven": "{name}: {field} is proven",
    "flagged": "{name} is flagged: {field}{because}",
    "cleared": "{name} is not flagged any more: {field}",
}
_PIECES: Final = frozenset({"request", "image", "web_search"})
_PRICES: Final = {
    "internal_reasoning": "price of thoughts",
    "input_cache_read": "price of reading the cache",
    "input_cache_write": "price of writing the cache",
    "web_search": "price of a web search",
}


class Change(Struct, frozen=True, kw_only=True):
    """One change of one model.

    `before` and `after` are values of the field where it `changed`, scores where the `score`
    did; the reason stands in `after` where there is one.
    """

    provider: str
    model: str
    kind: Kind
    field: str | None = None
    before: Any = None
    after: Any = None


def changes(
    before: Iterable[Model], after: Iterable[Model], *, gone: Iterable[Model] = ()
) -> list[Change]:
    """What is different between the models that were listed and those that are, as claimed.

    `gone` are models that were listed no more, but are remembered: they return. In the order of
    `after`, then what is not listed any more in the order of `before`.
    """
    listed = {(model.provider, model.id): model for model in before}
    missing = {(model.provider, model.id): model for model in gone}
    found: list[Change] = []
    now = set()
    for model in after:
        key = (model.provider, model.id)
        now.add(key)
        previous = listed.get(key) or missing.get(key)
        if previous is None:
            found.append(_change(model, "added"))
            continue
        if key not in listed:
            found.append(_change(model, "returned"))
        found += _differences(previous, model)
    found += [_change(model, "gone") for key, model in listed.items() if key not in now]
    return found


def forgotten(models: Iterable[Model]) -> list[Change]:
    """That these leave the catalog."""
    return [_change(model, "left") for model in models]


def intervals_part(before: Quality, after: Quality) -> bool:
    """Whether two scores have no value in common that might be the true one of both."""
    return after.high < before.low or before.high < after.low


def verification_changes(
    before: Verified | None,
    after: Verified,
    *,
    differ: Callable[[Quality, Quality], bool] = intervals_part,
) -> list[Change]:
    """What a verification found out that the one before it did not.

    `proven` is a capability that was withdrawn, or is shown for the first time in a model that
    was verified before: all that a first verification proves is no news. A score has changed
    only where the two `differ`.
    """
    failed = before is not None and before.verdict == "failed"
    withdrawn = {} if before is None else before.withdrawn
    never = before is None or not (
        before.verdict == "passed" or before.proven or before.withdrawn or before.quality
    )
    proven = after.proven if before is None or never else before.proven
    flags = {} if before is None else before.flags
    found: list[Change] = []
    if after.verdict == "failed" and not failed:
        found.append(_verdict(after, "failed", after=after.reason))
    if after.verdict == "passed" and failed:
        found.append(_verdict(after, "recovered"))
    found += [
        _verdict(after, "withdrawn", capability, after=reason)
        for capability, reason in after.withdrawn.items()
        if capability not in withdrawn
    ]
    found += [
        _verdict(after, "proven", capability)
        for capability in after.proven
        if capability in withdrawn or capability not in proven
    ]
    if before is not None and before.quality is not None and after.quality is not None:
        was, is_now = before.quality, after.quality
        if differ(was, is_now):
            found.append(_verdict(after, "score", before=was.score, after=is_now.score))
    found += [
        _verdict(after, "flagged", flag, after=reason)
        for flag, reason in after.flags.items()
        if flag not in flags
    ]
    found += [_verdict(after, "cleared", flag) for flag in flags if flag not in after.flags]
    return found


def stored(change: Change) -> Columns:
    """The fields in their order, `before` and `after` as JSON: what a database keeps."""
    return (
        change.provider,
        change.model,
        change.kind,
        change.field,
        _encoded(change.before),
        _encoded(change.after),
    )


def restored(columns: Columns) -> Change:
    """The change of which `stored` made these. Lists are tuples, as they were.

    Raises `msgspec.MsgspecError` where they are of no change.
    """
    provider, model, kind, field, *texts = columns
    values = (None if text is None else msgspec.json.decode(text) for text in texts)
    before, after = (tuple(value) if isinstance(value, list) else value for value in values)
    return Change(
        provider=provider,
        model=model,
        kind=msgspec.convert(kind, Kind),
        field=field,
        before=before,
        after=after,
    )


def sentence(change: Change) -> str:
    """The change in plain English, on one line, without a full stop."""
    if change.kind == "changed":
        return f"{change.provider}/{change.model}: {_changed(change)}"
    if change.kind == "score":
        scores = f"{_number(change.before)} -> {_number(change.after)}"
        return f"{change.provider}/{change.model}: quality {scores}"
    reason = " ".join(str(change.after or "").split())
    return _SENTENCES[change.kind].format(
        name=f"{change.provider}/{change.model}",
        field=change.field,
        because=f": {reason}" if reason else "",
    )


def _change(model: Model, kind: Kind) -> Change:
    return Change(provider=model.provider, model=model.id, kind=kind)


def _differences(before: Model, after: Model) -> list[Change]:
    return [
        Change(
            provider=after.provider,
            model=after.id,
            kind="changed",
            field=field,
            before=getattr(before, field),
            after=getattr(after, field),
        )
        for field in FIELDS
        if getattr(before, field) != getattr(after, field)
    ]


def _verdict(
    verified: Verified,
    kind: Kind,
    field: str | None = None,
    *,
    before: float | None = None,
    after: float | str | None = None,
) -> Change:
    return Change(
        provider=verified.provider,
        model=verified.model,
        kind=kind,
        field=field,
        before=before,
        after=after,
    )


def _encoded(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        # A reason may quote whatever a model has said.
        value = value.encode(errors="replace").decode()
    return msgspec.json.encode(value).decode()


def _changed(change: Change) -> str:
    before, after = change.before, change.after
    match change.field:
        case "pricing":
            return _prices(before or {}, after or {})
        case "context_window" | "max_output_tokens":
            title = "context window" if change.field == "context_window" else "longest answer"
            return f"{title} {_number(before)} -> {_number(after)} tokens"
        case "capabilities":
            return _set_apart(before or (), after or ())
        case "modalities":
            return f"modalities {_listed(before)} -> {_listed(after)}"
        case field:
            return f"{field} {before or 'unknown'} -> {after or 'unknown'}"


def _prices(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    parts = []
    for name in dict.fromkeys((*before, *after)):
        was, is_now = before.get(name), after.get(name)
        if was == is_now:
            continue
        title = _PRICES.get(name, f"{name} price")
        piece = name in _PIECES
        was, is_now = (one if piece or one is None else one * MILLION for one in (was, is_now))
        unit = "USD each" if piece else "USD a million tokens"
        parts.append(f"{title} {_number(was)} -> {_number(is_now)} {unit}")
    return ", ".join(parts)


def _set_apart(before: Iterable[str], after: Iterable[str]) -> str:
    gained = [one for one in after if one not in set(before)]
    lost = [one for one in before if one not in set(after)]
    parts = [
        f"{verb} {', '.join(names)}"
        for verb, names in (("gains", gained), ("loses", lost))
        if names
    ]
    return "; ".join(parts)


def _listed(names: Iterable[str] | None) -> str:
    return ", ".join(names or ()) or "unknown"


def _number(value: float | None) -> str:
    """Up to six digits that count; whole numbers with all of theirs."""
    if value is None:
        return "unknown"
    return str(value) if isinstance(value, int) else f"{value:.6g}"
