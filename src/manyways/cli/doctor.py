"""`manyways doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import typer

from manyways.cli import output
from manyways.cli.options import AsJson, ConfigFile

if TYPE_CHECKING:
    from rich.console import Console

    from manyways.cli.checks import Finding, Status
    from manyways.cli.health import Health
    from manyways.config import Settings
    from manyways.types import Provider

_MARKS: Final[dict[Status, tuple[str, str, str]]] = {
    "ok": ("✓", "ok", "green"),
    "warning": ("!", "!", "yellow"),
    "error": ("✗", "x", "red"),
}
_WIDEST: Final = 28  # of the names' column


def doctor(
    *,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Find what is wrong, and say what to do about it.

    Looks at the configuration, the database, Redis, the address, the disk
    and every provider: can it be reached, does it accept the key, which
    models has it?
    Where the gateway runs, it tells what rests, why, and until when.
    Nothing is changed, and no secret is shown.

    Exit status 0: nothing is wrong (✓), though something may deserve a look (!);
    1: something is (✗).
    """
    from manyways import logs

    logs.configure(logs.Settings(level="error"))
    console = None if json or not sys.stdout.isatty() else _console()
    with _progress(console) as progress:
        progress("Looking at this machine", None, None)
        findings, settings, health = _this_machine(config)
        providers = settings.providers if settings else ()
        names = [*(one.name for one in findings), *(f"provider {one.name}" for one in providers)]
        tell = _silent if json else _teller(console, names)
        for finding in findings:
            tell(finding)
        if settings:
            findings += asyncio.run(_ask_providers(settings, tell, progress))
    wrong = sum(one.status == "error" for one in findings)
    if json:
        document = {"ok": not wrong, "checks": findings, "health": health}
        output.document(document)
    else:
        typer.echo(_summary(wrong, sum(one.status == "warning" for one in findings)))
    if wrong:
        raise typer.Exit(1)


def _this_machine(config: Path | None) -> tuple[list[Finding], Settings | None, Health | None]:
    """Everything but the providers. Without settings, what depends on them is left out."""
    from manyways.cli import checks

    configuration, settings = checks.configuration(config)
    findings = [checks.program(), configuration, checks.embedded_model(settings)]
    if settings is None:
        return findings, None, None
    findings.append(checks.database(settings))
    if settings.cluster.redis:
        from manyways.cli import redis_check

        findings.append(asyncio.run(redis_check.look(settings.cluster.redis)))
    findings += [*checks.disk(settings), checks.time_zone(settings)]
    from manyways.cli import server_check

    server, where = server_check.look(settings)
    findings.append(server)
    if where is None:
        return findings, settings, None
    from manyways.cli import health

    keys = {one.name: len(one.api_keys) for one in settings.providers}
    finding, found = health.look(*where, keys)
    return [*findings, finding], settings, found


async def _ask_providers(
    settings: Settings, tell: Callable[[Finding], None], progress: Progress
) -> list[Finding]:
    """All at once; told in the configuration's order, each as soon as its turn has come."""
    from manyways.cli.provider_checks import ProviderChecks
    from manyways.upstream.outlets import Outlets

    providers = settings.providers
    ways = Outlets(settings.upstream)
    checks = ProviderChecks(ways.to, settings.upstream)
    done = 0

    async def check(provider: Provider) -> Finding:
        nonlocal done
        finding = await checks.check(provider)
        done += 1
        progress("Asking the providers", done, len(providers))
        return finding

    progress("Asking the providers", 0, len(providers))
    findings = []
    asked = [asyncio.create_task(check(provider)) for provider in providers]
    # No task group: what telling raises, like a broken pipe, should arrive as it is.
    try:
        for one in asked:
            findings.append(await one)
            tell(findings[-1])
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await ways.aclose()
    return findings


def _silent(_finding: Finding) -> None:
    pass


def _unseen(_doing: str, _done: int | None, _total: int | None) -> None:
    pass


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _teller(console: Console | None, names: Sequence[str]) -> Callable[[Finding], None]:
    """How a finding is told: in colours and columns on a terminal, as plain lines elsewhere."""
    encoding = sys.stdout.encoding if console is None else console.encoding
    spelt = "utf" in (encoding or "").lower()
    arrow = "→" if spelt else ">"

    def tell_plainly(finding: Finding) -> None:
        mark = _MARKS[finding.status][not spelt]
        first, *more = finding.detail.splitlines() or [""]
        advice = [f"{arrow} {finding.advice}"] if finding.advice else []
        typer.echo("\n    ".join([f"{mark} {finding.name}: {first}", *more, *advice]))

    if console is None:
        return tell_plainly
    from rich.table import Table
    from rich.text import Text

    width = min(_WIDEST, max(map(len, names)))

    def tell(finding: Finding) -> None:
        mark, style = _MARKS[finding.status][not spelt], _MARKS[finding.status][2]
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=1)
        table.add_column(width=width, overflow="fold")
        table.add_column(overflow="fold")
        name = Text(finding.name, style="bold")
        table.add_row(Text(mark, style=f"bold {style}"), name, Text(finding.detail))
        if finding.advice:
            table.add_row("", "", Text(f"{arrow} {finding.advice}", style=style))
        console.print(table)

    return tell


def _summary(wrong: int, doubtful: int) -> str:
    if not wrong and not doubtful:
        return "\nEverything is well."
    counts = []
    if wrong:
        counts.append("1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong")
    if doubtful:
        counts.append("1 deserves a look" if doubtful == 1 else f"{doubtful} deserve a look")
    return f"\n{', '.join(counts)}." if wrong else f"\nNothing is wrong, {counts[0]}."


class Progress(Protocol):
    """Says what is being done, and how much of it; nothing where nobody watches."""

    def __call__(self, doing: str, done: int | None, total: int | None, /) -> None: ...


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    if console is None:
        yield _unseen
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), BarColumn(20), TextColumn("{task.description}", style="dim"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(doing: str, done: int | None, total: int | None) -> None:
            count = "" if total is None else f": {done} of {total}"
            bar.update(task, description=f"{doing}{count}", completed=done or 0, total=total)

        yield show
