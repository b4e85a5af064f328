"""Foreign words as they are looked at and quoted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.verification.checks.words import QUOTED, quoted, spoken, thoughts
from manyways.verification.interview import Said


@given(text=st.text())
def test_a_quotation_is_one_short_line_that_can_be_printed(text: str) -> None:
    shown = quoted(text)

    assert shown.isprintable()
    assert len(shown) <= QUOTED + 2


def test_a_short_text_is_quoted_as_it_is() -> None:
    assert quoted("I cannot see images.") == "“I cannot see images.”"


def test_lines_become_one_and_escapes_are_left_out() -> None:
    assert quoted("\x1b[31mred\n\n  and\t\u202eblue\ud800\x00") == "“[31mred and blue”"


def test_a_long_text_shows_that_it_goes_on() -> None:
    shown = quoted("word " * 100_000)

    assert shown.startswith("“word word")
    assert shown.endswith("…”")
    assert len(shown) <= QUOTED + 2


@pytest.mark.parametrize("text", ["", " \n ", "\u200b\x00"])
def test_what_cannot_be_seen_is_nothing(text: str) -> None:
    assert quoted(text) == "nothing"


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("Four.", "Four.", ""),
        ("<think>Two and two.</think>\n\nFour.", "Four.", "Two and two."),
        ("Two and two.\n</think>Four.", "Four.", "Two and two."),
        ("\n<think>Two and", "", "Two and"),
        ("<think>\n\n</think>\n\nFour.", "Four.", ""),
        ("Say <think> to think.", "Say <think> to think.", ""),
    ],
    ids=["none", "both tags", "end only", "begin only", "empty", "in the middle"],
)
def test_thoughts_between_tags_are_no_part_of_the_answer(
    text: str, answer: str, thought: str
) -> None:
    said = Said(text=text)

    assert spoken(said) == answer
    assert thoughts(said) == thought


def test_thoughts_apart_from_the_text_come_first() -> None:
    assert thoughts(Said(text="<think>a</think>b", reasoning="why")) == "why"
