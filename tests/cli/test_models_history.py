"""`manyways models diff` and `models incidents`, on a database with a past."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
import typer
from typer.testing import CliRunner, Result

from manyways.cli import models_history
from manyways.cli.models import app
from manyways.store.database import Database, Settings, open_database
from tests.cli.listing import on_terminal
from tests.support.verifications import change, incident

pytestmark = pytest.mark.usefixtures("empty_folder")

DAY = 86400
NOW = int(time.time())
NOON = NOW // DAY * DAY - DAY // 2  # yesterday's


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(Settings())
    yield database
    database.close()


def run(*arguments: str) -> Result:
    root = typer.Typer()
    root.add_typer(app, name="models")
    return CliRunner().invoke(root, ["models", *arguments])


def rows(*arguments: str) -> list[list[str]]:
    done = run(*arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    return [line.split("\t") for line in done.stdout.splitlines()]


def iso(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def shown(
    capsys: pytest.CaptureFixture[str], command: Callable[..., None], columns: int = 100
) -> list[str]:
    """What a command shows on a terminal so wide."""
    with pytest.MonkeyPatch.context() as patch:
        on_terminal(patch, columns)
        command()
    return capsys.readouterr().out.splitlines()


# diff


def test_a_pipe_gets_a_line_a_change_the_newest_last(database: Database) -> None:
    change(database, "gpt-4o", at=NOON, field="context_window", before=8192, after=128000)
    change(database, "flux\x1b[2J", at=NOON - 60, field="category", before="text", after="image")
    header, first, last = rows("diff")

    assert header == ["at", "provider", "model", "kind", "field", "text"]
    assert first[:5] == [iso(NOON - 60), "Capi", "flux [2J", "changed", "category"]
    assert last[:5] == [iso(NOON), "Capi", "gpt-4o", "changed", "context_window"]
    assert "gpt-4o" in last[5]


def test_json_is_all_that_is_known_of_each_change(database: Database) -> None:
    change(database, "gpt-4o", at=NOON, before=8192, after=128000)
    (told,) = json.loads(run("diff", "--json").stdout)

    assert (told["object"], told["before"], told["after"]) == ("catalog.change", 8192, 128000)


def test_a_terminal_gets_the_history_day_by_day(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    change(database, "[bold]a[/bold]", at=NOON - DAY)
    change(database, "b", at=NOON)
    change(database, "c", at=NOON + 60)
    lines = shown(capsys, models_history.diff)

    def day(moment: int) -> str:
        return time.strftime("%Y-%m-%d %A", time.gmtime(moment))

    assert [lines[0], lines[2], lines[3]] == [day(NOON - DAY), "", day(NOON)]
    assert lines[1].startswith("  12:00  ")
    assert "[bold]a[/bold]" in lines[1]
    assert [line[:9] for line in lines[4:6]] == ["  12:00  ", "  12:01  "]
    assert lines[-1] == "Times are UTC."


def test_only_what_is_asked_for_is_told(database: Database) -> None:
    change(database, "old", at=NOW - 9 * DAY)
    change(database, "a", at=NOW - 60)
    change(database, "a", provider="Space", at=NOW - 50)

    def models(*arguments: str) -> list[str]:
        return [f"{row[1]}/{row[2]}" for row in rows("diff", *arguments)[1:]]

    assert models() == ["Capi/a", "Space/a"]
    assert models("--provider", "Space") == ["Space/a"]
    assert models("--model", "a") == ["Capi/a", "Space/a"]
    assert models("--since", "2w", "--provider", "Capi") == ["Capi/old", "Capi/a"]
    assert models("--since", iso(NOW - 55)) == ["Space/a"]


def test_a_long_history_is_told_whole(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(7):
        change(database, f"m{at}", at=NOON + at)
    monkeypatch.setattr(models_history, "PAGE", 3)

    assert [row[2] for row in rows("diff")[1:]] == [f"m{at}" for at in range(7)]


def test_where_nothing_has_changed_it_says_how_to_look_further_back(database: Database) -> None:
    done = run("diff")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "Nothing has changed in the last 7d. To look further back: --since 4w" in done.stderr
    assert run("diff", "--json").stdout == "[]\n"


@pytest.mark.parametrize("command", ["diff", "incidents"])
def test_what_is_no_time_is_misuse(command: str) -> None:
    done = run(command, "--since", "soon")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "--since" in done.stderr


# incidents


def test_a_pipe_gets_a_line_an_incident_the_newest_first(database: Database) -> None:
    incident(database, "gpt-4o", began=NOON, ended=NOON + 90, credential=1, why="HTTP\n429")
    incident(database, "", began=NOON + 60, source="list", why="it does not answer")

    assert rows("incidents") == [
        ["began_at", "ended_at", "provider", "model", "key", "source", "why"],
        [iso(NOON + 60), "", "Capi", "", "", "list", "it does not answer"],
        [iso(NOON), iso(NOON + 90), "Capi", "gpt-4o", "2", "traffic", "HTTP 429"],
    ]


def test_a_terminal_gets_a_table_with_how_long_it_lasted(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    incident(database, "gpt-4o", began=NOON, ended=NOON + 90, credential=1, why="HTTP 429")
    incident(database, "", began=int(time.time()) - 5 * 3600, why="connection refused")
    header, goes_on, over = shown(capsys, models_history.incidents)

    assert header.split() == ["Began", "(UTC)", "Lasted", "Who", "Why", "Seen", "by"]
    assert "5.0 h…  Capi   " in goes_on
    assert "1.5 min  Capi/gpt-4o, key 2  HTTP 429" in over


def test_what_goes_on_is_told_however_long_ago_it_began(database: Database) -> None:
    incident(database, "a", began=NOW - 30 * DAY)
    incident(database, "b", began=NOW - 60, ended=NOW - 30)
    incident(database, "c", began=NOW - 30 * DAY, ended=NOW - 29 * DAY)

    assert [row[3] for row in rows("incidents", "--open")[1:]] == ["a"]
    assert [row[3] for row in rows("incidents")[1:]] == ["b", "a"]


def test_where_all_goes_well_it_says_so(database: Database) -> None:
    assert "There is no incident that goes on." in run("incidents", "--open").stderr
    assert "No incident in the last 7d. To look" in run("incidents").stderr
    assert "No incident since 2026-01-31. To" in run("incidents", "--since", "2026-01-31").stderr
