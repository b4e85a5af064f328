"""A task as a step: it is asked as it stands, and what came of it is told in words."""

from typing import Any

import pytest

from manyways.errors import AttemptFailed, Refusal
from manyways.verification.quality import TASKS, Task, step
from tests.support.asked import Asked, chat, interview, model
from tests.verification.quality.right import RIGHT

SUM, FIELDS = (next(t for t in TASKS if t.id == name) for name in ("arithmetic-1", "extraction-1"))


def saying(*answers: Any) -> Asked:
    left = list(answers)
    return Asked(lambda _path, _fields: left.pop(0))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
async def test_each_task_is_asked_once_and_passed(task: Task) -> None:
    asker = saying(chat(RIGHT[task.id][0]))
    one = step(task)

    found = await one.ask(interview(model(), asker))

    assert (one.name, one.tries) == (task.id, 1)
    assert (found.verdict, found.points, found.reason) == ("passed", 1.0, "")
    assert (found.prompt, found.answer) == (task.prompt, RIGHT[task.id][0])
    (request,) = asker.requests
    assert request["messages"] == [{"role": "user", "content": task.prompt}]
    assert request["max_tokens"] == task.limit
    assert request["temperature"] == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("1643", "expected 1634, got 1643"),
        ("", "expected 1634, got nothing"),
        ("<think>1634</think>It is\n1643", "expected 1634, got It is 1643"),
        ("x" * 500, f"expected 1634, got {'x' * 89}…"),
    ],
)
async def test_a_wrong_answer_is_told_beside_the_right_one(answer: str, reason: str) -> None:
    found = await step(SUM).ask(interview(model(), saying(chat(answer))))

    assert (found.verdict, found.points, found.reason) == ("failed", 0.0, reason)
    assert found.answer == answer


async def test_a_part_of_the_points_is_no_pass() -> None:
    answer = '{"name": "Maria Lopez", "age": 8, "city": "Ghent"}'

    found = await step(FIELDS).ask(interview(model(), saying(chat(answer))))

    assert found.verdict == "failed"
    assert found.points == pytest.approx(2 / 3)
    assert found.reason.startswith('expected {"name":"Maria Lopez"')
    assert found.reason.endswith(f"got {answer} (0.67 points)")


async def test_a_refused_task_is_an_answer_without_points() -> None:
    refusal = Refusal("content_filter", "arithmetic is not allowed here")
    asker = Asked(lambda _path, _fields: refusal)

    found = await step(SUM).ask(interview(model(), asker))

    assert (found.verdict, found.points) == ("failed", 0.0)
    assert found.reason == "the provider refuses it: “arithmetic is not allowed here”"
    assert found.prompt == SUM.prompt


async def test_an_answer_that_is_none_has_no_points() -> None:
    found = await step(SUM).ask(interview(model(), saying(b"<html>")))

    assert (found.verdict, found.points) == ("failed", 0.0)
    assert "<html>" in found.reason


async def test_a_provider_that_cannot_be_reached_says_nothing_of_the_model() -> None:
    failure = AttemptFailed("network", "no way there")

    with pytest.raises(AttemptFailed, match="no way there"):
        await step(SUM).ask(interview(model(), saying(failure, failure)))
