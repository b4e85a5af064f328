"""`manyways usage`: on terminals, in pipes, in files."""

import csv
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from manyways.access.keys import Settings as KeySettings
from manyways.cli import app
from manyways.cli.figures import bar, count, duration, money, share, sparkline
from manyways.operations import create_account, create_key
from manyways.store.database import Database, Settings, open_database
from manyways.store.records import COLUMNS
from manyways.usage.record import UsageRecord
from tests.support.terminal import Terminal
from tests.support.usage import fill, refusal, request, some

Command = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "manyways.toml"
    file.write_text(f'[database]\nurl = "sqlite:///{tmp_path}/usage.db"\n')
    return file


@pytest.fixture
def usage(config: Path) -> Command:
    """`manyways usage WORDS... --config FILE`."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["usage", *words, "--config", str(config)])

    return run


@pytest.fixture
def database(tmp_path: Path, config: Path) -> Any:
    database = open_database(Settings(url=f"sqlite:///{tmp_path}/usage.db"))
    yield database
    database.close()


@pytest.fixture
def made(database: Database) -> list[UsageRecord]:
    """Some requests of the latest three days."""
    made = some(200, until=time.time())
    fill(database, made, [refusal(time.time(), count=7)])
    return made


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


class TestReport:
    def test_it_is_what_usage_means(self, usage: Command, made: list[UsageRecord]) -> None:
        short, long = usage("--by", "model", "--json"), usage("report", "--by", "model", "--json")

        assert document(short) == document(long)
        assert document(short)["totals"]["requests"] == len(made)

    @pytest.mark.parametrize(
        "by", ["day", "hour", "model", "provider", "key", "user", "status", "day,model"]
    )
    def test_json_and_csv_say_the_same(
        self, usage: Command, made: list[UsageRecord], by: str
    ) -> None:
        told = document(usage("--by", by, "--last", "96h", "--json"))
        sheet = usage("--by", by, "--last", "96h", "--csv")
        rows = list(csv.DictReader(io.StringIO(sheet.stdout)))

        assert told["group_by"] == by.split(",")
        assert [int(row["requests"]) for row in rows] == [one["requests"] for one in told["data"]]
        assert sum(int(row["requests"]) for row in rows) == len(made)
        assert {row["response_ms_p95"] for row in rows} == {
            "" if (p95 := one["response_ms"]["p95"]) is None else str(p95) for one in told["data"]
        }

    def test_a_pipe_gets_columns_with_tabs_between_them(
        self, usage: Command, made: list[UsageRecord]
    ) -> None:
        names, *rows = [line.split("\t") for line in usage("--by", "provider").stdout.splitlines()]

        assert names[:3] == ["provider", "requests", "errors"]
        assert {row[0] for row in rows} == {"Capi", "Groq"}
        assert {len(row) for row in rows} == {len(names)}

    def test_it_can_be_narrowed(self, usage: Command, database: Database) -> None:
        account = create_account(database, name="Ada", now=time.time())
        key = create_key(database, KeySettings(), "full", account="Ada", now=time.time())
        mine = request(time.time(), api_key_id=key.id, user_id=account.id)
        fill(database, [mine, *some(20, until=time.time())])
        for words in (["--key", key.last4], ["--account", "Ada"]):
            assert document(usage(*words, "--json"))["totals"]["requests"] == 1

        today = datetime.now(UTC).strftime("%Y-%m-%d")
        one = usage("--from", today, "--to", today, "--model", "gpt-4o", "--key", key.id, "--json")
        assert document(one)["totals"]["requests"] == 1

    @pytest.mark.parametrize(
        ("words", "option"),
        [
            (["--by", "colour"], "--by"),
            (["--from", "yesterday"], "--from"),
            (["--to", "never"], "--to"),
            (["--last", "soon"], "--last"),
            (["--last", "7d", "--from", "2026-11-01"], "--last"),
            (["--status", "ok"], "--status"),
            (["--csv", "--json"], "--json"),
            (["records", "--csv", "--jsonl"], "--jsonl"),
            (["records", "--jsonl", "--json"], "--json"),
            (["records", "--csv", "--attempts"], "--attempts"),
            (["records", "--attempts"], "--attempts"),
            (["records", "--limit", "0"], "--limit"),
            (["records", "--last", "7d", "--to", "2026-11-01"], "--last"),
        ],
    )
    def test_what_cannot_be_asked_is_misuse_and_names_the_option(
        self, usage: Command, words: list[str], option: str
    ) -> None:
        wrong = usage(*words)

        assert (wrong.exit_code, wrong.stdout) == (2, "")
        assert option in wrong.stderr

    @pytest.mark.parametrize("words", [["--key", "abcd"], ["--account", "nobody"]])
    def test_who_is_not_there_is_told(self, usage: Command, words: list[str]) -> None:
        wrong = usage(*words)

        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "There is no" in wrong.stderr

    def test_where_nothing_is_it_says_what_to_do(self, usage: Command) -> None:
        nothing = usage()
        assert (nothing.exit_code, nothing.stdout) == (0, "")
        assert "manyways keys create" in nothing.stderr

        narrowed = usage("--model", "none")
        assert "No request matches" in narrowed.stderr
        assert "manyways usage --by model" in narrowed.stderr
        assert document(usage("--json"))["data"] == []


class TestRecords:
    def test_the_newest_come_first_and_a_file_gets_all(
        self, usage: Command, database: Database
    ) -> None:
        made = some(1200, until=time.time())
        fill(database, made)
        newest = sorted((one.id for one in made), reverse=True)

        rows = list(csv.DictReader(io.StringIO(usage("records", "--csv").stdout)))
        assert [*rows[0]] == [*COLUMNS]
        assert [row["id"] for row in rows] == newest
        lines = usage("records", "--jsonl", "--oldest").stdout.splitlines()
        assert [json.loads(line)["id"] for line in lines] == newest[::-1]

    def test_so_many_as_are_wanted(self, usage: Command, made: list[UsageRecord]) -> None:
        newest = sorted((one.id for one in made), reverse=True)

        assert [row["id"] for row in document(usage("records", "--limit", "3", "--json"))] == (
            newest[:3]
        )
        assert len(document(usage("records", "--json"))) == 30

    def test_the_latest_can_be_had(self, usage: Command, database: Database) -> None:
        now = time.time()
        fill(database, [request(now - 60), request(now - 7200)])

        assert len(document(usage("records", "--last", "1h", "--json"))) == 1

    def test_pipes_and_files_say_the_same(self, usage: Command, database: Database) -> None:
        fill(database, [request(time.time(), cost=0.1 + 0.2 - 0.2, stream=True)])
        (row,) = csv.DictReader(io.StringIO(usage("records", "--csv").stdout))
        names, cells = [line.split("\t") for line in usage("records").stdout.splitlines()]

        assert dict(zip(names, cells, strict=True)) == row
        assert (row["stream"], row["cost"]) == ("1", "0.1")

    def test_what_callers_wrote_steers_no_terminal(
        self, usage: Command, database: Database
    ) -> None:
        evil = "\x1b]0;owned\x07\tname\nmore\x9b2J"
        fill(database, [request(time.time(), requested_model=evil, error_message=evil)])
        told = usage("records").stdout

        assert len(told.splitlines()) == 2
        assert "]0;owned name more 2J" in told
        assert not {"\x1b", "\x07", "\x9b"} & set(told)

    def test_attempts_come_on_request(self, usage: Command, made: list[UsageRecord]) -> None:
        (one,) = document(usage("records", "--limit", "1", "--attempts", "--json"))

        assert one["attempt_records"][0]["number"] == 0

    def test_those_that_failed(self, usage: Command, made: list[UsageRecord]) -> None:
        found = document(usage("records", "--failed", "--json", "--limit", "1000"))

        assert {row["status_code"] for row in found} == {400, 503}
        assert len(found) == sum(one.status_code >= 400 for one in made)

    def test_where_nothing_is_it_says_so(self, usage: Command, database: Database) -> None:
        assert "No request has been recorded yet" in usage("records").stderr
        fill(database, [request(time.time())])
        assert "No request matches" in usage("records", "--failed").stderr


@pytest.mark.process
class TestTerminal:
    """A terminal gets tables that fit."""

    def shown(self, config: Path, *words: str) -> list[str]:
        with Terminal(config.parent, "usage", *words, "--config", str(config)) as terminal:
            assert terminal.wait() == 0
            return terminal.text.replace("\r", "").splitlines()

    def test_a_report_is_a_table_with_a_picture(
        self, config: Path, made: list[UsageRecord]
    ) -> None:
        lines = self.shown(config, "--by", "model")
        header = next(line for line in lines if line.startswith("Model"))
        total = next(line for line in lines if line.startswith("Total"))

        assert lines[0].startswith("Usage by model, ")
        assert "Over time" in header
        assert f"{len(made)}" in total
        assert "█" in total
        assert max(map(len, lines)) <= 80

    @pytest.mark.parametrize("by", ["day", "hour", "key", "user", "status", "day,key"])
    def test_every_report_fits(self, config: Path, database: Database, by: str) -> None:
        long = "A company with a name that is longer than anybody would ever want to read [sic]"
        create_account(database, name=long, now=time.time())
        key = create_key(
            database, KeySettings(), "full", note=f"{long}!", account=long, now=time.time()
        )
        fill(database, [request(time.time(), api_key_id=key.id, cost=12_345.678)])

        lines = self.shown(config, "--by", by)
        assert max(map(len, lines)) <= 80
        assert any("$12,345.68" in line for line in lines)

    def test_records_are_a_table(self, config: Path, made: list[UsageRecord]) -> None:
        lines = self.shown(config, "records", "--limit", "5")

        assert lines[0].split() == [
            "Time", "(UTC)", "Key", "Asked", "last", "Status", "In", "Out", "Took", "Cost",
        ]  # fmt: skip
        assert len(lines) == 6
        assert max(map(len, lines)) <= 80


class TestFigures:
    @pytest.mark.parametrize(
        ("told", "words"),
        [
            (count(1234567), "1,234,567"),
            (count(0), "–"),
            (count(None), "–"),
            (share(1, 3), "33.3 %"),
            (share(1, 100_000), "0.1 %"),
            (share(3, 3), "100 %"),
            (share(0, 3), "–"),
            (duration(None), "–"),
            (duration(949.6), "950 ms"),
            (duration(999.9), "1.0 s"),
            (duration(99_940), "99.9 s"),
            (duration(150_000), "2.5 min"),
            (" ".join(money([0.00123, None])), "$0.0012 –"),
            (" ".join(money([1234.5, 0.001])), "$1,234.50 <$0.01"),
            (sparkline([0, 1, 4, 8], 10), " ▂▅█"),
            (sparkline([1] * 9, 4), "███"),
            (sparkline([], 4), ""),
            (bar(8, 8, 4), "████"),
            (bar(1, 8, 4), "▌"),
            (bar(1, 10_000, 4), "▏"),
            (bar(0, 8, 4), ""),
        ],
    )
    def test_figures_read_well(self, told: str, words: str) -> None:
        assert told == words
