"""Whether a model is still the one it was: single signs, and rates of many simulated days."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from manyways.catalog.verified import Check, Fingerprint, Sample
from manyways.types import Usage
from manyways.verification import quality
from manyways.verification.fingerprint import are_alike, drifted, fingerprint, is_doubtful
from tests.verification.fingerprints import ANSWERS, Simulated

NAMES = list(ANSWERS)
OWN = [answers[0] for answers in ANSWERS.values()]
OTHERS = [answers[3] for answers in ANSWERS.values()]
COUNTS = [35, 63, 26, 44, 56, 30]


def printed(
    answers: list[str] = OWN,
    *,
    counts: list[int] | None = None,
    speed: float | None = 50.0,
    reported: str = "",
    version: str = "1",
) -> Fingerprint:
    prompts: dict[str, int] = {} if counts is None else dict(zip(NAMES, counts, strict=True))
    return Fingerprint(
        at=0.0,
        version=version,
        samples={
            name: Sample(answer=answer, ms=900, prompt_tokens=prompts.get(name))
            for name, answer in zip(NAMES, answers, strict=True)
        },
        tokens_per_second=speed,
        reported=reported,
    )


def check(name: str = "format-1", **fields: Any) -> Check:
    told = {
        "verdict": "passed",
        "answer": "The river flows gently through town.",
        "ms": 900,
        "tokens_per_second": 50.0,
        "reported": "gpt-4o-2024-08-06",
        "requests": 1,
        "usage": Usage(prompt_tokens=26, completion_tokens=8, source="upstream"),
    }
    return Check(name=name, **{**told, **fields})


# What a fingerprint is made of


def test_a_fingerprint_has_what_the_checks_found() -> None:
    found = fingerprint([check(), check("language-2", verdict="failed", answer="No.")], "1", 7.0)

    assert found == Fingerprint(
        at=7.0,
        version="1",
        samples={
            "format-1": Sample(
                answer="The river flows gently through town.",
                ms=900,
                prompt_tokens=26,
                completion_tokens=8,
            ),
            "language-2": Sample(answer="No.", ms=900, prompt_tokens=26, completion_tokens=8),
        },
        tokens_per_second=50.0,
        reported="gpt-4o-2024-08-06",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": Usage(prompt_tokens=26, completion_tokens=8, source="estimated")},
        {"usage": Usage()},
        {"requests": 2},  # the counts of two requests were added up
    ],
)
def test_counts_that_are_not_the_providers_own_of_one_request_are_left_out(
    fields: dict[str, Any],
) -> None:
    (sample,) = fingerprint([check(**fields)], "1", 0.0).samples.values()

    assert (sample.prompt_tokens, sample.completion_tokens) == (None, None)


def test_what_was_not_asked_is_no_sample_and_the_usual_speed_and_name_are_taken() -> None:
    found = fingerprint(
        [
            check("a", tokens_per_second=40.0),
            check("b", tokens_per_second=200.0),
            check("c", tokens_per_second=50.0, reported="gpt-4o-mini"),
            check("d", verdict="unsure"),
            check("e", verdict="skipped"),
        ],
        "1",
        0.0,
    )

    assert set(found.samples) == {"a", "b", "c"}
    assert found.tokens_per_second == 50.0
    assert found.reported == "gpt-4o-2024-08-06"


def test_the_fixed_questions_are_those_of_the_quality_set() -> None:
    assert {task.id for task in quality.ANCHORS} == set(ANSWERS)


# What is a sign, and what is enough


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (
            printed(counts=COUNTS),
            printed(counts=[count + 12 for count in COUNTS]),
            "6 of 6 prompts come to another number of tokens (47 instead of 35)",
        ),
        (
            printed(reported="gpt-4o-2024-08-06"),
            printed(reported="gpt-4o-mini"),
            "it calls itself gpt-4o-mini, and gpt-4o-2024-08-06 before",
        ),
        (
            printed(reported="gpt-4o-2024-08-06"),
            printed(OTHERS, reported="gpt-4o-2024-11-20"),
            "and gpt-4o-2024-08-06 before; 6 of 6 answers are unlike the ones before",
        ),
        (
            printed(),
            printed([f"{answer} {'Certainly! ' * 20}" for answer in OTHERS], speed=200.0),
            "6 of 6 answers are unlike the ones before; answers are",
        ),
        (
            printed(counts=COUNTS),
            printed(OTHERS, counts=[35, 63, 26, 44, 62, 30]),
            "1 of 6 prompts come to another number of tokens (62 instead of 56)",
        ),
    ],
)
def test_another_model_is_told_with_the_reason(
    before: Fingerprint, now: Fingerprint, reason: str
) -> None:
    assert reason in (drifted(before, now) or "")


@pytest.mark.parametrize(
    "now",
    [
        printed(counts=COUNTS, reported="gpt-4o"),
        printed(counts=COUNTS, reported="OpenAI/GPT-4o:free"),
        printed(counts=[count + 1 for count in COUNTS], reported="gpt-4o"),  # today's date
        printed(OTHERS, counts=COUNTS, reported="gpt-4o"),  # it never answers twice alike
        printed(counts=COUNTS, reported="gpt-4o", speed=200.0),  # nobody else asks today
        printed(counts=None, reported="", speed=None),  # what is missing is no sign
        printed([""] * 6, counts=COUNTS),
        printed(reported="gpt-4o-2024-11-20", counts=COUNTS),
        printed(counts=[35, 63, 26, 44, 56, 64]),  # one count alone is off
    ],
)
def test_the_same_model_is_left_in_peace(now: Fingerprint) -> None:
    assert drifted(printed(counts=COUNTS, reported="gpt-4o"), now) is None


def test_other_questions_say_nothing() -> None:
    now = printed(OTHERS, counts=[99] * 6, reported="llama-3-8b", version="2")

    assert drifted(printed(counts=COUNTS, reported="gpt-4o"), now) is None
    assert not is_doubtful(printed(), now)


def test_too_few_common_questions_say_nothing() -> None:
    before, now = printed(counts=COUNTS), printed(OTHERS, counts=[count * 2 for count in COUNTS])
    two = {name: now.samples[name] for name in NAMES[:2]}

    assert drifted(before, msgspec.structs.replace(now, samples=two)) is None


def test_other_answers_are_enough_once_it_gives_them_again() -> None:
    before, now = printed(), printed(OTHERS)

    assert drifted(before, now) is None
    assert is_doubtful(before, now)
    assert drifted(before, now, printed(OTHERS)) == (
        "6 of 6 answers are unlike the ones before, and 6 of them the same when asked again"
    )
    assert drifted(before, now, printed([answers[2] for answers in ANSWERS.values()])) is None
    assert drifted(before, now, before) is None


def test_what_is_clear_is_not_asked_again() -> None:
    assert not is_doubtful(printed(), printed())
    assert not is_doubtful(printed(reported="gpt-4o"), printed(OTHERS, reported="llama-3-8b"))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("136", "136.", True),
        ("136", "153", False),
        ("EBACD", "ebacd", True),
        ("The river flows gently through town.", "The river flows softly through town.", True),
        ("The river flows gently through town.", "Fish swim quietly in the river.", False),
        ("писать, петь, плавать, прыгать", "петь, писать, прыгать, плыть", True),
        ("писать, петь, плавать, прыгать", "помогать, понимать, приходить, писать", False),
        ("ёлка", "ЁЛКА", True),
    ],
)
def test_answers_are_alike_where_most_of_their_words_are(one: str, other: str, alike: bool) -> None:
    assert are_alike(one, other) is alike
    assert are_alike(other, one) is alike


# Rates, of 2,000 simulated days each


Trial = Callable[[Random], str | None]


def rate(trial: Trial, count: int = 2000) -> float:
    chance = Random(1)
    return sum(trial(chance) is not None for _ in range(count)) / count


def compared(
    before: Fingerprint, now: Fingerprint, ask_again: Callable[[], Fingerprint]
) -> str | None:
    """What a verification does: where it is in doubt, it asks again."""
    found = drifted(before, now)
    if found is None and is_doubtful(before, now):
        return drifted(before, now, ask_again())
    return found


def same(low: float, high: float, **fields: Any) -> Trial:
    """Another day of the same model; between `low` and `high` of its answers differ each time,
    and it is as fast as it happens to be."""

    def trial(chance: Random) -> str | None:
        model = Simulated(chance)
        fields["noise"] = chance.uniform(low, high)
        hurried = chance.lognormvariate(0, 0.5)
        return compared(
            model.asked(**fields),
            model.asked(**fields, hurried=hurried),
            lambda: model.asked(**fields),
        )

    return trial


def swapped(low: float, high: float, *, counts: bool, **other: Any) -> Trial:
    """Another model from one day to the next, under the same name."""

    def trial(chance: Random) -> str | None:
        model, successor = Simulated(chance), Simulated(chance, **other)
        fields: dict[str, Any] = {"noise": chance.uniform(low, high), "counts": counts}
        return compared(
            model.asked(**fields), successor.asked(**fields), lambda: successor.asked(**fields)
        )

    return trial


@pytest.mark.parametrize("counts", [True, False])
def test_of_days_with_a_third_of_all_answers_changed_one_in_400_is_a_false_alarm(
    counts: bool,
) -> None:
    assert rate(same(0.2, 0.4, counts=counts)) <= 0.0025


def test_who_answers_anew_each_time_gives_hardly_more_false_alarms() -> None:
    assert rate(same(0.5, 1.0)) <= 0.01


def test_a_model_with_another_tokenizer_is_always_found() -> None:
    assert rate(swapped(0.2, 0.4, counts=True, tokenizer="llama3", added=11)) == 1.0


def test_a_model_whose_chat_adds_as_much_is_mostly_found_by_its_tokenizer_and_answers() -> None:
    assert rate(swapped(0.2, 0.4, counts=True, tokenizer="llama3")) >= 0.8


def test_a_model_that_nothing_but_its_answers_gives_away_is_mostly_found() -> None:
    assert rate(swapped(0.0, 0.0, counts=False)) >= 0.8
    assert rate(swapped(0.0, 0.2, counts=False)) >= 0.6
