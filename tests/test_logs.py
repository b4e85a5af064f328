"""Every line of the log looks the same, whichever way it took."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from manyways import logs


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logs._quick = None
    logs._worker = None


def line(out: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.getvalue())
    assert out.getvalue().endswith("}\n")
    return found


def test_the_short_way_writes_what_the_long_way_does() -> None:
    long, short = io.StringIO(), io.StringIO()
    logs.configure(logs.Settings(format="json"), long)
    structlog.get_logger().info("request", status=200, path="/ü")
    logs.configure(logs.Settings(format="json"), short)
    logs.tell("request", {"status": 200, "path": "/ü"})

    written, quickly = line(long), line(short)
    assert {**written, "timestamp": ""} == {**quickly, "timestamp": ""}
    assert quickly["level"] == "info"


def test_lines_stand_in_their_order_whichever_way_they_took() -> None:
    raw = io.BytesIO()
    logs.configure(logs.Settings(format="json"), io.TextIOWrapper(raw, "utf-8"))
    for number in range(3):
        logs.tell("request", {"number": number, "path": "/ü"})
        structlog.get_logger().info("waiting", number=number, path="/ü")
    found = [json.loads(line) for line in raw.getvalue().decode().splitlines()]
    told = [(number, event) for number in range(3) for event in ("request", "waiting")]
    assert [(one["number"], one["event"]) for one in found] == told
    assert {one["path"] for one in found} == {"/ü"}


def test_where_nobody_reads_the_log_any_more_nothing_happens() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    logs.configure(logs.Settings(format="json"), out)
    out.close()
    logs.tell("request", {"status": 200})
    structlog.get_logger().info("waiting")


@pytest.mark.parametrize("worker", [None, 2])
def test_lines_of_one_of_several_workers_have_its_number(worker: int | None) -> None:
    long, short = io.StringIO(), io.StringIO()
    logs.configure(logs.Settings(format="json"), long, worker=worker)
    structlog.get_logger().warning("request", status=500)
    logs.configure(logs.Settings(format="json"), short, worker=worker)
    logs.tell("request", {"status": 200})
    assert (line(long).get("worker"), line(short).get("worker")) == (worker, worker)


def test_above_info_nothing_is_told() -> None:
    out = io.StringIO()
    logs.configure(logs.Settings(format="json", level="warning"), out)
    logs.tell("request", {"status": 200})
    assert out.getvalue() == ""


def test_as_text_it_is_told_as_text() -> None:
    out = io.StringIO()
    logs.configure(logs.Settings(format="text"), out)
    logs.tell("request", {"status": 200})
    assert "request" in out.getvalue()
    assert "status=200" in out.getvalue()
    assert not out.getvalue().startswith("{")


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_where_nobody_reads_the_log_requests_go_on() -> None:
    logs.configure(logs.Settings(format="json"), Closed())
    logs.tell("request", {"status": 200})
