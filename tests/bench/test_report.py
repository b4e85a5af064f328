"""The report: figures, ratios and goals, in Markdown and as a picture."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench.figures import Figure
from bench.goals import GOALS
from rich.console import Console

from bench import plot, report, results

ALL = {metric.name: Figure((8.0, 10.0, 12.0)) for metric in results.METRICS}


def _results(**ours: Figure) -> results.Results:
    rows = [
        results.Row("direct", "upstream, asked directly", figures={"unary": Figure((40.0,))}),
        results.Row("manyways", "Manyways", "1.0", "Keys & <limits>.", figures=ALL | ours),
        results.Row(
            "manyways-native", "Manyways (own transport)", figures={"unary": Figure((7.5,))}
        ),
        results.Row("tensorzero", "TensorZero", "2026.6.0", figures=dict(ALL)),
        results.Row("portkey", "Portkey", figures={"unary": Figure((1.0, 1.0))}, remarks=["a < b"]),
    ]
    machine = results.Machine("Some CPU", 2, "6.1", "Some Linux", "3.11.7")
    settings = results.Settings(5, 3, 500, 64, 64, 500, 100)
    return results.Results("2026-11-23", machine, settings, rows, {"LiteLLM": "no <network>"})


def _cells(page: str, first: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_results_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    _results().write(path)
    assert results.read(path) == _results()


def test_the_page_has_every_figure_and_ratio() -> None:
    page = report.page(_results(unary=Figure((30.0,))))
    figures, ratios, transports, goal = _cells(page, "whole answers")
    assert figures == ["whole answers, /s", "40.0", "30.0", "7.50", "10.0 ±2.00", "1.00 ±0.000"]
    assert ratios == ["whole answers", "3.00", "30.0"]
    assert transports == ["whole answers, /s", "7.50", "30.0", "0.250"]
    assert goal == ["whole answers, own transport", "≥ 1.80 × TensorZero", "0.750 ×", "missed"]
    for metric in results.METRICS:
        assert len(_cells(page, f"{metric.title}, {metric.unit}")) == 2
    assert "LiteLLM was left out: no <network>" in page
    assert "Other programs" not in page


def test_a_disturbed_run_says_so() -> None:
    disturbed = _results()
    disturbed.disturbance = 0.7
    assert "Other programs took up to 0.70 of the two cores" in report.page(disturbed)


@pytest.mark.parametrize(("value", "verdict"), [(90.0, "met"), (91.0, "missed")])
def test_a_goal_is_met_up_to_its_bound(value: float, verdict: str) -> None:
    page = report.page(_results(idle=Figure((value,))))
    assert _cells(page, "memory idle")[-1][-1] == verdict


def test_a_goal_that_was_not_measured_is_neither_met_nor_missed() -> None:
    found = _results()
    reached = {(goal.metric, goal.than): goal.reached(found) for goal in GOALS}
    assert reached["unary", "litellm"] is None
    assert reached["unary", "tensorzero"] == 0.75  # our own transport's
    assert "LiteLLM" not in "".join(map(str, _cells(report.page(found), "whole answers")))


def test_who_is_measured_over_one_transport_alone_is_compared_with_no_other() -> None:
    found = _results()
    found.rows = [row for row in found.rows if row.name != "manyways-native"]
    assert "## Its two transports" not in report.page(found)


def test_what_nobody_else_was_measured_for_has_no_ratio() -> None:
    found = _results()
    for row in found.rows:
        if row.name not in {"manyways", "manyways-native"}:
            row.figures.pop("upstream_side", None)
    ratios = report.page(found).partition("## In ratios")[2].partition("## Its two")[0]
    assert _cells(ratios, "memory a stream")
    assert not _cells(ratios, "memory a stream upstream")


def test_the_terminal_shows_the_same() -> None:
    output = io.StringIO()
    report.show(_results(), Console(file=output, width=140))
    for words in ("whole answers, /s", "10.0 ±2.00", "TensorZero", "met", "Portkey: a < b"):
        assert words in output.getvalue()


def _bars(picture: ET.Element) -> list[str]:
    paths = picture.findall(".//{*}path")
    return [path.attrib["d"] for path in paths if path.attrib["class"].startswith("bar")]


def test_the_picture_is_well_formed_and_has_a_bar_for_every_figure() -> None:
    found = _results()
    picture = ET.fromstring(plot.svg(found))  # noqa: S314 - our own text
    gateways = [row for row in found.rows if row.name != results.DIRECT]
    assert len(_bars(picture)) == sum(len(row.figures) for row in gateways)
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Manyways", "TensorZero", "Portkey"} <= set(texts)
    assert picture.attrib["aria-label"].startswith("Benchmark of 2026-11-23")


def test_nothing_is_drawn_outside_the_picture() -> None:
    extremes = _results(added_p99=Figure((-0.4, -0.2)), unary=Figure((0.01,)))
    picture = ET.fromstring(plot.svg(extremes))  # noqa: S314
    left, _, width, _ = map(float, picture.attrib["viewBox"].split())
    for outline in _bars(picture):
        for corner in re.findall(r"[MH](-?[0-9.]+)", outline):
            assert left <= float(corner) <= width / 2


def test_a_bar_far_longer_than_ours_is_cut_so_that_ours_can_be_seen() -> None:
    picture = ET.fromstring(plot.svg(_results(unary=Figure((0.5,)))))  # noqa: S314
    pieces = [outline.count("M") for outline in _bars(picture)]
    assert pieces[:4] == [1, 2, 2, 1]
    assert set(pieces[4:]) == {1}


@pytest.mark.parametrize(
    ("complaint", "published"),
    [
        (
            "pip failed: no route to https://example.test/simple/x\nmore",
            "pip failed: no route to [...]",
        ),
        ("no such file: '/var/log/secret.log'", "no such file: '[...]'"),
        ("cannot keep up with 500 answers/s", "cannot keep up with 500 answers/s"),
        ("3 of 4 and/or 5", "3 of 4 and/or 5"),
    ],
)
def test_complaints_are_published_without_addresses_and_paths(
    complaint: str, published: str
) -> None:
    row = results.Row("x", "X")
    row.remark(complaint)
    row.remark(complaint)
    assert row.remarks == [published]
