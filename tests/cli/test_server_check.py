"""What a running gateway says of itself, as `manyways doctor` tells it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from manyways.cli import server_check
from manyways.cli.checks import Finding
from manyways.config import Settings
from manyways.edge.settings import Settings as ServerSettings
from manyways.store.database import Settings as DatabaseSettings
from tests.support.wall import Wall, wall_in_thread, whole


@pytest.fixture(scope="module")
def wall() -> Iterator[Wall]:
    with wall_in_thread() as wall:
        yield wall


def look(wall: Wall, status: int = 200, **ready: Any) -> Finding:
    """What is found where a gateway that is ready says this of itself."""
    body = json.dumps({"status": "ready", "models": 2, **ready}).encode()
    wall.answer = whole(body, status, [("X-API-Version", "1")])
    port = int(wall.url.rpartition(":")[2].partition("/")[0])
    finding, where = server_check.look(
        Settings(
            server=ServerSettings(port=port),
            database=DatabaseSettings(url="postgresql://manyways@db.example/manyways"),
        )
    )
    assert where == ("127.0.0.1", port)
    assert finding.detail.startswith(f"runs at 127.0.0.1:{port}, ")
    return finding


def test_one_that_is_well_is_told_in_a_line(wall: Wall) -> None:
    found = look(wall, redis="connected", usage={"backlog": 7, "oldest_s": 0.4, "unwritten": 0})

    assert (found.status, found.advice) == ("ok", "")
    assert found.detail.endswith(", 2 models")


def test_a_version_that_says_less_is_no_stranger(wall: Wall) -> None:
    assert look(wall).status == "ok"


@pytest.mark.parametrize(
    ("told", "status", "words", "advice"),
    [
        ({"redis": "away"}, "error", "it says that Redis is away", "See above"),
        (
            {"usage": {"backlog": 3, "oldest_s": 0, "unwritten": 1}},
            "error",
            "1 record of usage cannot be written",
            "usage.journal",
        ),
        (
            {"usage": {"backlog": 3, "oldest_s": 600.0, "unwritten": 0}},
            "warning",
            "3 records of usage wait for the database, the oldest for 10 min",
            "Nothing is lost",
        ),
        ({"models": 0}, "warning", "it has no models", "the providers"),
    ],
)
def test_what_it_complains_of_is_told_with_a_cure(
    wall: Wall, told: dict[str, Any], status: str, words: str, advice: str
) -> None:
    found = look(wall, 503, **told)

    assert found.status == status
    assert words in found.detail.splitlines()[1]
    assert advice in found.advice


def test_all_that_is_amiss_is_told_and_the_worst_counts(wall: Wall) -> None:
    usage = {"backlog": 3, "oldest_s": 600.0, "unwritten": 0}
    found = look(wall, redis="away", usage=usage)

    assert (found.status, len(found.detail.splitlines())) == ("error", 3)
