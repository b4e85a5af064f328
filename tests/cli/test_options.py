"""Options stand in `--help` as people know them."""

from collections.abc import Iterator

import pytest
import typer.main
from typer.core import TyperGroup
from typer.testing import CliRunner

from manyways.cli import app


def commands(command: object, *words: str) -> Iterator[list[str]]:
    yield [*words]
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from commands(below, *words, name)


@pytest.mark.parametrize("words", [*commands(typer.main.get_command(app))], ids=" ".join)
def test_switches_stand_by_their_names_alone(words: list[str]) -> None:
    told = CliRunner().invoke(app, [*words, "--help"])

    assert told.exit_code == 0
    assert "--help" in told.stdout
    assert "<bool>" not in told.stdout
