"""The simulator: the planner's own decisions, the same figures every time, and the claims of
docs/simulation.md that defaults rest on."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import pytest
from bench.simulate import page, picture
from bench.simulate.play import Counts, Run, Scenario, Variant, play
from bench.simulate.scenarios import (
    ATTEMPTS,
    DEFAULT,
    HEDGES,
    JITTERS,
    MEMORIES,
    ORDERS,
    PROBES,
    RESTS,
    SCENARIOS,
)
from bench.simulate.study import STUDIES, Findings, Study, table
from bench.simulate.suppliers import NEVER, Kind, Supplier, Trouble

DOCS = Path(__file__).parents[2] / "docs"


def supplier(*troubles: Trouble, tail: float = 0.0) -> Supplier:
    return Supplier("Capi", {"gpt": 0.5, "mini": 0.5}, troubles, tail=tail)


def short(name: str, *, seconds: float = 300.0, seeds: int = 1) -> Scenario:
    return replace(SCENARIOS[name], seconds=seconds, seeds=seeds)


# Suppliers


def test_nothing_wrong_is_an_answer() -> None:
    fate = supplier().fate("gpt", 10.0, Random(1))
    assert fate.code is None
    assert 10.0 < fate.first < fate.end < NEVER


@pytest.mark.parametrize(
    ("kind", "code"),
    [("refused", "connect"), ("errors", "provider_error"), ("silent", None), ("cuts", "cut")],
)
def test_a_trouble_hits_while_it_lasts(kind: Kind, code: str | None) -> None:
    one = supplier(Trouble(kind, 100.0, 160.0))
    assert one.fate("gpt", 100.0, Random(1)).code == code
    assert one.fate("gpt", 160.0, Random(1)).code is None
    assert one.fate("gpt", 160.0, Random(1)).end < NEVER
    assert (one.fate("gpt", 130.0, Random(1)).end == NEVER) is (kind == "silent")


def test_a_trouble_of_one_model_leaves_the_others_alone() -> None:
    one = supplier(Trouble("errors", model="gpt"))
    assert one.fate("gpt", 0.0, Random(1)).code == "provider_error"
    assert one.fate("mini", 0.0, Random(1)).code is None
    assert (one.is_dead("gpt", 0.0), one.is_dead("mini", 0.0)) == (True, False)


def test_a_crash_takes_what_was_being_said_with_it() -> None:
    one = supplier(Trouble("refused", 100.0, 160.0))
    fates = [one.fate("gpt", 99.0, Random(seed)) for seed in range(20)]
    assert {fate.code for fate in fates} == {"cut", "reset"}
    assert {fate.end for fate in fates} == {100.0}


def test_a_limit_admits_so_many_a_minute_and_says_when_there_is_room() -> None:
    one = supplier(Trouble("limited", admits=3))
    fates = [one.fate("gpt", float(second), Random(1)) for second in range(5)]
    assert [fate.code for fate in fates] == [None, None, None, "rate_limited", "rate_limited"]
    assert [fate.retry_after for fate in fates[3:]] == [57, 56]
    assert one.fate("gpt", 60.5, Random(1)).code is None


def test_a_slow_one_is_slower_by_its_factor() -> None:
    usual = supplier().fate("gpt", 0.0, Random(1)).first
    slow = supplier(Trouble("slow", factor=10.0)).fate("gpt", 0.0, Random(1)).first
    assert slow == pytest.approx(10 * usual)


def test_a_flapping_one_is_there_half_of_the_time() -> None:
    one = supplier(Trouble("flapping", 0.0, 100.0))
    codes = [one.fate("gpt", second + 0.5, Random(1)).code for second in range(20)]
    assert codes == ([("connect")] * 5 + [None] * 5) * 2


# Runs


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    scenario = short("crash", seconds=120.0)
    one, again, other = (Run(scenario, DEFAULT, seed).play() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_every_setting_meets_the_same_callers() -> None:
    scenario = short("model down", seconds=150.0)
    assert (
        play(scenario, DEFAULT).requests
        == play(scenario, ORDERS["same-model-first"]).requests
        == play(scenario, MEMORIES["no memory"]).requests
    )


def test_when_nothing_is_wrong_every_request_is_one_attempt_and_an_answer() -> None:
    counts = play(short("calm", seconds=60.0), DEFAULT)
    assert counts.requests > 200
    assert counts.attempts == counts.answered == counts.as_asked == counts.requests
    assert len(counts.first) == counts.requests
    assert (counts.dead, counts.back, counts.broken) == ([], [], 0)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not name.startswith("fleet")])
def test_in_every_scenario_each_request_is_answered_broken_or_given_up(name: str) -> None:
    counts = play(short(name, seconds=130.0), DEFAULT)
    assert counts.requests > 25
    assert counts.answered + counts.broken <= counts.requests
    assert counts.as_asked <= counts.answered
    assert counts.attempts <= 10 * counts.requests
    assert all(0 < first < 170 for first in counts.first)


def test_percentiles_and_bursts_are_of_what_was_seen() -> None:
    counts = Counts(first=[float(i) for i in range(100)], dead=[1.0, 1.1, 1.2, 5.0])
    assert (counts.percentile(0.5), counts.percentile(0.99)) == (50.0, 99.0)
    assert counts.busiest(0.0, 10.0) == 3
    assert counts.busiest(2.0, 10.0) == 1


# What the defaults rest on


def compared(name: str, variants: Sequence[Variant], seeds: int = 1) -> list[Counts]:
    scenario = replace(SCENARIOS[name], seeds=seeds)
    return [play(scenario, variant) for variant in variants]


def test_in_an_outage_the_dead_one_sees_probes_and_is_back_within_15_seconds() -> None:
    ours, longer = compared("quiet hours, crash", [DEFAULT, RESTS["1 s to 60 s"]], seeds=15)
    assert len(ours.dead) / 15 < 10
    assert len(ours.back) == 15
    assert max(ours.back) <= 15 < max(longer.back)


def test_a_memory_spares_the_dead_one_most_requests() -> None:
    without, ours = compared("model down", [MEMORIES["no memory"], DEFAULT])
    assert len(ours.dead) < len(without.dead) / 10


def test_races_spare_the_callers_of_probes_most_of_a_silence() -> None:
    out, raced = compared(
        "quiet hours, long silence", [PROBES["waited out"], PROBES["raced"]], seeds=5
    )
    assert raced.percentile(0.95) < 0.7 * out.percentile(0.95)
    assert raced.load < out.load + 0.15
    assert max(raced.back) <= 15


def test_gateways_that_saw_the_same_outage_do_not_probe_together() -> None:
    in_step, ours = compared("fleet, crash", [JITTERS["none"], JITTERS["20%"]])
    assert ours.busiest(15.0, 65.0) < in_step.busiest(15.0, 65.0) / 1.5


def test_pauses_outlive_a_blip_of_everybody() -> None:
    five, ten = compared("all down", [ATTEMPTS["5"], ATTEMPTS["10"]])
    assert ten.success > five.success + 0.08


def test_strays_are_no_reason_to_rest() -> None:
    strict, ours = compared("strays", [MEMORIES["every failure counts"], DEFAULT])
    assert ours.fidelity > strict.fidelity + 0.1
    assert ours.success == strict.success == 1.0


def test_a_race_cuts_the_tail_and_stays_in_its_budget() -> None:
    off, on = compared("long tail", [HEDGES["off"], HEDGES["p95, 5%"]])
    assert on.percentile(0.99) < off.percentile(0.99) / 2
    assert on.load < off.load + 0.06


def test_a_budget_keeps_races_from_doubling_the_load_of_a_brown_out() -> None:
    budget, free = compared("brown-out", [HEDGES["p95, 5%"], HEDGES["p95, no limit"]])
    assert budget.load < 1.1 < free.load


def test_ten_attempts_answer_nearly_all_where_everybody_mostly_fails() -> None:
    three, ten = compared("everything shaky", [ATTEMPTS["3"], ATTEMPTS["10"]])
    assert three.success < 0.9
    assert ten.success > 0.98


# The page


def test_a_table_has_a_row_for_each_scenario_and_setting_and_ours_in_bold() -> None:
    study = Study("T", "`order`", ORDERS, ("calm",), STUDIES["orders"].columns)
    rows = list(table(study, Findings()))
    assert len(rows) == 2 + 2
    assert {row.count("|") for row in rows} == {2 + 5 + 1}
    assert rows[2].startswith("| calm | **same-provider-first** | 100.0% |")


def test_every_study_compares_with_the_default() -> None:
    for study in STUDIES.values():
        assert list(study.variants.values()).count(DEFAULT) == 1, study.title
        assert set(study.scenarios) <= set(SCENARIOS)


def test_the_page_in_the_docs_is_whole_and_names_its_command() -> None:
    text = (DOCS / "simulation.md").read_text()
    assert f"`{page.COMMAND}`" in text
    assert "](simulation.svg)" in text
    for study in STUDIES.values():
        assert f"## {study.title}\n" in text
        assert f"| {study.setting} |" in text
    for scenario in SCENARIOS.values():
        assert f"| {scenario.name} | {scenario.about} |" in text
    assert not re.search(r"\bnan\b|\{|\}", text)


def test_the_picture_in_the_docs_is_well_formed_and_reads_on_light_and_dark() -> None:
    root = ET.parse(DOCS / "simulation.svg").getroot()  # noqa: S314 - our own file
    assert root.get("role") == "img"
    assert root.get("aria-label")
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    assert "prefers-color-scheme: dark" in style
    _, _, width, height = (float(part) for part in (root.get("viewBox") or "").split())
    titles = [
        text.text
        for text in root.iter("{http://www.w3.org/2000/svg}text")
        if text.get("class") == "title"
    ]
    assert len(titles) == 9
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        numbers = [float(number) for number in re.findall(r"[\d.]+", path.get("d") or "")]
        assert max(numbers, default=0.0) <= max(width, height)


def test_bars_are_as_long_as_their_figures() -> None:
    bars = [picture.Bar("a", 10.0, "10", True), picture.Bar("b", 5.0, "5", False)]
    drawn = "\n".join(picture.bars(picture.Panel("T", bars), 400.0))
    ends = [float(end) for end in re.findall(r'class="bar[^"]*" d="M142 \d+H([\d.]+)', drawn)]
    assert ends[0] - 142 == pytest.approx(2 * (ends[1] - 142))
    assert drawn.count("bar ours") == 1
