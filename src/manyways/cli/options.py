"""Options that several commands have, said once so that they mean the same everywhere; and how
`--help` tells of options."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from manyways.cli import called

Function = TypeVar("Function", bound=Callable[..., Any])

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="TOML file; else $MANYWAYS_CONFIG, else ./manyways.toml, else built-in defaults.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

_LIBRARYS: Final = "Value error, "
"""With this, the library that reads options begins what it says of a choice that there is not."""


class Command(TyperCommand):
    """A command whose switches stand in its help by their names alone. The lines to copy that it
    shows name the configuration file that it was given."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _switches_by_name(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as bad:
            bad.message = bad.message.removeprefix(_LIBRARYS)
            raise

    def invoke(self, ctx: Any) -> Any:
        called.config.set(ctx.params.get("config"))
        return super().invoke(ctx)


class CommandGroup(TyperGroup):
    """The same for what has commands below it."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _switches_by_name(super().get_params(ctx))


class Commands(typer.Typer):
    """`typer.Typer` of such commands."""

    def __init__(self, *, cls: type[TyperGroup] = CommandGroup, **options: Any) -> None:
        super().__init__(cls=cls, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        return super().command(name, **{"cls": Command, **options})


def one_at_most(switches: Mapping[str, bool]) -> None:
    """Ends in misuse where two of these were given: one of them would be ignored."""
    given = [name for name, on in switches.items() if on]
    if len(given) > 1:
        raise typer.BadParameter(
            f"it says something else than {given[0]}; give one of them.", param_hint=given[1]
        )


def _switches_by_name(params: list[Any]) -> list[Any]:
    for one in params:
        if getattr(one, "is_flag", False) and one.metavar is None:
            one.metavar = ""
    return params
