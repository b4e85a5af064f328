"""`manyways models probe`: one model asked here and now, in front of one's eyes."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from manyways.cli import called, output, records
from manyways.cli.figures import duration
from manyways.cli.models_wording import one_line, printable
from manyways.cli.options import AsJson, ConfigFile
from manyways.errors import ManywaysError

if TYPE_CHECKING:
    from rich.console import Console

    from manyways.catalog.verified import Check

_MARKS: Final = {"passed": "✓", "failed": "✗", "unsure": "?", "skipped": "–"}
_STYLES: Final = {"passed": "green", "failed": "red", "unsure": "yellow", "skipped": "dim"}
_COLUMNS: Final = ("check", "verdict", "ms", "tokens", "reason", "prompt", "answer")
_LINES: Final = 12
"""Lines of an answer that are shown on a terminal; --json has all that is kept."""

_ELSEWHERE: Final = "GET /v1/models lists those there are."
"""What callers are told of a model that is not there; here it is no request that helps."""


def probe(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model, or provider/model: Capi/gpt-4o.")
    ],
    *,
    check: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Only this check, like tools; may be repeated."),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Also the tasks that quality is scored by.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Ask one model what verifications ask, here and now, and show what it says.

    Nothing of it is kept, and no gateway has to run: models refresh is for that.
    Exit status 1 where a check failed.
    """
    from manyways.config import load

    made: list[Check] = []
    try:
        from manyways.app.verifying import probe as asked

        settings = load(config)
        output.quiet_log("error")  # that others do not tell their models is not what was asked
        checks = asked(settings, name, checks=tuple(check or ()), quality=quality)
        asyncio.run(show(checks, made, silent=json))
    except ManywaysError as error:
        lists = f"These there are: {called.line('models list --status all')}"
        typer.echo(str(error).replace(_ELSEWHERE, lists), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(1) from None
    if json:
        output.document(_document(name, made))
    else:
        _conclude(made)
    if any(one.verdict == "failed" for one in made):
        raise typer.Exit(1)


async def show(checks: AsyncIterator[Check], made: list[Check], *, silent: bool) -> None:
    """Each check as it comes."""
    if silent:
        made += [one async for one in checks]
    elif records.on_terminal():
        from rich.console import Console

        console = Console(highlight=False)
        with console.status("Asking …"):
            async for one in checks:
                made.append(one)
                _print(console, one)
    else:
        async for one in checks:
            if not made:  # else a name that is not there would have a heading
                typer.echo("\t".join(_COLUMNS))
            made.append(one)
            typer.echo("\t".join(_cells(one)))


def _print(console: Console, check: Check) -> None:
    from rich.text import Text

    style = _STYLES[check.verdict]
    facts = [duration(check.ms)] if check.ms is not None else []
    if check.first_token_ms is not None:
        facts.append(f"first token {duration(check.first_token_ms)}")
    if check.usage.total_tokens:
        facts.append(f"{check.usage.prompt_tokens} + {check.usage.completion_tokens} tokens")
    head = Text(f"{_MARKS[check.verdict]} {check.name}", f"bold {style}")
    console.print(head, Text(", ".join(facts), "dim"))
    if check.reason:
        console.print(Text(f"  {check.verdict}: {one_line(check.reason)}", style))
    for label, text in (("asked", check.prompt), ("said", check.answer)):
        lines = [
            part
            for line in printable(text).splitlines()
            for part in textwrap.wrap(line, max(20, console.width - 10))
        ]
        for at, line in enumerate(lines[:_LINES]):
            console.print(Text(f"  {label if not at else '':<6}", "dim").append(line, "default"))
        if len(lines) > _LINES:
            console.print(Text(f"        and {len(lines) - _LINES} more lines", "dim"))


def _conclude(made: Sequence[Check]) -> None:
    """What follows, in a few lines."""
    found = conclusions(made)
    if records.on_terminal():
        typer.echo()
    if found["proven"]:
        typer.echo(f"It can: {', '.join(found['proven'])}.", err=True)
    if found["withdrawn"]:
        typer.echo(f"It cannot: {', '.join(found['withdrawn'])}.", err=True)
    if found["latency_ms"] is not None:
        typer.echo(f"Latency: {duration(found['latency_ms'])}.", err=True)
    counts = [
        f"{count} {verdict}"
        for verdict in _MARKS
        if (count := sum(one.verdict == verdict for one in made))
    ]
    typer.echo(f"Checks: {', '.join(counts) or 'none'}.", err=True)


def conclusions(made: Sequence[Check]) -> dict[str, Any]:
    """What is proven, what is not there, and how long one waits for the beginning of an answer:
    the first token of the stream, else the first answer."""
    from manyways.catalog.selection import CAPABILITIES

    able = [one for one in made if one.name in CAPABILITIES]
    answered = [one for one in made if one.verdict == "passed"]
    waits = [one.first_token_ms for one in answered if one.first_token_ms is not None]
    waits += [one.ms for one in answered if one.ms is not None]
    return {
        "proven": [one.name for one in able if one.verdict == "passed"],
        "withdrawn": {one.name: one.reason for one in able if one.verdict == "failed"},
        "latency_ms": waits[0] if waits else None,
    }


def _document(name: str, made: Sequence[Check]) -> dict[str, Any]:
    from manyways.operations.catalog_history import check_document

    return {"model": name, **conclusions(made), "checks": [check_document(one) for one in made]}


def _cells(check: Check) -> tuple[str, ...]:
    return (
        check.name,
        check.verdict,
        "" if check.ms is None else str(check.ms),
        str(check.usage.total_tokens or ""),
        *(one_line(text) for text in (check.reason, check.prompt, check.answer)),
    )
