"""Tokens are counted offline, whatever the text, and in bounded time."""

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways import tokens

ENGLISH = "The quick brown fox jumps over the lazy dog, and nobody is surprised. "
RUSSIAN = "Быстрая лиса перепрыгивает через ленивую собаку, и никто не удивлён. "
CHINESE = "敏捷的棕色狐狸跳过了懒狗，没有人感到惊讶。"
CODE = "    for index, item in enumerate(items):\n        total += item.price * index\n"
DATA = '{"id": 17, "name": "Ada", "tags": ["a", "b"], "price": 12.50},\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("Hello", 1), ("Hello, world!", 4), ("<|endoftext|>", 7), ("\0", 1), ("\n\n", 1)],
)
def test_a_count_is_the_tokenizers(text: str, expected: int) -> None:
    assert tokens.count(text) == expected


@pytest.mark.parametrize(
    ("model", "old"),
    [
        ("gpt-4", True), ("gpt-4-turbo", True), ("gpt-4-0613", True), ("openai/gpt-4", True),
        ("gpt-3.5-turbo", True), ("gpt-35-turbo-16k", True), ("GPT-4", True),
        ("gpt-4o", False), ("gpt-4o-mini", False), ("gpt-4.1", False), ("gpt-4.5-preview", False),
        ("gpt-5", False), ("claude-opus-5", False), ("not-gpt-4", False), ("", False),
    ],
)  # fmt: skip
def test_old_models_count_the_old_way(model: str, old: bool) -> None:
    """Russian is a good third shorter since GPT-4o."""
    assert (tokens.count(RUSSIAN, model) > tokens.count(RUSSIAN) * 1.3) is old
    assert tokens.is_ready(model)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud800" * 300_000])
def test_half_a_surrogate_pair_is_counted_all_the_same(text: str) -> None:
    assert 0 < tokens.count(text) <= 2 * len(text)
    assert tokens.rough(text) > 0


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_is_refused(text: str) -> None:
    assert bool(tokens.count(text)) is bool(text)
    assert bool(tokens.rough(text)) is bool(text)


@pytest.mark.parametrize("piece", [ENGLISH, RUSSIAN, CHINESE, CODE, DATA])
def test_a_long_text_is_counted_by_its_sample(piece: str) -> None:
    """To a hundredth: the pieces are cut inside words."""
    times = 250_000 // len(piece) + 1
    one = tokens.count(piece * 1000) / 1000
    assert tokens.count(piece * times) == pytest.approx(one * times, rel=0.01)


def test_a_long_texts_sample_is_of_all_its_parts() -> None:
    text = ENGLISH * 3000 + CHINESE * 10_000
    parts = tokens.count(ENGLISH * 1000) * 3 + tokens.count(CHINESE * 1000) * 10
    assert tokens.count(text) == pytest.approx(parts, rel=0.1)


@pytest.mark.parametrize("piece", [ENGLISH, RUSSIAN, CHINESE, CODE, DATA])
def test_a_rough_count_is_within_a_factor_of_two(piece: str) -> None:
    text = piece * 100
    assert tokens.count(text) / 2 <= tokens.rough(text) <= tokens.count(text) * 2


def test_many_threads_may_count_at_once() -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(tokens.count(ENGLISH * 100))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tokens.count(ENGLISH * 100)] * 8


@pytest.mark.process
def test_nothing_is_loaded_before_it_is_needed() -> None:
    """And what was loaded is ready: the tokenizer takes more than all the rest."""
    script = (
        "import sys; from manyways import tokens;"
        "assert 'quicktok' not in sys.modules; assert tokens.rough('Hello') == 2;"
        "assert not tokens.is_ready(); tokens.load(); assert tokens.is_ready();"
        "assert not tokens.is_ready('gpt-4')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
