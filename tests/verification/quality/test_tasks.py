"""The set of tasks: right answers get all points, guesses and echoes next to none."""

import itertools
import json
import re
import subprocess
import sys
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from manyways import tokens
from manyways.verification.quality import ANCHORS, CATEGORIES, TASKS, VERSION, Task, score
from tests.verification.quality.right import RIGHT, WRONG

FROZEN: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("frozen.json").read_text(encoding="utf-8")
)
"""Of each version, the tasks' ids, and digests of what was asked and of what was right."""
BY_ID = {task.id: task for task in TASKS}
CONSTANTS = (
    *("", "42", "1", "4", "UNKNOWN", "НЕИЗВЕСТНО", "yes", "да", "no", "A", "{}", "null", "[]", "?"),
    *("I'm sorry, but I can't help with that.", "UNKNOWN НЕИЗВЕСТНО", "пятница", "Dan", "мир"),
)
BOTH = [(name, answer) for name, answers in RIGHT.items() for answer in answers]
NEITHER = [(name, answer) for name, answers in WRONG.items() for answer in answers]


def total(answers: dict[str, str]) -> float:
    found = score({task.id: task.check(answers[task.id]) for task in TASKS}, VERSION, at=0.0)
    assert found is not None
    return found.score


def digest(task: Task) -> str:
    frozen = json.dumps([task.prompt, task.limit, task.check.expected])
    return sha256(frozen.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "answer"), BOTH)
def test_right_answers_get_all_points(name: str, answer: str) -> None:
    assert BY_ID[name].check(answer) == 1.0


@pytest.mark.parametrize(("name", "answer"), NEITHER)
def test_near_misses_do_not(name: str, answer: str) -> None:
    points = BY_ID[name].check(answer)
    assert points < 1.0
    assert points == 0.0 or BY_ID[name].category == "extraction"


@pytest.mark.parametrize(("name", "answer"), BOTH)
def test_thoughts_before_an_answer_do_not_matter(name: str, answer: str) -> None:
    check = BY_ID[name].check
    wrong = WRONG[name][0]

    assert check(f"<think>\nIs it {wrong}? No.\n</think>\n\n{answer}") == 1.0
    assert check(f"It could be {wrong}.</think>{answer}") == 1.0  # its template began the thought
    assert check(f"<think>{answer}") == 0.0  # the thought is all there is


def test_all_right_is_a_full_score() -> None:
    assert total({name: answers[0] for name, answers in RIGHT.items()}) == 10.0


@pytest.mark.parametrize(
    "constant",
    CONSTANTS,
)
def test_who_always_says_the_same_scores_below_one(constant: str) -> None:
    assert total(dict.fromkeys(RIGHT, constant)) < 1.0


def test_who_says_all_constants_at_once_scores_below_one() -> None:
    for separator in (" ", "\n", ", ", " or "):
        assert total(dict.fromkeys(RIGHT, separator.join(["42", "UNKNOWN", "yes", "A"]))) < 1.0


@pytest.mark.parametrize("around", ["{}", "You asked: {}", "<think>{}", "{}\n\n{}", "**{}**"])
def test_who_repeats_the_prompt_scores_nothing(around: str) -> None:
    assert total({task.id: around.replace("{}", task.prompt) for task in TASKS}) == 0.0


def test_who_repeats_a_part_of_the_prompt_scores_below_one() -> None:
    sentences = {task.id: re.split(r"(?<=[.?!:])\s+", task.prompt) for task in TASKS}
    for place in (0, 1, -1, -2):
        parts = {name: found[place % len(found)] for name, found in sentences.items()}
        assert total(parts) < 1.0
    assert total({task.id: task.prompt[: task.limit] for task in TASKS}) < 1.0


def test_guessing_among_what_is_possible_is_worth_as_much_as_is_said() -> None:
    rows = ["".join(found) for found in itertools.permutations("ABCDE")]
    days = ["понедельник", "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье"]
    possible = {
        "arithmetic-4": [str(number) for number in range(100, 1000)],
        "reasoning-1": ["Ben", "Cara", "Dan", "Eve", "Finn"],
        "reasoning-2": rows,
        "reasoning-3": days,
        "code-2": list("123456"),
    }
    for task in TASKS:
        answers = possible.get(task.id, ["nothing"])
        found = sum(map(task.check, answers)) / len(answers)
        assert round(found, 2) == task.chance, task.id


def test_the_set_is_as_large_and_as_various_as_is_said() -> None:
    assert len(TASKS) == len(BY_ID) == 30
    assert {task.category for task in TASKS} == set(CATEGORIES)
    assert RIGHT.keys() == WRONG.keys() == BY_ID.keys()
    assert sum(task.language == "ru" for task in TASKS) >= 8
    for task in TASKS:
        assert re.fullmatch(r"[a-z]+-[1-9]\d*", task.id)
        assert (task.language == "ru") == bool(re.search("[а-я]", task.prompt)), task.id


def test_prompts_and_answers_are_short() -> None:
    assert max(tokens.count(task.prompt) for task in TASKS) <= 120
    assert all(16 <= task.limit <= 96 for task in TASKS)
    for name, answers in RIGHT.items():
        assert max(map(tokens.count, answers)) <= BY_ID[name].limit, name


def test_six_anchors_leave_the_model_a_choice() -> None:
    assert [task.id for task in ANCHORS] == [
        "arithmetic-4",
        "reasoning-2",
        "format-1",
        "format-2",
        "format-3",
        "language-2",
    ]
    assert {task.language for task in ANCHORS} == {"en", "ru"}
    for task in ANCHORS:
        right = {answer for answer in RIGHT[task.id] if task.check(answer) == 1.0}
        assert len(right) >= 2, f"{task.id} has only one right answer"


def test_the_programs_give_what_is_expected_of_them() -> None:
    def prints(program: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
        )
        return ran.stdout

    def program(name: str) -> str:
        return BY_ID[name].prompt.split("\n\n")[1]

    assert BY_ID["code-1"].check(prints(program("code-1"))) == 1.0
    assert BY_ID["code-3"].check(prints(program("code-3"))) == 1.0
    assert BY_ID["code-4"].check(prints(f"print({program('code-4')})")) == 1.0
    lines = [line[2:] for line in program("code-2").splitlines()]
    broken = "\n".join(lines)
    mended = broken.replace(lines[3], "        total += n")
    assert prints(f"{broken}\nprint(average([1, 2, 6]))") == "2.0\n"
    assert prints(f"{mended}\nprint(average([1, 2, 6]))") == "3.0\n"


def test_a_task_that_was_asked_once_is_never_changed() -> None:
    for frozen in FROZEN.values():
        for name, known in frozen.items():
            if name in BY_ID:
                assert digest(BY_ID[name]) == known, f"{name} has changed: give it a new id"


def test_this_version_is_frozen() -> None:
    now = {task.id: digest(task) for task in TASKS}
    assert FROZEN[VERSION] == now, f"a new version? frozen.json wants {msgspec.json.encode(now)!r}"
    assert list(FROZEN)[-1] == VERSION


def test_a_new_version_keeps_half_of_the_tasks_and_reuses_no_id() -> None:
    for before, after in itertools.pairwise(FROZEN.values()):
        assert len(before.keys() & after.keys()) * 2 >= len(before)
    digests: dict[str, set[str]] = {}
    for frozen in FROZEN.values():
        for name, known in frozen.items():
            digests.setdefault(name, set()).add(known)
    assert all(len(known) == 1 for known in digests.values())


def test_numbers_of_a_rule_are_whole_and_not_endless() -> None:
    check = BY_ID["arithmetic-4"].check
    assert check("1" * 3000) == 0.0
    assert check("136." + "0" * 3000) == 1.0
    assert Decimal(136) % 17 == 0
