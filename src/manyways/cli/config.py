"""`manyways config`: is the configuration right, and what is in effect?"""

import tomllib

import typer

from manyways.cli import output
from manyways.cli.options import AsJson, Commands, ConfigFile
from manyways.config import ConfigProblems, Problem, Settings, doubts, load, show
from manyways.upstream.outlets import Inherited, inherited

app = Commands(no_args_is_help=True, help="Check the configuration, or show what is in effect.")


@app.command()
def check(*, config: ConfigFile = None, json: AsJson = False) -> None:
    """Say whether the configuration can be used, or else all that is wrong.

    Nothing is started and no provider is asked. Exit status 0: fine, though
    something may be worth a look; 1: it has problems.
    """
    try:
        settings = load(config)
    except ConfigProblems as wrong:
        if json:
            output.document({"ok": False, "problems": wrong.problems})
        else:
            typer.echo(_told(wrong.problems), err=True)
        raise typer.Exit(1) from None
    if json:
        output.document(
            {
                "ok": True,
                "file": settings.file,
                "problems": (),
                "doubts": doubts(settings),
                "not_yet": settings.not_yet,
                "providers": tuple(provider.name for provider in settings.providers),
                "proxies": _proxies_as_values(settings),
            }
        )
    else:
        typer.echo(_fine(settings))


@app.command(name="show")
def show_(*, config: ConfigFile = None, json: AsJson = False) -> None:
    """Print the configuration in effect as TOML, defaults included and secrets masked.

    A comment beside each setting that was given says where.
    """
    try:
        settings = load(config)
    except ConfigProblems as wrong:
        if json:
            output.document({"ok": False, "problems": wrong.problems})
        else:
            typer.echo(_told(wrong.problems), err=True)
        raise typer.Exit(1) from None
    text = show(settings)
    if json:
        output.document(
            {
                "file": settings.file,
                "settings": tomllib.loads(text),
                "origins": settings.origins,
                "proxies": _proxies_as_values(settings),
            }
        )
    else:
        typer.echo("".join(f"# {words}\n" for words in _proxies(settings)) + text, nl=False)


def _proxies(settings: Settings) -> tuple[Inherited, ...]:
    """What only the environment of this command says: the gateway's may be another."""
    return inherited(settings.providers, settings.upstream)


def _proxies_as_values(settings: Settings) -> list[dict[str, object]]:
    """The same for programs: host and port of each, without user and password."""
    return [
        {"proxy": str(one.proxy), "variable": one.variable, "providers": one.providers}
        for one in _proxies(settings)
    ]


def _fine(settings: Settings) -> str:
    names = ", ".join(f"{one.name} ({one.protocol})" for one in settings.providers)
    if settings.file is None:
        lines = [f"No configuration file: the built-in defaults apply. Providers: {names}."]
    else:
        lines = [f"{settings.file} is fine. Providers: {names}."]
    lines += [f"{words}." for words in _proxies(settings)]
    lines += [f"Worth a look: {words}." for words in doubts(settings)]
    if settings.not_yet:
        lines.append("These settings are accepted, but have no effect in this version:")
        lines += [f"  {words}" for words in settings.not_yet]
    return "\n".join(lines)


def _told(problems: tuple[Problem, ...]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([*(str(problem) for problem in problems), f"{count} found."])
