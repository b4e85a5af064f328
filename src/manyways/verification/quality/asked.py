"""A task as a step of an examination."""

from manyways.errors import Refusal
from manyways.verification.check import Finding, Step
from manyways.verification.checks.words import QUOTED, quoted
from manyways.verification.interview import BadAnswer, Interview
from manyways.verification.quality.checkers import spoken
from manyways.verification.quality.tasks import Task


def step(task: Task) -> Step:
    """Asks one task, once; the step is named by the task's id. It passes with all of the points.

    A request that the provider refuses, and an answer that is none, are answers without points:
    a model must not gain by being asked less.
    """

    async def ask(interview: Interview) -> Finding:
        try:
            said = await interview.say(task.prompt, limit=task.limit)
        except Refusal as refusal:
            return _without_points(task, f"the provider refuses it: {quoted(refusal.message)}")
        except BadAnswer as bad:
            return _without_points(task, str(bad))
        points = task.check(said.text)
        if points >= 1.0:
            return Finding(verdict="passed", prompt=task.prompt, answer=said.text, points=points)
        partly = f" ({points:.2f} points)" if points else ""
        return Finding(
            verdict="failed",
            prompt=task.prompt,
            answer=said.text,
            reason=f"expected {task.check.expected}, got {_shown(said.text)}{partly}",
            points=points,
        )

    return Step(name=task.id, ask=ask)


def _without_points(task: Task, reason: str) -> Finding:
    return Finding(verdict="failed", prompt=task.prompt, reason=reason, points=0.0)


def _shown(answer: str) -> str:
    """An answer on one line, printable, without what was thought before it."""
    line = "".join(filter(str.isprintable, " ".join(spoken(answer).split())))
    if not line:
        return "nothing"
    return f"{line[: QUOTED - 1]}…" if len(line) > QUOTED else line
