"""What the operator's page says of health and metrics is true."""

import re
from pathlib import Path

from manyways.config import Settings
from manyways.edge.wellbeing import STATES
from manyways.edge.wording import MEANINGS
from manyways.routing import health
from manyways.upstream import failures

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "manyways"
PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def rows(first_heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called `first_heading`."""
    _, _, rest = PAGE.partition(f"\n| {first_heading} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def numbers(row: list[str]) -> list[float]:
    """The seconds of a row's last two cells, the first rest and the longest."""
    return [float(found) for cell in row[2:] for found in re.findall(r"(\d+) s\b", cell)]


def test_rests_are_as_long_as_it_says() -> None:
    routing = Settings().routing
    usual = [routing.rest, routing.rest_limit]
    provider, key, rate, gone, model = map(numbers, rows("what came back"))

    assert provider == usual
    assert key == list(health.CREDENTIAL_REST)
    assert rate == [routing.rest, health.ASKED_FOR, routing.rest_limit]
    assert gone == list(health.GONE_REST)
    assert model == [*usual, health.BUSY]
    assert health.FACTOR == 4
    assert health.JITTER == 1 / 5


def test_every_state_is_explained() -> None:
    (states,) = (row for row in rows("in the answer") if row[0] == "`state`")

    assert re.findall(r"`([\w ]+)`", states[1]) == list(STATES)


def test_alerts_watch_metrics_that_there_are() -> None:
    told = {name for row in rows("metric") for name in re.findall(r"`(manyways_\w+)`", row[0])}
    alerts = PAGE.partition("groups:")[2].partition("```")[0]
    watched = set(re.findall(r"manyways_\w+", alerts))

    assert len(watched) >= 4
    assert watched <= told


def test_every_class_of_failure_that_can_make_something_rest_has_words() -> None:
    raised = set(failures._TRANSPORT_CODES.values())
    for file in SOURCES.rglob("*.py"):
        raised.update(re.findall(r'\bAttemptFailed\(\s*"(\w+)"', file.read_text(encoding="utf-8")))
    of_the_answer = {"unsuitable", "diverged"}  # these say nothing about the provider's health

    assert raised - of_the_answer == set(MEANINGS)
