import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from manyways.catalog import listings
from manyways.catalog.snapshot import Snapshot
from manyways.catalog.verified import Verified
from manyways.cli.models import app
from manyways.cli.models_list import list_
from manyways.operations.catalog import Scope, refresh
from manyways.store.database import Database, Settings, open_database
from manyways.store.ids import new_id
from manyways.types import Model
from tests.cli.listing import SNAPSHOT, Gateway, configured, on_terminal
from tests.support.verifications import found, save

pytestmark = pytest.mark.usefixtures("empty_folder")


def run(*arguments: str) -> Result:
    root = typer.Typer()
    root.add_typer(app, name="models")
    return CliRunner().invoke(root, ["models", "list", *arguments])


def test_the_running_gateway_is_asked_where_the_configuration_has_it(gateway: Gateway) -> None:
    configured(gateway.server_port)
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    assert gateway.asked == ["/v1/models"]
    assert done.stdout.splitlines() == [
        "model\tprovider\tcategory\tcontext\tlatency\tquality\tverified\tstatus\tflags",
        "gpt-4o\tCapi\ttext\t128,000\t1.5 s\t\t\tactive\t",
        "[bold]flux\tCapi\timage\t\t\t\t\tactive\t",
        "llama-3\tSpace\ttext\t\t\t\t\tdegraded\t",
    ]


def test_a_gateway_that_listens_everywhere_is_asked_here(gateway: Gateway) -> None:
    configured(gateway.server_port)
    text = Path("manyways.toml").read_text(encoding="utf-8")
    Path("other.toml").write_text(
        text.replace("[server]", '[server]\nhost = "0.0.0.0"\nmounts = ["/webhook/v1"]'),
        encoding="utf-8",
    )
    assert run("--config", "other.toml").exit_code == 0
    assert gateway.asked == ["/webhook/v1/models"]


def test_filters_are_the_gateways_business(gateway: Gateway) -> None:
    configured(gateway.server_port)
    done = run("--provider", "Capi", "--category", "image", "--json")
    assert gateway.asked == ["/v1/models?provider=Capi&category=image"]
    assert [row["id"] for row in json.loads(done.stdout)["data"]] == ["[bold]flux"]


def test_json_is_the_gateways_own_document_and_where_it_is_from(gateway: Gateway) -> None:
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}/", "--json")
    expected = json.loads(listings.models(SNAPSHOT).body)
    expected["meta"]["source"] = "gateway"
    assert json.loads(done.stdout) == expected
    assert done.stderr == ""


def test_a_url_with_a_path_is_taken_as_it_is(gateway: Gateway) -> None:
    assert run("--url", f"http://127.0.0.1:{gateway.server_port}/webhook/v1").exit_code == 0
    assert gateway.asked == ["/webhook/v1/models"]


def test_what_the_gateway_refuses_is_told_in_its_words(gateway: Gateway) -> None:
    configured(gateway.server_port)
    done = run("--provider", "Kapi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no provider 'Kapi'. Known providers: Capi, Space, Quiet." in done.stderr


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ((200, b"<html>It works!</html>"), "but not with a list of models"),
        ((200, b"[]"), "but not with a list of models"),
        ((404, b"<html>nothing</html>"), "answers 404, not a list"),
        ((400, b'{"error": "invalid_request"}'), "invalid_request"),
        ((500, b"[" * 100_000), "answers 500, not a list"),
    ],
)
def test_somebody_else_at_the_address_is_no_crash(
    gateway: Gateway, says: tuple[int, bytes], told: str
) -> None:
    gateway.says = says
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr


def test_without_a_gateway_the_configurations_own_list_is_shown_and_marked(
    closed_port: int,
) -> None:
    configured(closed_port)
    done = run()
    assert done.exit_code == 0
    assert f"No gateway runs at http://127.0.0.1:{closed_port}" in done.stderr
    assert "manyways serve" in done.stderr
    assert "Only a running gateway knows the models of Capi." in done.stderr
    assert "manyways.toml itself lists" in done.stderr
    assert done.stdout.splitlines()[1:] == [
        "one\tListed\ttext\t8,192\t\t\t\tactive\t",
        "dall-e-3\tListed\timage\t\t\t\t\tactive\t",
    ]


def test_without_a_gateway_json_is_still_one_document(closed_port: int) -> None:
    configured(closed_port)
    done = run("--category", "image", "--json")
    document = json.loads(done.stdout)
    assert [row["id"] for row in document["data"]] == ["dall-e-3"]
    assert document["meta"]["source"] == "configuration"
    assert "No gateway runs" in done.stderr


def test_without_a_gateway_an_unknown_provider_is_still_refused(closed_port: int) -> None:
    configured(closed_port)
    done = run("--provider", "Kapi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Known providers: Capi, Listed." in done.stderr


def test_a_named_gateway_that_does_not_answer_is_a_failure(closed_port: int) -> None:
    done = run("--url", f"http://127.0.0.1:{closed_port}")
    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        f"No gateway answers at http://127.0.0.1:{closed_port}: Connection refused." in done.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "localhost:8080"),
        ("--url", "file:///etc/passwd"),
        ("--url", "http://"),
        ("--url", "http://user:secret@localhost:8080"),
        ("--url", "http://host:port"),
        ("--url", "http://a b"),
        ("--category", "smell"),
        ("--capability", "smell"),
        ("--status", "up"),
        ("--sort", "smell"),
    ],
)
def test_misuse_is_status_2(arguments: tuple[str, str]) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "secret" not in done.stderr


def test_a_configuration_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text("[server]\nport = 'high'\n", encoding="utf-8")
    done = run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "server.port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--provider", "Quiet"), "No model matches."),
        (("--category", "video"), "No model matches."),
        (("--capability", "vision"), "No model matches."),
        (("--status", "down"), "No model matches."),
    ],
)
def test_nothing_is_said_in_words(gateway: Gateway, arguments: tuple[str, ...], said: str) -> None:
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}", *arguments)
    assert (done.exit_code, done.stdout) == (0, "")
    assert said in done.stderr


def test_a_gateway_without_any_model_points_at_the_doctor(gateway: Gateway) -> None:
    gateway.says = (200, listings.models(Snapshot()).body)
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "manyways doctor" in done.stderr


# Sorting, and the states of models


def many() -> Snapshot:
    """Models of which this and that is known."""

    def model(name: str, provider: str = "Capi", **what: object) -> Model:
        plain = {"id": name, "provider": provider, "upstream_id": name, "created": 1}
        return msgspec.convert({**plain, **what}, Model)

    return Snapshot(
        models=(
            model("Beta", latency_ms=300, quality_score=6.5, last_verified=verified(hours=3)),
            model("alpha", latency_ms=900, quality_score=8.1, context_window=8192),
            model("gone", status="down", last_verified=verified(hours=50)),
            model("delta", "Space", status="degraded", context_window=128000, latency_ms=20),
        ),
        provider_names=("Capi", "Space"),
    )


def verified(hours: float) -> str:
    moment = datetime.fromtimestamp(time.time() - hours * 3600, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def names(*arguments: str) -> list[str]:
    done = run(*arguments)
    assert done.exit_code == 0, done.stderr
    return [line.split("\t")[0] for line in done.stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["alpha", "Beta", "delta", "gone"]),
        ("provider", ["alpha", "Beta", "gone", "delta"]),
        ("latency", ["delta", "Beta", "alpha", "gone"]),
        ("quality", ["alpha", "Beta", "gone", "delta"]),
        ("context", ["delta", "alpha", "Beta", "gone"]),
        ("verified", ["Beta", "gone", "alpha", "delta"]),
    ],
)
def test_the_best_is_first_and_what_is_not_known_last(
    gateway: Gateway, sort: str, order: list[str]
) -> None:
    gateway.snapshot = many()
    configured(gateway.server_port)

    assert names("--status", "all", "--sort", sort) == order


def test_the_other_way_round_what_is_not_known_is_still_last(gateway: Gateway) -> None:
    gateway.snapshot = many()
    configured(gateway.server_port)

    assert names("--status", "all", "--sort", "latency", "--reverse") == [
        "alpha", "Beta", "delta", "gone",
    ]  # fmt: skip
    assert names("--reverse") == ["delta", "alpha", "Beta"]


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ((), ["Beta", "alpha", "delta"]),
        (("--status", "active"), ["Beta", "alpha"]),
        (("--status", "degraded"), ["delta"]),
        (("--status", "down"), ["gone"]),
        (("--status", "all"), ["Beta", "alpha", "gone", "delta"]),
    ],
)
def test_models_are_shown_by_how_they_do(
    gateway: Gateway, status: tuple[str, ...], shown: list[str]
) -> None:
    gateway.snapshot = many()
    configured(gateway.server_port)

    assert names(*status) == shown


def test_what_is_left_out_is_left_out_of_json_too(gateway: Gateway) -> None:
    gateway.snapshot = many()
    configured(gateway.server_port)
    told = json.loads(run("--status", "active", "--sort", "name", "--json").stdout)

    assert [row["id"] for row in told["data"]] == ["alpha", "Beta"]
    assert told["meta"]["total_models"] == 2


# What the database knows


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(Settings())
    yield database
    database.close()


def verify(database: Database, *rows: Verified) -> None:
    run_id = refresh(database, Scope(model=new_id()), now=time.time()).id
    save(database, run_id, *rows)


def test_flags_and_past_latencies_are_those_of_the_database(
    gateway: Gateway, database: Database
) -> None:
    configured(gateway.server_port)
    now = time.time()
    verify(database, found("gpt-4o", at=now - 9, latency_ms=900, flags={"drift": "it is odd"}))
    verify(
        database,
        found("gpt-4o", at=now, latency_ms=1500, flags={"impostor": "it says that it is Claude"}),
    )
    assert run().stdout.splitlines()[1].endswith("\tactive\timpostor")
    told = json.loads(run("--json").stdout)["data"][0]
    assert told["flags"] == {"impostor": "it says that it is Claude"}
    assert told["latencies_ms"] == [900, 1500]


def test_another_gateways_models_are_not_in_this_database(
    gateway: Gateway, database: Database
) -> None:
    verify(database, found("gpt-4o", at=time.time(), flags={"drift": "it is odd"}))
    told = run("--url", f"http://127.0.0.1:{gateway.server_port}", "--json").stdout

    assert "drift" not in told


def test_a_list_makes_no_database(gateway: Gateway) -> None:
    configured(gateway.server_port)
    assert run().exit_code == 0

    assert sorted(one.name for one in Path().iterdir()) == ["manyways.toml"]


# On a terminal


Shown = pytest.CaptureFixture[str]


def shown(capsys: Shown, columns: int = 120, **options: Any) -> str:
    """What the command shows on a terminal so wide."""
    with pytest.MonkeyPatch.context() as patch:
        on_terminal(patch, columns)
        list_(**options)
    return capsys.readouterr().out


def test_on_a_terminal_it_is_a_table_and_ids_are_no_markup(gateway: Gateway, capsys: Shown) -> None:
    configured(gateway.server_port)
    lines = [line.split() for line in shown(capsys).splitlines()]
    assert lines[:4] == [
        ["Model", "Provider", "Category", "Context", "Latency", "Status"],
        ["gpt-4o", "Capi", "text", "128,000", "1.5", "s", "active"],
        ["[bold]flux", "Capi", "image", "active"],
        ["llama-3", "Space", "text", "degraded"],
    ]


def test_what_was_never_verified_can_be(gateway: Gateway, capsys: Shown) -> None:
    configured(gateway.server_port)
    assert "None of them has been verified: manyways models refresh" in shown(capsys)

    gateway.snapshot = many()
    assert "manyways models refresh" not in shown(capsys)


def test_a_table_tells_when_a_model_was_verified_and_how_good_it_is(
    gateway: Gateway, capsys: Shown
) -> None:
    gateway.snapshot = many()
    configured(gateway.server_port)
    told = shown(capsys, status="all", sort="latency")
    header, delta, beta, alpha, gone = told.splitlines()

    assert header.split()[4:] == ["Latency", "Quality", "Verified", "Status"]
    assert delta.split() == ["delta", "Space", "text", "128,000", "20", "ms", "degraded"]
    assert " ".join(beta.split()) == "Beta Capi text 300 ms 6.5 3 h ago active"
    assert " ".join(alpha.split()) == "alpha Capi text 8,192 900 ms 8.1 active"
    assert " ".join(gone.split()) == "gone Capi text 2 d ago down"


def test_a_table_pictures_past_latencies_and_explains_flags(
    gateway: Gateway, database: Database, capsys: Shown
) -> None:
    configured(gateway.server_port)
    now = time.time()
    for ago, latency in ((40, 100), (30, None), (20, 400), (10, 800)):
        verify(database, found("gpt-4o", at=now - ago, latency_ms=latency))
    verify(database, found("gpt-4o", at=now, latency_ms=800, flags={"drift": "its\nanswers"}))
    told = shown(capsys)

    assert told.splitlines()[1].endswith("1.5 s  ▂ ▅██  active    drift")
    assert "drift: Capi/gpt-4o: its answers\n" in told
    assert "models refresh" not in told


def test_a_narrow_terminal_keeps_what_is_needed_most(gateway: Gateway, capsys: Shown) -> None:
    gateway.snapshot = many()
    configured(gateway.server_port)
    lines = shown(capsys, 40).splitlines()

    assert lines[0].split() == ["Model", "Provider", "Latency", "Status"]
    assert max(map(len, lines)) <= 40
