"""`manyways models refresh`: has models verified, and tells how that goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from manyways.cli import called, output, records
from manyways.cli.address import running
from manyways.cli.figures import money
from manyways.cli.models_progress import Tell, telling
from manyways.cli.models_source import NoList, served
from manyways.cli.models_wording import one_line
from manyways.cli.options import AsJson, ConfigFile
from manyways.errors import ManywaysError, Refusal

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.operations.catalog import Progress, Scope
    from manyways.store.database import Database
    from manyways.verification.run import Progress as RunProgress

LOOK: Final = 0.5
"""Seconds between two looks at how far it is."""
LIMIT: Final = 10.0
"""Seconds for one look."""


class Abandoned(ManywaysError):
    """Nobody carries out the verification any more."""


def refresh(
    *,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's models.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this model, wherever it is; or provider/model."),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait for its end; a running gateway does it.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Verify models now: each is really asked, and what it claims is proven or withdrawn.

    The running gateway does it, and goes on when this command is interrupted.
    If none runs, it is done here. Where the same is being verified already,
    this tells how that goes. Quality is scored where the last score is old.
    Exit status 1 where there was no model to verify.
    """
    with records.opened(config) as (database, settings):
        beside = _beside(settings, database)
        scope = _scope(settings, beside, provider, model)
        again = called.line(f"models refresh{_flags(provider, model)}")
        try:
            if beside is not None:
                run_id = _asked_for(database, settings, scope, wait=not no_wait)
            elif no_wait:
                raise Abandoned(
                    "No gateway runs here that could do it: leave --no-wait out, or start one with:"
                    f" {called.line('serve')}"
                )
            else:
                output.quiet_log()
                with telling() as tell:
                    run_id = asyncio.run(_here(database, settings, scope, tell))
        except KeyboardInterrupt:
            told = (
                "Stopped. What was found out is kept; go on with:"
                if beside is None
                else "The gateway goes on with it. See how far it is with:"
            )
            typer.echo(f"{told} {again}", err=True)
            raise typer.Exit(1) from None
        _end(database, run_id, waited=not no_wait, json=json)


async def follow(
    look: Callable[[], Awaitable[Progress | None]],
    tell: Tell,
    *,
    alive: Callable[[], bool] = lambda: True,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Progress:
    """How a run ends: looked at until then. Raises `Abandoned` where nobody is `alive` who would
    carry it out, and what `look` raises."""
    while True:
        somebody = alive()
        found = await look()
        if found is None:
            raise Abandoned("The verification is not in the database any more.")
        tell(found)
        if found.status != "running":
            return found
        if not somebody:
            raise Abandoned(
                "The gateway has stopped. It goes on with the verification when it is started"
                f" again: {called.line('serve')}"
            )
        await sleep(LOOK)


def _asked_for(database: Database, settings: Settings, scope: Scope, *, wait: bool) -> str:
    """The id of a run that the running gateway carries out; once it is over, if to `wait`."""
    from manyways.operations import catalog

    run_id = catalog.refresh(database, scope, now=time.time()).id
    if wait:

        async def look() -> Progress | None:
            return await database.call(
                lambda connection: catalog.progress(connection, run_id), limit=LIMIT
            )

        def alive() -> bool:
            return database.shared or running(settings) is not None

        with telling() as tell:
            asyncio.run(follow(look, tell, alive=alive))
    return run_id


async def _here(database: Database, settings: Settings, scope: Scope, tell: Tell) -> str:
    """The id of a run that this process has carried out."""
    from manyways.app.verifying import verify_here
    from manyways.operations import catalog

    def told(so_far: RunProgress) -> None:
        tell(
            catalog.Progress(
                status="running",
                models=so_far.models,
                done=so_far.done,
                failed=so_far.counts.get("failed", 0),
                current=so_far.current,
                cost=so_far.cost,
            )
        )

    run_id: str = await verify_here(
        settings,
        database,
        provider=scope.provider,
        model=scope.model,
        reason=catalog.ASKED,
        progress=told,
    )
    return run_id


def _beside(settings: Settings, database: Database) -> frozenset[tuple[str, str]] | None:
    """The models (provider, id) of the gateway that serves this database; `None` where none
    does. A server elsewhere can be known only at the configured address."""
    if not database.shared and running(settings) is None:
        return None
    found = served(settings)
    if found is None and not database.shared:
        raise NoList("The gateway that serves this database does not answer (yet). Try again.")
    return None if found is None else frozenset((row.provider, row.id) for row in found.rows)


def _scope(
    settings: Settings,
    models: frozenset[tuple[str, str]] | None,
    provider: str | None,
    model: str | None,
) -> Scope:
    """What is to be verified. Raises `Refusal` where there is no such thing, as far as that is
    known."""
    from manyways.catalog.selection import unknown_provider
    from manyways.catalog.snapshot import Snapshot
    from manyways.operations.catalog import Scope

    names = tuple(one.name for one in settings.providers)
    if provider is not None and provider not in names:
        raise unknown_provider(Snapshot(provider_names=names), provider, param="provider")
    if model is not None:
        before, slash, rest = model.partition("/")
        exact = models is not None and any(name == model for _, name in models)
        if slash and not exact and before in names and provider in (None, before):
            provider, model = before, rest
        if models is not None:
            _see_that_it_is_there(models, provider, model)
    return Scope(provider=provider, model=model)


def _see_that_it_is_there(
    models: frozenset[tuple[str, str]], provider: str | None, model: str
) -> None:
    from manyways.operations.wording import near_names

    found = sorted({name for owner, name in models if provider in (None, owner)})
    if model not in found:
        whose = "no model" if provider is None else f"no model of {provider}'s"
        near = near_names(model, found)
        raise Refusal(
            "model_not_found",
            f"There is {whose} {model!r}. {near}".rstrip()
            + f"\nThese there are: {called.line('models list --status all')}",
        )


def _end(database: Database, run_id: str, *, waited: bool, json: bool) -> None:
    """Tell what came of it. Ends with status 1 where it failed."""
    from manyways.operations.catalog import refresh_status

    found = refresh_status(database, run_id)
    if found is None:
        raise Abandoned("The verification is not in the database any more.")
    if json:
        output.document(found if waited else {"id": found["id"], "status": found["status"]})
    elif waited:
        _print_outcome(found)
    else:
        typer.echo(found["id"])
    if found["status"] == "failed":
        if not json:
            typer.echo(f"The verification failed: {found['problem']}", err=True)
        raise typer.Exit(1)
    if waited and not found["counts"]["done"]:
        raise typer.Exit(1)  # nothing has been verified


def _print_outcome(found: Mapping[str, Any]) -> None:
    counts = found["counts"]
    parts = [
        f"{counts[verdict]:,} {verdict}"
        for verdict in ("passed", "failed", "unsure", "skipped")
        if counts[verdict]
    ]
    if not counts["done"]:
        typer.echo(
            "There are no models to verify. Which provider fails, and why:"
            f" {called.line('doctor')}",
            err=True,
        )
        return
    cost = f"; {money([found['cost_usd']])[0]}" if found["cost_usd"] else ""
    many = "1 model" if counts["done"] == 1 else f"{counts['done']:,} models"
    typer.echo(f"{many}: {', '.join(parts)}{cost}.", err=True)
    rows = [tuple(map(one_line, row)) for row in _remarks(found["results"])]
    if not rows:
        return
    if not records.on_terminal():
        records.lines(("provider", "model", "what", "reason"), rows)
        return
    from rich.console import Console

    from manyways.cli.figures import Column, show

    console = Console(highlight=False)
    names = [f"{provider}/{model}" for provider, model, _, _ in rows]
    console.print()
    show(
        console,
        [
            Column("Model", names, 0, left=True, elastic=True),
            Column("What", [what for _, _, what, _ in rows], 0, left=True),
            Column("Why", [why for *_, why in rows], 0, left=True, elastic=True),
        ],
        total=False,
    )


def _remarks(results: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """What somebody should know of: provider, model, what it is, and why."""
    for one in results:
        who = (one["provider"], one["model"])
        if one["verdict"] != "passed":
            yield *who, one["verdict"], one["reason"] or ""
        for capability, reason in one["withdrawn"].items():
            yield *who, f"no {capability}", reason
        for flag, reason in one["flags"].items():
            yield *who, flag, reason


def _flags(provider: str | None, model: str | None) -> str:
    import shlex

    given = {"--provider": provider, "--model": model}
    return "".join(
        f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None
    )
