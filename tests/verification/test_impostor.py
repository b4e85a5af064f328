"""Small models under big names; and honest providers that look a little like it."""

import importlib
from typing import Any

import pytest

from manyways import tokens
from manyways.catalog.verified import Fingerprint, Quality, Sample, Verified
from manyways.types import Model
from manyways.verification import quality
from manyways.verification.impostor import TOKENS, impostor

MODEL = Model(id="gpt-4o", provider="Cheap", upstream_id="gpt-4o", created=1)
PROMPTS = {task.id: task.prompt for task in quality.ANCHORS}
RIGHT = {task: count + 7 for task, count in TOKENS["o200k_base"].items()}


def scored(score: float, reach: float = 1.0, version: str = "1") -> Quality:
    return Quality(score=score, low=score - reach, high=score + reach, version=version, at=0.0)


def verified(provider: str = "Cheap", **fields: Any) -> Verified:
    return Verified(provider=provider, model="gpt-4o", at=0.0, verdict="passed", **fields)


def printed(
    counts: dict[str, int] | None = None, *, reported: str = "", version: str = quality.VERSION
) -> Fingerprint:
    samples = {
        task: Sample(answer="x", ms=1, prompt_tokens=(counts or {}).get(task)) for task in PROMPTS
    }
    return Fingerprint(at=0.0, version=version, samples=samples, reported=reported)


def found(
    own: Verified, *others: Verified, model: Model = MODEL, floor: float | None = None, **more: Any
) -> str | None:
    return impostor(model, own, others, floor, **more)


def test_an_honest_provider_is_not_accused() -> None:
    own = verified(quality=scored(8.0), fingerprint=printed(RIGHT, reported="gpt-4o-2024-08-06"))

    assert found(own, verified("Other", quality=scored(8.5)), floor=6.0) is None
    assert found(own, floor=6.0, tokenizer="o200k_base") is None
    assert found(verified()) is None


# The name


def test_a_provider_that_says_it_was_another_model_is_believed() -> None:
    own = verified(fingerprint=printed(reported="gpt-3.5-turbo-0125"))

    assert found(own) == (
        "the provider says that gpt-3.5-turbo-0125 has answered, and was asked for gpt-4o"
    )


def test_todays_name_is_looked_at_where_it_is_given() -> None:
    own = verified(fingerprint=printed(reported="gpt-4o"))

    assert found(own, seen=printed(reported="gpt-4o-mini")) is not None


@pytest.mark.parametrize(
    ("model_id", "upstream_id", "reported"),
    [
        ("gpt-4o", "llama-3-8b", "llama-3-8b-instruct"),  # so the operator has set it up
        ("gpt-4o", "gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
        ("fast", "prod-1", "llama-3-8b"),
        ("gpt-4o", "gpt-4o", ""),
    ],
)
def test_what_was_asked_for_is_no_lie(model_id: str, upstream_id: str, reported: str) -> None:
    model = Model(id=model_id, provider="Cheap", upstream_id=upstream_id, created=1)

    assert found(verified(fingerprint=printed(reported=reported)), model=model) is None


# The score


def test_a_score_surely_below_what_the_model_reaches_gives_it_away() -> None:
    own = verified(quality=scored(3.0))

    assert (
        found(own, floor=4.5) == "its quality is 3.0 (2.0 to 4.0); that model reaches 4.5 at least"
    )
    assert found(own, floor=4.0) is None
    assert found(own) is None


def test_a_score_below_two_others_gives_it_away() -> None:
    own = verified(quality=scored(5.0))
    first = verified("First", quality=scored(7.5))
    second = verified("Second", quality=scored(8.0))

    assert found(own, first, second) == (
        "its quality is 5.0 (4.0 to 6.0), and 8.0 at Second, 7.5 at First"
    )
    assert found(own, first) is None  # the one may be better than it should be
    assert found(own, first, verified("Second", quality=scored(6.5))) is None


def test_a_score_far_below_one_other_gives_it_away() -> None:
    own = verified(quality=scored(2.0))

    assert found(own, verified("First", quality=scored(7.1))) is not None
    assert found(own, verified("First", quality=scored(7.0))) is None


@pytest.mark.parametrize(
    "other",
    [
        verified("Cheap", quality=scored(9.0)),  # itself
        verified("First", quality=scored(9.0, version="0")),  # other tasks
        verified("First", quality=scored(9.0), flags={"impostor": "..."}),
        verified("First"),
    ],
)
def test_who_is_no_measure_is_not_compared_with(other: Verified) -> None:
    assert found(verified(quality=scored(2.0)), other, other) is None


# The tokens


def counted(encoding: str, added: int) -> dict[str, int]:
    tokenizer = importlib.import_module("quicktok").get_encoding(encoding)
    return {task: tokenizer.count(prompt) + added for task, prompt in PROMPTS.items()}


def test_the_table_of_counts_is_what_the_tokenizers_count() -> None:
    for encoding, model in (("o200k_base", "gpt-4o"), ("cl100k_base", "gpt-4")):
        counts = {task: tokens.count(prompt, model) for task, prompt in PROMPTS.items()}
        assert TOKENS[encoding] == counts


@pytest.mark.parametrize("added", [0, 7, 11, 36, 1500])
@pytest.mark.parametrize("encoding", ["llama3", "qwen3"])
def test_another_tokenizer_gives_it_away_whatever_is_added_to_each_prompt(
    encoding: str, added: int
) -> None:
    own = verified(fingerprint=printed(counted(encoding, added)))

    assert found(own, tokenizer="o200k_base") == (
        "its prompts are not counted as by that model's tokenizer (o200k_base): one comes to"
        f" {55 + added} tokens, and should come to {49 + added}"
    )


@pytest.mark.parametrize("added", [0, 7, 1500])
@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_right_counts_with_hidden_instructions_are_right(encoding: str, added: int) -> None:
    own = verified(fingerprint=printed(counted(encoding, added)))

    assert found(own, tokenizer="o200k_base") is None


@pytest.mark.parametrize(
    "counts",
    [
        {task: len(prompt) // 4 for task, prompt in PROMPTS.items()},
        {task: len(prompt.encode()) // 3 + 5 for task, prompt in PROMPTS.items()},
        {task: round(len(prompt.split()) * 1.3) for task, prompt in PROMPTS.items()},
        dict.fromkeys(PROMPTS, 10),
        {"format-3": 62, "format-1": 26, "format-2": 44},  # too few
        {},
    ],
)
def test_a_provider_that_only_estimates_is_not_accused(counts: dict[str, int]) -> None:
    assert found(verified(fingerprint=printed(counts)), tokenizer="o200k_base") is None


def test_counts_of_other_questions_or_of_an_unknown_tokenizer_say_nothing() -> None:
    wrong = counted("llama3", 11)

    assert found(verified(fingerprint=printed(wrong)), tokenizer=None) is None
    other = printed(wrong, version="0")
    assert found(verified(fingerprint=other), tokenizer="o200k_base") is None


def test_all_reasons_are_told() -> None:
    own = verified(
        quality=scored(2.0), fingerprint=printed(counted("llama3", 11), reported="llama-3-8b")
    )

    told = found(own, floor=6.0, tokenizer="o200k_base")

    assert told is not None
    assert told.startswith("the provider says that llama-3-8b has answered")
    assert "that model reaches 6 at least" in told
    assert "tokenizer" in told
