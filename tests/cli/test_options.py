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


BELOW = [words for words in commands(typer.main.get_command(app)) if words]


@pytest.mark.parametrize("words", [*commands(typer.main.get_command(app))], ids=" ".join)
def test_help_is_in_words(words: list[str]) -> None:
    told = CliRunner().invoke(app, [*words, "--help"])

    assert told.exit_code == 0
    assert "--help" in told.stdout
    assert "<bool>" not in told.stdout
    assert "range>" not in told.stdout
    assert "|" not in told.stdout.replace("│", "")  # choices are words of the help, not of a type
    assert "{" not in told.stdout


@pytest.mark.parametrize("words", BELOW, ids=" ".join)
def test_what_a_command_does_is_told_in_lines_that_fit_into_80_columns(words: list[str]) -> None:
    """Text behind the first paragraph is shown line by line; a longer line would be broken."""
    command = typer.main.get_command(app)
    for word in words:
        assert isinstance(command, TyperGroup)
        command = command.commands[word]
    _, _, more = (command.help or "").partition("\n\n")

    assert [line for line in more.splitlines() if len(line) > 78] == []


def test_a_choice_that_there_is_not_is_told_without_a_librarys_words() -> None:
    told = CliRunner().invoke(app, ["models", "list", "--category", "foo"])

    assert told.exit_code == 2
    assert "Invalid value for '--category': 'foo' is not one of 'text'" in told.stderr
