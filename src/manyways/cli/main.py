"""`manyways`: the commands, put together."""

from typing import Annotated, Final

import typer

from manyways import __version__
from manyways.cli import accounts, called, config, keys, models, usage
from manyways.cli.chat import chat
from manyways.cli.doctor import doctor
from manyways.cli.options import Commands
from manyways.cli.serve import serve

_START: Final = f"{called.program()} serve".replace("[", r"\[")  # which is markup elsewhere

app = Commands(
    name="manyways",
    help=(
        "One API key, many ways to an answer: a self-hosted LLM gateway.\n\n"
        f"Start with [bold]{_START}[/bold]: it needs no configuration, brings a small model"
        " of its own, and prints a key with a line to paste."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(chat)
app.add_typer(keys.app, name="keys")
app.add_typer(accounts.app, name="accounts")
app.add_typer(models.app, name="models")
app.add_typer(usage.app, name="usage")
app.add_typer(config.app, name="config")
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"manyways {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
