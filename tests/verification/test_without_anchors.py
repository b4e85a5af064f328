"""A score needs most of the tasks, whichever they are."""

from typing import Any

import pytest

from manyways.errors import AttemptFailed
from manyways.verification.quality import ANCHORS, FEWEST, TASKS
from tests.support.asked import Reply
from tests.verification.test_examination import DAY, NOON, Office, able


def unsure(*names: str) -> Any:
    """A model that can do everything, and does not answer these tasks."""
    prompts = {task.prompt for task in TASKS if task.id in names}

    def script(path: str, fields: dict[str, Any]) -> Reply:
        if fields["messages"][-1]["content"] in prompts:
            return AttemptFailed("provider_error", "boom", status=500)
        return able(path, fields)

    return script


@pytest.mark.parametrize("task", [task.id for task in TASKS])
async def test_one_task_that_cannot_be_asked_costs_no_score(task: str) -> None:
    found = await Office(script=unsure(task)).examine()
    assert found.quality is not None
    assert (found.quality.score, len(found.quality.tasks)) == (10.0, len(TASKS) - 1)


async def test_without_its_anchors_a_model_is_neither_known_again_nor_another_one() -> None:
    office = Office()
    before = await office.examine()
    office.now = NOON + 8 * DAY
    office.script = unsure(ANCHORS[0].id)
    found = await office.examine(before)
    assert (found.fingerprint, found.flags) == (before.fingerprint, {})
    assert found.quality is not None
    assert found.quality.at == office.now


async def test_where_no_score_is_due_nothing_else_is_asked() -> None:
    office = Office()
    before = await office.examine()
    office.now = NOON + DAY
    office.script = unsure(ANCHORS[0].id)
    found = await office.examine(before)
    assert found.quality == before.quality
    assert [name for name in office.asked if name.startswith("task:")] == [f"task:{ANCHORS[0].id}"]


async def test_where_too_many_cannot_be_asked_no_more_are_tried() -> None:
    office = Office(script=unsure(*(task.id for task in TASKS)))
    found = await office.examine()
    assert found.quality is None
    tasks = [name for name in office.asked if name.startswith("task:")]
    assert len(tasks) <= len(TASKS) - FEWEST + 2
