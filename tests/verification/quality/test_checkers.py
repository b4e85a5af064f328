"""Rules take an answer in any fair dress, and no other answer in any."""

import json
import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.verification.quality import TASKS
from manyways.verification.quality.checkers import (
    LONGEST,
    Checker,
    a_number,
    exactly,
    fields,
    form,
    items,
    number,
    one_of,
    printed,
    row,
    spoken,
    word,
    words,
)

DRESSES = (
    "{}",
    " {} \n",
    "{}.",
    "**{}**",
    "**{}.**",
    "*{}*",
    "`{}`",
    '"{}"',
    "«{}»",
    "“{}”",
    "```\n{}\n```",
    "```text\n{}\n```",
    "The answer is {}",
    "The answer is {}.",
    "The answer is: {}",
    "The final answer is **{}**.",
    "Answer: {}",
    "**Answer:** {}",
    "**Answer: {}**",
    "Answer:\n\n{}",
    "Answer = {}",
    "Ответ: {}",
    "Ответ: **{}**.",
    "**Ответ:** {}",
    "Ответ — {}.",
    "Let me think about it first.\n\nThe answer is {}.",
    "$\\boxed{{}}$",
    "\\[ \\boxed{{}} \\]",
    "So it is \\(\\boxed{\\text{{}}}\\).",
    "$\\text{{}}$",
    "\\({}\\)",
    "$${}$$",
    "<think>Perhaps 17, or Eve? No.</think>{}",
    "<think>\n\n</think>\n\n{}",
    "<thinking>Perhaps 17.</thinking>\nAnswer: {}",
    "{}\n\nThis follows from what was said.",
    "Thinking about it for a moment:\n\n{}",
)


def dressed(value: str) -> st.SearchStrategy[str]:
    return st.sampled_from(DRESSES).map(lambda dress: dress.replace("{}", value))


def separated(value: int, separator: str) -> str:
    return f"{value:,}".replace(",", separator)


NUMBERS = st.integers(min_value=-(10**9), max_value=10**9)
SEPARATORS = st.sampled_from(["", ",", " ", "\u00a0", "\u202f", "'", "’"])
NAMES = st.sampled_from(["Dan", "Дарья", "Zoë", "Ёлка"])


@given(st.data(), NUMBERS, SEPARATORS, st.sampled_from(["", ".0", ",00"]))
def test_a_number_is_known_in_every_dress(
    data: st.DataObject, value: int, separator: str, decimals: str
) -> None:
    if separator == ",":
        decimals = decimals.replace(",", ".")
    answer = data.draw(dressed(separated(value, separator) + decimals))

    assert number(value)(answer) == 1.0


@given(st.data(), NUMBERS)
def test_a_minus_may_be_a_real_one(data: st.DataObject, value: int) -> None:
    assert number(value)(data.draw(dressed(str(value).replace("-", "−")))) == 1.0


@given(st.data(), NUMBERS, NUMBERS, SEPARATORS)
def test_no_dress_makes_another_number_right(
    data: st.DataObject, value: int, other: int, separator: str
) -> None:
    near = [value + 1, value - 1, value * 10, value * 10 + 1, value * 1000, -value, other]
    wrong = data.draw(st.sampled_from([one for one in near if one != value]))

    assert number(value)(data.draw(dressed(separated(wrong, separator)))) == 0.0


@given(st.data(), st.integers(2, 10**6))
def test_who_hedges_has_not_answered(data: st.DataObject, value: int) -> None:
    hedge = data.draw(
        st.sampled_from(
            [
                "{} or {}",
                "{} или {}",
                "either {} or {}",
                "The answer is {} or {}.",
                "{}\n{}",
                "{}\n{}\n{}",
            ]
        )
    )
    answer = hedge.replace("{}", str(value - 1), 1).replace("{}", str(value), 1)

    assert number(value)(answer.replace("{}", str(value + 1))) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "17 × 23 = 391",
        "17 * 23 = 340 + 51 = 391",
        "$17 \\times 23 = 391$",
        "The answer is 17 × 23 = 391.",
        "The answer is 391, because 17 × 20 = 340 and 17 × 3 = 51.",
        "391 km",
        "€391",
        "$391",
        "391 minutes (6 hours and 31 minutes)",
        "It takes 391 minutes.",
        "391\n\n17 × 20 = 340\n17 × 3 = 51",
        "Step 1: 17 × 20 = 340.\nStep 2: 17 × 3 = 51.\nTogether: 391",
        "3.91e2",
        "٣٩١",
    ],
)
def test_a_number_may_stand_behind_its_working(answer: str) -> None:
    assert number(391)(answer) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "three hundred and ninety-one",
        "391.5",
        "0.391",
        "3,91",
        "391e2",
        "1391",
        "3911",
        "x391",
        "v1.391",
        "not 391",
        "It isn't 391",
        "не 391",
        "391 + 1",
        "391 / 2",
        "391 = 17 × 24",
        "391e999999999999",
        "391.5e9999",
        "1.391.2",
        "∞",
        "²",
        "٣٩٢",
    ],
)
def test_what_only_looks_like_a_number_is_none(answer: str) -> None:
    assert number(391)(answer) == 0.0


def test_a_rule_decides_where_many_numbers_are_right() -> None:
    check = a_number("an even number", lambda found: found % 2 == Decimal(0))

    assert (check("12"), check("13"), check("none")) == (1.0, 0.0, 0.0)
    assert check.expected == "an even number"


@given(st.data(), NAMES)
def test_a_word_is_known_in_every_dress_and_case(data: st.DataObject, name: str) -> None:
    spelled = data.draw(st.sampled_from([name, name.upper(), name.lower(), name.replace("Ё", "Е")]))

    assert word(name)(data.draw(dressed(spelled))) == 1.0
    assert one_of(name, ("Eve", "Finn"))(data.draw(dressed(spelled))) == 1.0


@given(st.data(), NAMES, st.sampled_from(["Eve", "X{}", "{}x", "{}-{}", "not {}", "{} Eve", "yes"]))
def test_a_word_is_not_another(data: st.DataObject, name: str, other: str) -> None:
    assert word(name)(data.draw(dressed(other.replace("{}", name)))) == 0.0


@given(st.data(), NAMES, st.sampled_from(["Eve", "{} and Eve", "Eve, {}", "X{}", "{}x"]))
def test_a_name_is_not_right_beside_another(data: st.DataObject, name: str, other: str) -> None:
    answer = data.draw(dressed(other.replace("{}", name)))

    assert one_of(name, ("Eve", "Finn"))(answer) == 0.0


def test_a_word_that_is_only_mentioned_is_no_answer() -> None:
    check = word("UNKNOWN")

    assert check("You asked me to say UNKNOWN if the text does not tell, but I can guess.") == 0.0
    assert check("The word UNKNOWN has seven letters") == 0.0
    assert check("Perhaps 12, but it is UNKNOWN") == 0.0
    assert check("UNKNOWN, or 12") == 0.0
    assert check("UNKNOWN (the text does not tell)") == 1.0
    assert check("UNKNOWN - the text does not tell") == 1.0
    assert check("UNKNOWN because the text does not tell") == 1.0
    assert check("The number is UNKNOWN.") == 1.0
    assert check("I am sure that nobody could tell: **UNKNOWN**, as you say") == 1.0


@given(st.data(), st.sampled_from(["[1, 9]", "yaw", "1 2 3", "a|b"]))
def test_what_is_printed_may_have_other_blanks(data: st.DataObject, value: str) -> None:
    fair = [dress for dress in DRESSES if dress != "*{}*"]  # a star may have been printed
    dress = data.draw(st.sampled_from([*fair, "The program prints {}", "Это напечатает: {}"]))
    blanks = data.draw(st.sampled_from([value, value.replace(" ", ""), value.replace(",", " , ")]))

    assert printed(value)(dress.replace("{}", blanks)) == 1.0
    assert printed(value)(dress.replace("{}", f"{value}0")) == 0.0
    assert printed("YAW")(dress.replace("{}", "yaw")) == 0.0


@given(st.permutations("ABC"), st.sampled_from(["", " ", ", ", "-", " – ", "\n", " > ", " → "]))
def test_a_row_may_be_separated_in_any_way(order: list[str], separator: str) -> None:
    check = row("C first", "ABC", lambda found: found[0] == "C")
    answer = separator.join(order)

    # Each on a line of its own would be as many guesses.
    fair = "\n" not in separator
    assert check(answer) == float(order[0] == "C" and fair)
    assert check(f"**{answer}**.") == float(order[0] == "C" and fair)
    assert check(f"{answer}C") == check(answer[:-1]) == check("") == 0.0


OBJECT = {"name": "Ada", "age": 36, "tags": ["x", "y"], "left": None, "alive": False}


@given(st.permutations(list(OBJECT)), st.sampled_from([None, 0, 2]), st.booleans(), st.booleans())
def test_json_may_be_laid_out_in_any_way(
    order: list[str], indent: int | None, fence: bool, escaped: bool
) -> None:
    text = json.dumps({key: OBJECT[key] for key in order}, indent=indent, ensure_ascii=escaped)

    assert fields(OBJECT)(f"```json\n{text}\n```" if fence else f"\n{text} ") == 1.0


@given(st.sampled_from(list(OBJECT)), st.sampled_from(["36", "None", 1, True, [], ["x"], {}, 36.5]))
def test_each_wrong_value_costs_its_share(key: str, value: object) -> None:
    assert fields(OBJECT)(json.dumps({**OBJECT, key: value})) == pytest.approx(4 / 5)


@given(st.sampled_from(list(OBJECT)))
def test_a_key_too_many_or_too_few_costs_everything(key: str) -> None:
    fewer = {name: value for name, value in OBJECT.items() if name != key}

    assert fields(OBJECT)(json.dumps(fewer)) == 0.0
    assert fields(OBJECT)(json.dumps({**OBJECT, f"{key}2": 1})) == 0.0
    assert fields(OBJECT)(json.dumps({**fewer, key.upper(): OBJECT[key]})) == 0.0


@pytest.mark.parametrize(
    "around", ["Here you are: {}", "{} Is that right?", "[{}]", "{}{}", "'{}'", "```\n{}"]
)
def test_anything_beside_json_costs_everything(around: str) -> None:
    assert fields(OBJECT)(around.replace("{}", json.dumps(OBJECT))) == 0.0


def test_json_within_json_is_compared_to_its_ground() -> None:
    check = fields({"a": {"b": [1, {"c": 2}]}})

    assert check('{"a": {"b": [1, {"c": 2}]}}') == 1.0
    assert check('{"a": {"b": [1, {"c": 3}]}}') == 0.0
    assert check('{"a": {"b": [1, {"c": 2, "d": 3}]}}') == 0.0
    assert check('{"a":' * 2000) == 0.0


@given(st.text(string.ascii_letters + " /\n", min_size=1, max_size=20))
def test_what_must_be_exact_is_exact(answer: str) -> None:
    assert exactly("A/B")(answer) == float(answer.strip() == "A/B")
    assert exactly("A/B")(f"The answer is {answer}") == 0.0


def test_words_and_items_are_those_of_one_line() -> None:
    assert words("Don't stop, well-known Ёжик!") == ["don't", "stop", "well-known", "ежик"]
    assert words("one\ntwo") == items("one\ntwo") == []
    assert items("a, b ,c.") == ["a", "b", "c"]
    assert form("x", lambda text: text == "x")("**x**") == 1.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("4", "4"),
        ("<think>5</think>4", "4"),
        ("<think>5</think> <think>6</think>\n4 ", "4"),
        ("5</think>4", "4"),
        ("<think>5", ""),
        ("4<think>5", "4"),
        ("\ufeff4\u200b\r\n", "4"),
    ],
)
def test_thoughts_are_not_what_was_said(answer: str, said: str) -> None:
    assert spoken(answer) == said


@given(st.sampled_from([task.check for task in TASKS]), st.text(st.characters(), max_size=200))
def test_no_text_whatever_breaks_a_rule(check: Checker, answer: str) -> None:
    for text in (answer, f"\\boxed{{{answer}", f"Answer: {answer}", f"{{{answer}", answer * 9):
        assert 0.0 <= check(text) <= 1.0


PIECES = (
    *("1", "1,111", "1 111 ", "-", "**", "\\boxed{", "{", "[", "answer: ", "<think>", "</think>"),
    *("(", "a'", "is ", "`", "\n", "п", "пть,", "\\text{", "1e", "\ud800", "٣", "or 1 ", "$", "="),
)


@pytest.mark.parametrize("piece", PIECES)
def test_the_worst_texts_are_judged_to_their_end(piece: str) -> None:
    """The longest text that is searched at all, in the worst forms, is searched by every rule."""
    text = (piece * LONGEST)[: LONGEST - 1]
    for task in TASKS:
        assert task.check(text) < 1.0
        assert task.check(f"{text}{piece * 10}") < 1.0


def test_an_answer_that_is_far_too_long_is_none() -> None:
    assert number(4)("4" + "\n" * LONGEST) == 1.0  # blanks are nothing
    assert number(4)("4\n" + "x y" * LONGEST) == 0.0
    assert number(4)(f"<think>{'x y' * LONGEST}</think>4") == 1.0
