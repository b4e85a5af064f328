"""The quality score: a small set of tasks, programs that check the answers, and arithmetic.

tasks     the set, as data: what is asked, and by which rule the answer is right
checkers  the rules: tolerant of dress, strict where the form is the task
score     points become a score with an interval; two scores are compared

docs/quality.md tells operators the same in words.
"""

from manyways.verification.quality.asked import step
from manyways.verification.quality.score import (
    FEWEST,
    Difference,
    comparable,
    differ,
    overlap,
    score,
)
from manyways.verification.quality.tasks import ANCHORS, CATEGORIES, TASKS, VERSION, Task

__all__ = [
    "ANCHORS",
    "CATEGORIES",
    "FEWEST",
    "TASKS",
    "VERSION",
    "Difference",
    "Task",
    "comparable",
    "differ",
    "overlap",
    "score",
    "step",
]
