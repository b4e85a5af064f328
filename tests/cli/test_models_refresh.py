"""`manyways models refresh`, beside a server that does what it is asked for."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from manyways.catalog.verified import Check, Verified
from manyways.cli import models_refresh
from manyways.cli.models import app
from manyways.cli.models_refresh import Abandoned, follow, refresh
from manyways.operations.catalog import Progress
from manyways.store import verifications
from manyways.store.database import Database, Settings, open_database
from tests.cli.listing import Gateway, configured, on_terminal
from tests.support.gateway import run_command
from tests.support.terminal import INTERRUPT, Terminal
from tests.support.verifications import found, save, save_checks

pytestmark = pytest.mark.usefixtures("empty_folder")

FOUND = (
    found("gpt-4o", withdrawn={"vision": "it names no\ncolour"}, flags={"drift": "it is odd"}),
    found("[bold]flux", verdict="failed", reason="HTTP 500: overloaded", cost=0.25),
    found("llama-3", provider="Space"),
)


class Server:
    """The process that serves the database of the current folder, or would."""

    def __init__(self) -> None:
        self.database: Database = open_database(Settings())

    def serve(self, gateway: Gateway) -> None:
        self.database.lock_for_serving()
        self.database.announce(f"http://127.0.0.1:{gateway.server_port}")

    def runs(self) -> list[dict[str, str | None]]:
        """The scopes of what was asked for, the newest first."""
        found = self.database.run(lambda one: verifications.runs(one, 9))
        return [json.loads(row.scope) for row in found]

    def begin(self, *, models: int, at_work: str) -> None:
        """It has begun what it was asked for, and asks one of Capi's models."""
        (run,) = self.database.run(verifications.unfinished)
        save_checks(self.database, run.id, found(at_work), Check(name="answers", verdict="passed"))
        self.database.run(
            lambda one: verifications.begin_run(one, run.id, models=models, now=int(time.time())),
            write=True,
        )

    @contextmanager
    def verifying(self, *rows: Verified, problem: str | None = None) -> Iterator[None]:
        """While this lasts, the next run that is asked for ends like this."""
        over = threading.Event()

        def verify() -> None:
            while not over.wait(0.005):
                for run in self.database.run(verifications.unfinished):
                    save(self.database, run.id, *rows)
                    self._end(run.id, problem)
                    return

        thread = threading.Thread(target=verify)
        thread.start()
        yield
        over.set()
        thread.join()

    def _end(self, run_id: str, problem: str | None) -> None:
        self.database.run(
            lambda one: verifications.end_run(one, run_id, problem=problem, now=int(time.time()))
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> Iterator[Server]:
    configured(gateway.server_port)
    monkeypatch.setattr(models_refresh, "LOOK", 0.01)
    server = Server()
    yield server
    server.database.close()


def run(*arguments: str) -> Result:
    root = typer.Typer()
    root.add_typer(app, name="models")
    return CliRunner().invoke(root, ["models", "refresh", *arguments])


def test_the_running_gateway_does_it_and_what_it_found_is_summed_up(
    server: Server, gateway: Gateway
) -> None:
    server.serve(gateway)
    with server.verifying(*FOUND):
        done = run()

    assert done.exit_code == 0
    assert server.runs() == [{"provider": None, "model": None}]
    assert done.stderr.splitlines()[-1] == "3 models: 2 passed, 1 failed; $0.2500."
    assert done.stdout.splitlines() == [
        "provider\tmodel\twhat\treason",
        "Capi\t[bold]flux\tfailed\tHTTP 500: overloaded",
        "Capi\tgpt-4o\tno vision\tit names no colour",
        "Capi\tgpt-4o\tdrift\tit is odd",
    ]


def test_where_all_is_well_there_is_no_more_to_say(server: Server, gateway: Gateway) -> None:
    server.serve(gateway)
    with server.verifying(found("gpt-4o")):
        done = run("--model", "gpt-4o")

    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "1 model: 1 passed."


def test_json_is_the_document_that_the_gateway_has(server: Server, gateway: Gateway) -> None:
    server.serve(gateway)
    with server.verifying(*FOUND):
        document = json.loads(run("--json").stdout)

    assert (document["status"], document["counts"]["failed"]) == ("done", 1)
    assert [row["model"] for row in document["results"]] == ["[bold]flux", "gpt-4o", "llama-3"]


def test_a_verification_that_fails_is_status_1(server: Server, gateway: Gateway) -> None:
    server.serve(gateway)
    with server.verifying(problem="the budget is spent"):
        done = run()

    assert done.exit_code == 1
    assert "The verification failed: the budget is spent" in done.stderr


def test_on_a_terminal_the_outcome_is_a_table(
    server: Server,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.serve(gateway)
    on_terminal(monkeypatch, 80)
    with server.verifying(*FOUND):
        refresh()
    lines = capsys.readouterr().out.splitlines()

    assert lines[1].split() == ["Model", "What", "Why"]
    assert lines[2].split() == ["Capi/[bold]flux", "failed", "HTTP", "500:", "overloaded"]
    assert max(map(len, lines)) <= 80


def test_nobody_has_to_wait_for_it(server: Server, gateway: Gateway) -> None:
    server.serve(gateway)
    first = run("--no-wait", "--provider", "Capi")
    again = run("--no-wait", "--provider", "Capi", "--json")

    assert (first.exit_code, first.stderr) == (0, "")
    assert json.loads(again.stdout) == {"id": first.stdout.strip(), "status": "running"}
    assert server.runs() == [{"provider": "Capi", "model": None}]


@pytest.mark.parametrize(
    ("arguments", "scope"),
    [
        (("--model", "gpt-4o"), {"provider": None, "model": "gpt-4o"}),
        (("--model", "Capi/gpt-4o"), {"provider": "Capi", "model": "gpt-4o"}),
        (
            ("--provider", "Capi", "--model", "Capi/gpt-4o"),
            {"provider": "Capi", "model": "gpt-4o"},
        ),
    ],
)
def test_a_model_is_named_as_callers_name_it(
    server: Server, gateway: Gateway, arguments: tuple[str, ...], scope: dict[str, str | None]
) -> None:
    server.serve(gateway)
    assert run("--no-wait", *arguments).exit_code == 0
    assert server.runs() == [scope]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--provider", "Kapi"), "no provider 'Kapi'. Known providers: Capi, Listed."),
        (("--model", "gpt-4"), "no model 'gpt-4'. Did you mean 'gpt-4o'?"),
        (("--provider", "Listed", "--model", "gpt-4o"), "no model of Listed's 'gpt-4o'."),
    ],
)
def test_what_there_is_not_is_not_asked_for(
    server: Server, gateway: Gateway, arguments: tuple[str, ...], told: str
) -> None:
    server.serve(gateway)
    done = run(*arguments)

    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr
    assert server.runs() == []


def test_without_a_gateway_somebody_has_to_wait(server: Server) -> None:
    done = run("--no-wait")

    assert done.exit_code == 1
    assert "No gateway runs here" in done.stderr
    assert server.runs() == []


def test_a_gateway_that_does_not_listen_yet_is_no_gateway_to_work_beside(
    server: Server, closed_port: int
) -> None:
    server.database.lock_for_serving()
    server.database.announce(f"http://127.0.0.1:{closed_port}")
    done = run()

    assert done.exit_code == 1
    assert "does not answer (yet)" in done.stderr


@pytest.mark.process
def test_interrupted_it_leaves_the_work_to_the_gateway(
    server: Server, gateway: Gateway, empty_folder: Path
) -> None:
    server.serve(gateway)
    with Terminal(empty_folder, "models", "refresh", "--provider", "Capi") as terminal:
        terminal.expect("waiting for its turn")
        terminal.keys(INTERRUPT)
        terminal.expect("The gateway goes on with it.")
        terminal.expect("manyways models refresh --provider Capi")
        assert terminal.wait() == 1

    assert "Traceback" not in terminal.text
    (run,) = server.database.run(verifications.unfinished)
    assert run.status == "running"


@pytest.mark.process
def test_on_a_terminal_a_bar_shows_what_is_going_on(
    server: Server, gateway: Gateway, empty_folder: Path
) -> None:
    server.serve(gateway)
    with Terminal(empty_folder, "models", "refresh") as terminal:
        terminal.expect("waiting for its turn")
        server.begin(models=40, at_work="gpt-4o")
        terminal.expect("0 of 40 models")
        terminal.expect("asking Capi/gpt-4o")
        with server.verifying(*FOUND):
            terminal.expect("3 models: 2 passed, 1 failed; $0.2500.")
        terminal.expect("no vision")
        assert terminal.wait() == 0


# Following


RUNNING = Progress(status="running", models=2)
DONE = Progress(status="done", models=2, done=2)


class Watch:
    """Who follows a run that goes like this."""

    def __init__(self, *steps: Progress | None) -> None:
        self._steps = iter(steps)
        self.told: list[Progress] = []
        self.slept = 0

    async def look(self) -> Progress | None:
        return next(self._steps)

    async def sleep(self, _seconds: float) -> None:
        self.slept += 1


async def test_a_run_is_looked_at_until_it_is_over() -> None:
    watch = Watch(RUNNING, RUNNING, DONE)

    assert await follow(watch.look, watch.told.append, sleep=watch.sleep) == DONE
    assert watch.told == [RUNNING, RUNNING, DONE]
    assert watch.slept == 2


async def test_a_gateway_that_stops_is_not_waited_for() -> None:
    watch = Watch(RUNNING, RUNNING)
    alive = iter((True, False))

    with pytest.raises(Abandoned, match="started again: manyways serve"):
        await follow(watch.look, watch.told.append, alive=lambda: next(alive), sleep=watch.sleep)
    assert watch.slept == 1


async def test_a_gateway_that_stops_once_it_is_done_has_done_it() -> None:
    watch = Watch(DONE)

    assert await follow(watch.look, watch.told.append, alive=lambda: False) == DONE


async def test_a_run_that_was_deleted_is_not_waited_for() -> None:
    watch = Watch(RUNNING, None)

    with pytest.raises(Abandoned, match="not in the database any more"):
        await follow(watch.look, watch.told.append, sleep=watch.sleep)


def test_where_no_provider_tells_its_models_the_status_and_the_words_say_so(
    tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / "manyways.toml").write_text(
        '[[providers]]\nname = "Capi"\nprotocol = "openai"\n'
        f'base_url = "http://127.0.0.1:{closed_port}/v1"\n'
    )
    done = run_command(tmp_path, "models", "refresh")

    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("There are no models to verify. Which provider fails, and why: ")
    assert last.endswith(" doctor")

    alike = run_command(tmp_path, "models", "refresh", "--json")
    assert alike.returncode == 1
    assert json.loads(alike.stdout)["counts"]["done"] == 0
