"""What operators read about the score is true."""

import re
from collections import Counter
from pathlib import Path

import pytest

from manyways import tokens
from manyways.verification.quality import ANCHORS, CATEGORIES, TASKS, VERSION, Task, score
from manyways.verification.quality.score import FEWEST, FEWEST_EACH

PAGE = (Path(__file__).parents[3] / "docs" / "quality.md").read_text(encoding="utf-8")


def test_the_categories_are_those_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| (\d+) \|", PAGE, re.MULTILINE)

    counts = Counter(task.category for task in TASKS)
    assert rows == [(name, str(counts[name])) for name in CATEGORIES]


def test_the_numbers_are_true() -> None:
    guessed = score({task.id: task.chance for task in TASKS}, VERSION, at=0.0)
    assert guessed is not None
    assert f"now `{VERSION}`. It has {len(TASKS)} tasks" in PAGE
    assert sum(task.language == "ru" for task in TASKS) == 9
    assert "nine of them are in Russian" in PAGE
    assert f"scores {guessed.score} in all" in PAGE
    assert f"at least {FEWEST} tasks were answered, and at least {FEWEST_EACH} of each" in PAGE
    assert f"at most {sum(task.limit for task in TASKS):,} of answers" in PAGE
    assert round(sum(tokens.count(task.prompt) for task in TASKS), -2) == 1300


def test_the_anchors_are_named() -> None:
    paragraph = PAGE.partition("## Anchors")[2].partition("##")[0]

    assert re.findall(r"`([a-z]+-\d+)`", paragraph) == [task.id for task in ANCHORS]


def test_the_intervals_are_those_in_the_table() -> None:
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", PAGE, re.MULTILINE)

    assert len(rows) == 5
    for value, low, high in rows:
        found = score(dict.fromkeys((task.id for task in TASKS), float(value) / 10), VERSION, 0.0)
        assert found is not None
        assert (found.low, found.high) == (float(low), float(high))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_the_examples_are_not_from_the_set(task: Task) -> None:
    assert task.prompt not in PAGE
