"""A broken answer gone on with: which ways there are, and the joint of what comes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.openai_chat import Method, ResumedStream, extra_messages, methods
from tests.dialects.answers import (
    SECOND,
    Answer,
    Atom,
    assert_one_answer,
    broken,
    delta_of,
    event,
    heard,
    letters,
    resumed,
    split,
    stream_of,
    texts_alone,
    with_tokens,
    words,
)

# Which way


def ways(*deltas: dict[str, Any], **asked: bool) -> tuple[Method, ...]:
    _, stream = broken(event(delta) for delta in deltas)
    wanted = {"prefill": True, "best_effort": True, "structured": False, **asked}
    return methods(stream.said(), **wanted)


def test_text_can_be_gone_on_with_in_every_way() -> None:
    assert ways({"content": "x"}) == ("prefill", "again", "instruct")
    assert ways({"reasoning": "r"}, {"content": "x"}) == ("prefill", "again", "instruct")
    assert ways({"content": "x", "padding": "abc"}) == ("prefill", "again", "instruct")
    assert ways({"content": "x"}, prefill=False) == ("again", "instruct")
    assert ways({"content": "x"}, best_effort=False) == ("prefill", "again")


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "x"},
        {"content": "x", "refusal": "No"},
        {"content": "x", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]},
        {"content": "x", "tool_calls": [{"index": 0, "id": "a"}]},
        {"content": "<think>I wonder"},
        {"content": " \n"},
    ],
)
def test_what_is_not_plain_text_can_only_be_asked_for_again(delta: dict[str, Any]) -> None:
    assert ways(delta) == ("again",)


def test_json_and_log_probabilities_can_only_be_asked_for_again() -> None:
    assert ways({"content": "{"}, structured=True) == ("again",)
    _, stream = broken([with_tokens("Hello")])
    assert methods(stream.said(), prefill=True, best_effort=True, structured=False) == ("again",)


@pytest.mark.parametrize(
    "odd",
    [
        {"audio": {"data": "AAAA"}},
        {"content": [{"type": "text", "text": "x"}]},
        {"function_call": {"name": "f"}},
        {"a_field_of_tomorrow": 0},
        {"tool_calls": [{"function": {"arguments": {"a": 1}}}]},
        {"tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "x"}}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": "", "strict": True}}]},
        {"tool_calls": [{"function": {"arguments": "{"}, "extra_content": {"google": "c2ln"}}]},
        {"tool_calls": [{"id": "a", "function": {"name": "f"}, "signature": "c2ln"}]},
        {"content": "x", "images": ["data:"]},
    ],
)
def test_what_is_not_understood_is_not_gone_on_with(odd: dict[str, Any]) -> None:
    assert ways({"content": "x"}, odd) == ()
    _, stream = broken([event({"content": "Hello"})])
    out, second = resumed(stream.said(), event({"content": "Hel"} | odd) + event({}, "stop"))
    assert out == b""
    assert second.failure is not None


def test_what_a_vendor_adds_to_a_calls_opening_does_no_harm() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f"}, "extra_content": {"google": "c2ln"}}
    assert ways({"tool_calls": [call]}) == ("again",)


@pytest.mark.parametrize("beside", ["reasoning_details", "annotations", "provider_specific_fields"])
def test_thoughts_that_are_told_twice_over_are_not_gone_on_with(beside: str) -> None:
    """Where thoughts are cut in two, what is said about them can not be: a signature."""
    told: dict[str, Any] = {beside: {"text": "Hm"}}
    assert ways({"reasoning": "Hm", **told}) == ()
    assert ways({"reasoning": "Hm"}, told) == ()
    assert ways(told) == ()
    assert ways(*[{"reasoning": "Hm"}] * 100, told, *[{"reasoning": "Hm"}] * 100) == ()
    assert ways(told, {"content": "Well"}, {"reasoning": "Hm"}) == ()
    assert ways({"reasoning": "Hm", **told}, {"content": "Well"}, prefill=False) == (
        "again", "instruct"
    )  # fmt: skip
    assert ways({"reasoning": "Hm", beside: None}, {"padding": "x"}) == ("again",)
    assert ways({"reasoning": "Hm", beside: []}) == ("again",)


def test_several_choices_are_not_gone_on_with() -> None:
    _, stream = broken([event({"content": "x"})], choices=2)
    assert methods(stream.said(), prefill=True, best_effort=True, structured=False) == ()
    other = {"index": 1, "delta": {"content": "x"}}
    _, stream = broken([b"data: " + json.dumps({"choices": [other]}).encode() + b"\n\n"])
    assert methods(stream.said(), prefill=True, best_effort=True, structured=False) == ()


def test_a_second_answer_beside_the_first_is_not_joined() -> None:
    _, stream = broken([event({"content": "Hel"})])
    both = [{"index": i, "delta": {"content": "Hello"}} for i in (0, 1)]
    out, second = resumed(
        stream.said(), b"data: " + json.dumps({"choices": both}).encode() + b"\n\n"
    )
    assert out == b""
    assert second.failure is not None


# Prefill

WAYS: tuple[Method, ...] = ("prefill", "instruct")


def may_be_an_echo(said: str, rest: str) -> bool:
    """A continuation that repeats the beginning cannot be told from an echo."""
    return rest[:16] == said[:16] if len(said) >= 16 else rest.startswith(said)


def comes_round(text: str) -> bool:
    """Whether a text ends with the eight characters, or more, that it begins with."""
    text = text.strip()
    return any(text.endswith(text[:size]) for size in range(8, len(text)))


@given(texts_alone, st.data())
def test_prefilled_anywhere_the_answer_is_whole(answer: Answer, data: st.DataObject) -> None:
    """The model sees the text without the white space at its end, and gives that back."""
    whole = answer.content
    size = data.draw(st.sampled_from([1, 10_000]))
    for cut in range(1, len(whole) + 1):
        text = whole[:cut]
        if not text.strip():
            continue
        begun, stream = broken(stream_of(letters([("content", 0, text)]), "a")[:-1])
        said = stream.said()
        assert "prefill" in methods(said, prefill=True, best_effort=False, structured=False)
        (message,) = extra_messages(said, "prefill")
        shown = json.loads(bytes(message))
        assert shown["role"] == "assistant"
        rest = whole[len(shown["content"]) :]
        more = data.draw(split([("content", 0, rest)] if rest else []))
        out, second = resumed(said, b"".join(stream_of(more, "b")), "prefill", size)
        if may_be_an_echo(text, rest):
            if not rest.startswith(text) or len(text) < 16 or comes_round(text):
                assert out == b""
                assert second.failure is not None
            continue
        assert second.failure is None, (text, rest)
        assert second.complete
        assert heard(begun + out) == answer
        assert_one_answer(begun + out)


@given(st.lists(words, min_size=1, max_size=30).map("".join), st.data())
def test_a_server_that_echoes_the_prefill_adds_nothing_twice(
    rest: str, data: st.DataObject
) -> None:
    beginning = "Once upon a time"
    whole = beginning + rest
    text = whole[: data.draw(st.integers(len(beginning), len(whole)))]
    begun, stream = broken(stream_of([("content", 0, text)], "a")[:-1])
    again = data.draw(split([("content", 0, whole)]))
    ways: tuple[Method, ...] = ("prefill", "instruct")
    for method in ways:
        out, second = resumed(stream.said(), b"".join(stream_of(again, "b")), method)
        assert second.complete
        assert heard(begun + out).content == whole


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    "said",
    [
        "-" * 16,
        "-" * 1000,
        "na na na na na na ",
        "na na na na na na",
        "na na na na na n",
        " na na na na na na ",
        "| --- | --- | --- | --- |",
        "I must not talk. I must not talk.",
        "I must not talk.\nI must not talk.\n",
        "\nI must not talk. I must not talk.",
        "I must not talk. I must not talk.\n\n",
        "我不说话。" * 4,
        "A-------------------------A-------",
        "".join(f"Hello, {n}! " for n in range(200)) + "Hello, 0!",
    ],
)
def test_a_text_that_comes_round_may_be_an_echo_or_go_on(said: str, size: int) -> None:
    """Nobody knows whether `said` is told once more, or went on with its repetitions."""
    _, stream = broken(stream_of([("content", 0, said)], "a")[:-1])
    whole = [("content", 0, said + said + "\nend")]
    for atoms in (whole, letters(whole)):
        out, second = resumed(stream.said(), b"".join(stream_of(atoms, "b")), "prefill", size)
        assert out == b""
        assert second.failure is not None
        assert second.failure.code == "diverged"


def test_a_text_that_hardly_comes_round_is_looked_at_for_so_long_and_no_longer() -> None:
    said = "a" * 8 + "b" + "a" * 8 * 100_000 + "c"
    _, stream = broken(stream_of([("content", 0, said)], "a")[:-1])
    _, second = resumed(stream.said(), event({"content": said + "!"}), "prefill")
    assert second.failure is not None


@pytest.mark.parametrize("said", ["1", "One, two", "One, two, three"])
def test_whether_a_short_text_is_echoed_nobody_knows(said: str) -> None:
    begun, stream = broken(stream_of([("content", 0, said)], "a")[:-1])
    for new in (said, said + " and so on"):
        for size in (1, 1000):
            data = b"".join(stream_of(letters([("content", 0, new)]), "b"))
            out, second = resumed(stream.said(), data, "prefill", size)
            assert out == b""
            assert second.failure is not None
            assert second.failure.code == "diverged"
    out, second = resumed(stream.said(), event({"content": " and so on"}, "stop"), "prefill")
    assert heard(begun + out).content == said + " and so on"


def test_a_short_text_is_no_long_echo() -> None:
    """However many empty events come with it."""
    _, stream = broken(stream_of([("content", 0, "One, two")], "a")[:-1])
    rest = event({"content": ", two, three"}, "stop")
    slow = event({"content": "One"}) + event({"content": ""}) * 300 + rest
    out, second = resumed(stream.said(), slow, "prefill")
    assert out == b""
    assert second.failure is not None


def test_however_long_a_model_thinks_before_it_goes_on_the_caller_gets_only_text() -> None:
    begun, stream = broken(stream_of([("content", 0, "One two")], "a")[:-1])
    thoughts = [("reasoning_content", 0, "hm ")] * 1000
    for method in WAYS:
        new = b"".join(stream_of([*thoughts, ("content", 0, " three")], "b"))
        out, second = resumed(stream.said(), new, method)
        assert second.complete
        assert heard(begun + out) == Answer(content="One two three", finish="stop")


def test_a_long_echo_is_not_kept_in_memory() -> None:
    text = "".join(f"{n} " for n in range(1000))
    _, stream = broken(stream_of([("content", 0, text)], "a")[:-1])
    second = ResumedStream(SECOND, stream.said(), "prefill")
    echo = stream_of(letters([("content", 0, text + "end")]), "b")
    out = b"".join(map(second.feed, echo[:-4]))
    assert out == b""
    assert second._opening is None
    assert heard(b"".join(map(second.feed, echo[-4:]))).content == "end"
    other = ResumedStream(SECOND, stream.said(), "prefill")
    wrong = stream_of(letters([("content", 0, text[:2000] + "other")]), "b")
    assert b"".join(map(other.feed, wrong)) == b""
    assert other.failure is not None


@pytest.mark.parametrize("method", ["prefill", "instruct"])
@pytest.mark.parametrize(
    ("said", "new"),
    [
        ("The answer is \n", "forty-two"),
        ("The answer is \n", " forty-two"),
        ("The answer is  ", " "),
        ("The answer is ", ""),
        ("The answer is, as I said before", "The answer is, as far as I know"),
        ("The answer is, as I said before", "The answer is, as I said"),
    ],
)
def test_what_does_not_go_on_from_there_is_not_joined(said: str, new: str, method: Method) -> None:
    _, stream = broken(stream_of([("content", 0, said)], "a")[:-1])
    atoms = [("content", 0, new)] if new else []
    out, second = resumed(stream.said(), b"".join(stream_of(atoms, "b")), method)
    assert out == b""
    assert second.failure is not None
    assert second.failure.code == "diverged"


@pytest.mark.parametrize("opening", [("name", 0, "f"), ("refusal", 0, "No."), ("odd", 0, "x")])
@pytest.mark.parametrize("method", ["prefill", "instruct"])
def test_a_continuation_that_is_no_text_is_not_joined(opening: Atom, method: Method) -> None:
    _, stream = broken(stream_of([("content", 0, "Well")], "a")[:-1])
    more = [opening, ("content", 0, " then")]
    out, second = resumed(stream.said(), b"".join(stream_of(more, "b")), method)
    assert out == b""
    assert second.failure is not None


def test_a_tool_call_may_follow_the_text_that_went_on() -> None:
    begun, stream = broken(stream_of([("content", 0, "Let me")], "a")[:-1])
    more = [("content", 0, " look."), ("name", 0, "f"), ("arguments", 0, "{}")]
    together = {**delta_of(more[0], "b"), **delta_of(more[1], "b")}
    for data in (
        b"".join(stream_of(more, "b")),
        event(together) + b"".join(stream_of(more[2:], "b")),
    ):
        out, second = resumed(stream.said(), data, "prefill")
        assert second.complete
        assert heard(begun + out) == Answer(
            content="Let me look.", calls=[("f", "{}")], finish="stop"
        )


# Instruction


@pytest.mark.parametrize(
    ("said", "new", "joined"),
    [
        ("One two three four", " five", "One two three four five"),
        ("One two three four", "three four five", "One two three four five"),
        ("One two three fou", "three four five", "One two three four five"),
        ("One two three ", "two three four", "One two three four"),
        ("One two three four", "four five", "One two three fourfour five"),
        ("Yes", "Yes", "YesYes"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_an_instructed_model_may_repeat_the_end(
    said: str, new: str, joined: str, size: int
) -> None:
    begun, stream = broken(stream_of([("content", 0, said)], "a")[:-1])
    second = b"".join(stream_of(letters([("content", 0, new)]), "b"))
    out, resume = resumed(stream.said(), second, "instruct", size)
    assert resume.complete
    assert heard(begun + out).content == joined


def test_an_instruction_says_what_is_wanted() -> None:
    _, stream = broken(stream_of([("content", 0, "One two \n")], "a")[:-1])
    begun, ask = (json.loads(bytes(raw)) for raw in extra_messages(stream.said(), "instruct"))
    assert begun == {"role": "assistant", "content": "One two"}
    assert ask["role"] == "user"
    assert extra_messages(stream.said(), "again") == ()
