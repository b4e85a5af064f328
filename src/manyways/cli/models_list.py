"""`manyways models list`: the models there are, and what is known of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import typer
from msgspec import Struct

from manyways.cli import called, output, records
from manyways.cli.models_source import Filters, Listed, ModelRow, listed
from manyways.cli.models_wording import one_line
from manyways.cli.options import AsJson, ConfigFile
from manyways.errors import ManywaysError, StoreError
from manyways.types import Capability, Category

if TYPE_CHECKING:
    from manyways.config import Settings

Sorting = Literal["name", "provider", "latency", "quality", "context", "verified"]
Shown = Literal["active", "degraded", "down", "all"]

PAST: Final = 30 * 86400
"""Seconds back to which latencies are pictured."""

_COLUMNS: Final = (
    "model", "provider", "category", "context", "latency", "quality", "verified", "status", "flags",
)  # fmt: skip


class Past(Struct, frozen=True):
    """What the database knows of a model: the latencies of its verifications, the oldest first,
    `None` where it did not answer; and what is suspicious about it, with the reasons."""

    latencies: Sequence[int | None] = ()
    flags: dict[str, str] = {}


Known = dict[tuple[str, str], Past]
"""By provider and model."""


def _listed(choices: object) -> str:
    """The words of a `Literal`, for help."""
    *first, last = get_args(choices)
    return f"{', '.join(first)} or {last}"


def list_(
    *,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's models.")
    ] = None,
    category: Annotated[
        Category | None,
        typer.Option(metavar="KIND", help=f"Only models of this kind: {_listed(Category)}."),
    ] = None,
    capability: Annotated[
        Capability | None,
        typer.Option(metavar="WHAT", help=f"Only models that can do this: {_listed(Capability)}."),
    ] = None,
    status: Annotated[
        Shown | None,
        typer.Option(
            metavar="STATUS",
            help=f"Only models that do so: {_listed(Shown)}; else all that are not down.",
        ),
    ] = None,
    sort: Annotated[
        Sorting | None,
        typer.Option(
            metavar="BY",
            help=f"By {_listed(Sorting)}: the quickest, the best, the longest context, the latest"
            " first. Else as the gateway has them.",
        ),
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The gateway to ask, like https://llm.example.com; else the one that serves the"
            " configured database.",
        ),
    ] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the models there are, and what is known of them.

    The running gateway is asked. If none runs, what the configuration itself
    lists is shown instead, and it says so. The picture beside the latency is of
    the latest verifications; it and the flags are in the configured database,
    so --url is without them.

    On a terminal as a table, elsewhere as lines with tabs between the columns.
    """
    from manyways.config import load

    filters: Filters = {
        "provider": provider,
        "category": category,
        "capability": capability,
        "status": "all" if status in ("down", "all") else None,
    }
    try:
        settings = load(config)
        found = listed(settings, url, filters)
        known = _known(settings) if url is None else {}
    except ManywaysError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    order = _order(found.rows, status, sort, reverse=reverse)
    if json:
        _print_json(found, order, known, narrowed=status is not None or sort is not None)
    elif order:
        _print([found.rows[at] for at in order], known)
    else:
        narrowed = any((provider, category, capability, status))
        typer.echo(
            "No model matches."
            if narrowed
            else f"There are no models yet. Which provider fails, and why: {called.line('doctor')}",
            err=True,
        )


def _known(settings: Settings) -> Known:
    """What the database knows, as far as there is one: a list is a list without it, too."""
    from manyways.operations.catalog import flags, latencies
    from manyways.store.database import is_there, open_database

    if not is_there(settings.database):
        return {}
    since = int(time.time()) - PAST
    try:
        database = open_database(settings.database)
        try:
            past = database.run(lambda connection: latencies(connection, since=since))
            suspicious = database.run(flags)
        finally:
            database.close()
    except StoreError:
        return {}
    return {
        name: Past(past.get(name, ()), suspicious.get(name, {})) for name in {*past, *suspicious}
    }


def _order(
    rows: Sequence[ModelRow], status: Shown | None, sort: Sorting | None, *, reverse: bool
) -> list[int]:
    """Which rows are shown, in their order. What is not known stands last, however it is sorted."""
    shown = [at for at, row in enumerate(rows) if status in (None, "all") or row.status == status]
    if sort is None:
        return shown[::-1] if reverse else shown
    value, downwards = _SORTINGS[sort]
    known = [at for at in shown if value(rows[at]) is not None]
    unknown = [at for at in shown if value(rows[at]) is None]
    known.sort(key=lambda at: value(rows[at]), reverse=downwards is not reverse)
    return known + unknown


_SORTINGS: Final[dict[Sorting, tuple[Callable[[ModelRow], Any], bool]]] = {
    "name": (lambda row: row.id.casefold(), False),
    "provider": (lambda row: (row.provider.casefold(), row.id.casefold()), False),
    "latency": (lambda row: row.latency_ms, False),
    "quality": (lambda row: row.quality_score, True),
    "context": (lambda row: row.context_window, True),
    "verified": (lambda row: row.last_verified, True),
}


def _print_json(found: Listed, order: Sequence[int], known: Known, *, narrowed: bool) -> None:
    document = found.document
    data = [document["data"][at] for at in order]
    for row in data:
        past = known.get((str(row.get("provider")), row["id"]))
        if past is not None:
            row |= {"flags": past.flags, "latencies_ms": list(past.latencies)}
    meta = document.get("meta")
    meta = {**(meta if isinstance(meta, dict) else {}), "source": found.source}
    if narrowed:
        meta["total_models"] = len(data)
    output.document({**document, "data": data, "meta": meta})


def _print(rows: Sequence[ModelRow], known: Known) -> None:
    if records.on_terminal():
        from manyways.cli.models_table import show_models

        show_models(rows, known, now=time.time())
        return
    records.lines(
        _COLUMNS,
        (
            (
                one_line(row.id),
                row.provider,
                row.category,
                "" if row.context_window is None else f"{row.context_window:,}",
                "" if row.latency_ms is None else f"{row.latency_ms / 1000:.2g} s",
                "" if row.quality_score is None else f"{row.quality_score:.1f}",
                row.last_verified or "",
                row.status,
                ",".join(known.get((row.provider, row.id), Past()).flags),
            )
            for row in rows
        ),
    )
