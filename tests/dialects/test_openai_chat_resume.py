"""A broken answer asked for again: together the whole answer, to the letter, or a failure."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.openai_chat import Method, ResumedStream, methods
from tests.dialects.answers import (
    THIRD,
    Answer,
    Atom,
    answers,
    assert_one_answer,
    atoms_of,
    broken,
    event,
    heard,
    letters,
    resumed,
    split,
    stream_of,
    texts,
    with_tokens,
)
from tests.dialects.streams import SAMPLES, Sample, carry, events

any_sample = st.sampled_from([sample for sample in SAMPLES if sample.choices == 1])


# Asked again


@given(answers, st.data())
def test_broken_anywhere_and_asked_again_the_answer_is_whole(
    answer: Answer, data: st.DataObject
) -> None:
    """Whatever the first said last, a letter or a tool call's name: no word is lost, none
    repeated, and nobody sees that two have spoken, but for the names."""
    atoms = atoms_of(answer)
    again = b"".join(stream_of(data.draw(split(atoms)), "b", answer.finish, 9))
    size = data.draw(st.sampled_from([1, 7, 10_000]))
    first = stream_of(letters(atoms), "a", answer.finish)
    for cut in range(2, len(first)):
        begun, stream = broken(first[:cut])
        rest, second = resumed(stream.said(), again, size=size)
        assert second.failure is None
        assert second.complete
        assert second.started
        assert heard(begun + rest) == answer
        assert_one_answer(begun + rest)
        assert {e["model"] for e in events(rest)} == {"second-name"}
        assert {e["provider"] for e in events(rest)} == {"Stall"}


@given(answers, st.data())
def test_broken_twice_the_answer_is_still_whole(answer: Answer, data: st.DataObject) -> None:
    atoms = atoms_of(answer)
    first = stream_of(letters(atoms), "a", answer.finish)
    second = stream_of(data.draw(split(atoms)), "b", answer.finish)
    third = b"".join(stream_of(data.draw(split(atoms)), "c", answer.finish))
    one, stream = broken(first[: data.draw(st.integers(2, len(first) - 1))])
    for cut in range(len(second)):
        two, resume = resumed(stream.said(), b"".join(second[:cut]))
        assert resume.failure is None
        assert not resume.complete
        assert resume.started == bool(two)
        three, last = resumed(resume.said(), third, label=THIRD)
        assert last.complete
        assert heard(one + two + three) == answer
        assert_one_answer(one + two + three)


@given(answers, st.data())
def test_another_answer_is_never_joined(answer: Answer, data: st.DataObject) -> None:
    """Nothing is handed out before all that was said has been said again."""
    atoms = letters(atoms_of(answer))
    said_atoms = [atom for atom in atoms if atom[0] != "reasoning_content"] or atoms
    cut = data.draw(st.integers(1, len(said_atoms)))
    changed = data.draw(st.integers(0, cut - 1))
    kind, index, text = said_atoms[changed]
    other = [*said_atoms[:changed], (kind, index, "X" + text), *said_atoms[changed + 1 :]]
    _, stream = broken(stream_of(said_atoms[:cut], "a", None)[: cut + 1])
    out, second = resumed(stream.said(), b"".join(stream_of(other, "b", answer.finish)))
    assert out == b""
    assert not second.started
    assert not second.complete
    assert second.failure is not None
    assert second.failure.code == "diverged"


@given(answers, st.data())
def test_an_answer_that_ends_earlier_is_another_one(answer: Answer, data: st.DataObject) -> None:
    atoms = letters(atoms_of(answer))
    _, stream = broken(stream_of(atoms, "a")[:-1])
    shorter = atoms[: data.draw(st.integers(0, len(atoms) - 1))]
    out, second = resumed(stream.said(), b"".join(stream_of(shorter, "b", "stop")))
    thought = [atom for atom in atoms if atom[0] == "reasoning_content"]
    if len(shorter) >= len(thought) == len(atoms):
        pytest.fail("shorter is shorter")
    assert out == b""
    assert second.failure is not None
    assert second.failure.code == "diverged"
    assert not second.complete


@given(answers)
def test_an_answer_that_ends_where_the_first_broke_only_ends(answer: Answer) -> None:
    atoms = atoms_of(answer)
    begun, stream = broken(stream_of(atoms, "a")[:-1])
    rest, second = resumed(stream.said(), b"".join(stream_of(atoms, "b", answer.finish)))
    assert second.complete
    assert heard(begun + rest) == answer
    assert len(events(rest)) == 1


@pytest.mark.parametrize("method", ["again", "prefill", "instruct"])
def test_a_whole_answer_in_one_event_is_joined_too(method: Method) -> None:
    begun, stream = broken(stream_of([("content", 0, "One two three fo")], "a")[:-1])
    for text in ("One two three four", *(["ur"] if method != "again" else [])):
        out, second = resumed(stream.said(), event({"content": text}, "stop"), method)
        assert second.complete
        assert heard(begun + out) == Answer(content="One two three four", finish="stop")


@given(answers, st.data())
def test_one_that_breaks_too_hands_out_nothing_twice(answer: Answer, data: st.DataObject) -> None:
    """An attempt that did not come to the joint has changed nothing."""
    atoms = letters(atoms_of(answer))
    cut = data.draw(st.integers(1, len(atoms)))
    _, stream = broken(stream_of(atoms, "a")[: cut + 1])
    said = stream.said()
    out, second = resumed(said, b"".join(stream_of(atoms, "b")[: data.draw(st.integers(0, cut))]))
    if not second.started:
        assert out == b""
        assert second.failure is None
        assert second.said() == said


def test_events_behind_the_joint_keep_their_bytes() -> None:
    _, stream = broken(stream_of([("content", 0, "Hello")], "a")[:-1])
    odd = b'{"index": 0, "delta": {"content": "\\u0041", "padding": [ ]}, "x": 1.50}'
    tail = b'data: {"choices": [' + odd + b'], "big": 12345678901234567890, "y": [ ]}\n\n'
    out, _ = resumed(stream.said(), event({"content": "Hello"}) + tail)
    assert b'"content":"\\u0041"' in out
    assert b'"x":1.50' in out
    assert b'"big":12345678901234567890,"y":[ ]' in out


def test_an_event_across_the_joint_is_trimmed_and_keeps_what_else_it_has() -> None:
    _, stream = broken([event({"role": "assistant", "content": "Hel"}, id="a", created=5)])
    across = event({"role": "assistant", "content": "Hello"}, id="b", created=6, x={"y": 1})
    out, _ = resumed(stream.said(), across)
    (found,) = events(out)
    assert found["choices"][0]["delta"] == {"content": "lo"}
    assert (found["id"], found["created"], found["x"]) == ("a", 5, {"y": 1})


@given(any_sample, st.data())
def test_every_sample_can_be_asked_for_again_wherever_it_breaks(
    sample: Sample, data: st.DataObject
) -> None:
    whole, _ = carry([sample.data])
    begun, stream = broken([sample.data[: data.draw(st.integers(0, sample.last_payload_end - 1))]])
    if not stream.started:
        assert begun == b""
        return
    said = stream.said()
    ways = methods(said, prefill=False, best_effort=False, structured=False)
    if not ways:
        assert said.beside == {"reasoning_details"}
        assert not said.past_reasoning
        return
    rest, second = resumed(said, sample.data)
    assert second.complete
    told = [choice for e in events(begun + rest) for choice in e["choices"]]
    assert told == [choice for e in events(whole) for choice in e["choices"]]


# Thoughts


def test_thoughts_are_passed_over_where_the_caller_is_past_them() -> None:
    said_before = [("reasoning_content", 0, "Hm."), ("content", 0, "Four")]
    _, stream = broken(stream_of(said_before, "a")[:-1])
    other = [("reasoning_content", 0, "Let me see."), ("content", 0, "Four"), ("content", 0, ".")]
    ways: list[tuple[Method, list[Atom]]] = [
        ("again", other),
        ("prefill", [other[0], other[2]]),
    ]
    for method, atoms in ways:
        out, second = resumed(stream.said(), b"".join(stream_of(atoms, "b")), method)
        assert second.complete
        assert heard(out) == Answer(content=".", finish="stop")


def test_other_thoughts_are_another_answer_while_the_caller_is_in_them() -> None:
    _, stream = broken(stream_of([("reasoning_content", 0, "Hm.")], "a")[:-1])
    for other in ("Hmm.", "H"):
        again = stream_of([("reasoning_content", 0, other), ("content", 0, "Four")], "b")
        out, second = resumed(stream.said(), b"".join(again))
        assert out == b""
        assert second.failure is not None


@pytest.mark.parametrize("both", [False, True])
def test_thoughts_go_on_in_the_field_where_they_began(both: bool) -> None:
    _, stream = broken([event({"reasoning_content": "Hm"})])
    whole = {"reasoning": "Hm, ", **({"reasoning_content": "Hm, "} if both else {})}
    out, _ = resumed(stream.said(), event(whole) + event({"reasoning": "so"}))
    deltas = [e["choices"][0]["delta"] for e in events(out)]
    assert [delta["reasoning_content"] for delta in deltas] == [", ", "so"]
    assert both == ("reasoning" in deltas[0])


# Tool calls


def test_the_ids_the_caller_has_stay_and_new_calls_bring_theirs() -> None:
    atoms = [("name", 0, "f"), ("arguments", 0, "{}"), ("name", 1, "g"), ("arguments", 1, "[]")]
    begun, stream = broken(stream_of(atoms, "a")[:2])
    rest, _ = resumed(stream.said(), b"".join(stream_of(atoms, "b", "tool_calls")))
    calls = [
        call
        for e in events(begun + rest)
        for call in e["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert [call["id"] for call in calls if "id" in call] == ["a-0", "b-1"]


@pytest.mark.parametrize(
    "other",
    [
        [("name", 0, "ff"), ("arguments", 0, "{}")],
        [("name", 0, "g"), ("arguments", 0, "{}")],
        [("name", 1, "f"), ("arguments", 1, "{}")],
        [("content", 0, "x"), ("name", 0, "f"), ("arguments", 0, "{}")],
        [("refusal", 0, "x")],
        [("content", 0, "x")],
    ],
)
@pytest.mark.parametrize("cut", [2, 3])
def test_another_call_is_another_answer(other: list[Atom], cut: int) -> None:
    _, stream = broken(stream_of([("name", 0, "f"), ("arguments", 0, "{")], "a")[:cut])
    out, second = resumed(stream.said(), b"".join(stream_of(other, "b")))
    assert out == b""
    assert second.failure is not None
    assert second.failure.code == "diverged"


def test_what_providers_add_to_a_call_behind_the_joint_is_kept() -> None:
    _, stream = broken(stream_of([("name", 0, "f"), ("arguments", 0, "{")], "a")[:-1])
    again = stream_of([("name", 0, "f"), ("arguments", 0, "{}")], "b")[:-1]
    signed = {"index": 0, "id": "b-0", "type": "function", "signature": "c2ln"}
    out, _ = resumed(stream.said(), b"".join(again) + event({"tool_calls": [signed]}))
    found = [e["choices"][0]["delta"]["tool_calls"] for e in events(out)]
    assert found == [
        [{"index": 0, "function": {"arguments": "}"}}],
        [{"index": 0, "signature": "c2ln"}],
    ]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    def call(id_: str | None, name: str | None, arguments: str) -> bytes:
        return event(
            {"tool_calls": [{"id": id_, "function": {"name": name, "arguments": arguments}}]}
        )

    _, stream = broken([call("a", "f", "{"), call(None, None, "}"), call("b", "g", "[")])
    said = stream.said()
    assert said.runs == (
        ("name", 0, "f"), ("arguments", 0, "{}"), ("name", 1, "g"), ("arguments", 1, "["),
    )  # fmt: skip
    again = call("c", "f", "{}") + call("d", "g", "[") + call(None, None, "]") + call("e", "h", "")
    out, second = resumed(said, again)
    assert second.failure is None
    found = [e["choices"][0]["delta"]["tool_calls"][0] for e in events(out)]
    assert found[0] == {"index": 1, "function": {"arguments": "]"}}
    assert found[1]["id"] == "e"


# Progress in silence


def test_words_the_caller_has_already_are_progress() -> None:
    before = [("reasoning_content", 0, "hm"), ("content", 0, "abc"), ("name", 0, "f")]
    atoms = [*before, ("arguments", 0, "[]")]
    _, stream = broken(stream_of(atoms, "a")[:-1])
    second = ResumedStream(THIRD, stream.said(), "again")
    for count, data in enumerate(stream_of(letters(atoms), "b")[:-1], 1):
        assert second.feed(data) == b""
        assert second.heard == count


@pytest.mark.parametrize(
    "nothing",
    [
        {},
        {"content": ""},
        {"role": "assistant", "content": ""},
        {"reasoning_content": "", "tool_calls": []},
        {"tool_calls": [{"index": 0, "id": "b", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]},
        {"padding": "abc", "annotations": []},
    ],
)
def test_events_that_say_nothing_are_no_progress(nothing: dict[str, Any]) -> None:
    """Else a provider could hold a broken answer up to its deadline."""
    _, stream = broken(stream_of([("name", 0, "f"), ("arguments", 0, "[]")], "a")[:-1])
    second = ResumedStream(THIRD, stream.said(), "again")
    for data in [*stream_of([("name", 0, "f"), ("arguments", 0, "[")], "b")[:-1]]:
        assert second.feed(data) == b""
    heard_before = second.heard
    for _ in range(1000):
        assert second.feed(event(nothing)) == b""
    assert second.heard == heard_before
    assert second.failure is None


@pytest.mark.parametrize("method", ["again", "prefill", "instruct"])
def test_an_opening_is_heard_once_and_thoughts_as_long_as_they_last(method: Method) -> None:
    _, stream = broken([event({"content": "One two three four"})])
    second = ResumedStream(THIRD, stream.said(), method)
    for _ in range(100):
        second.feed(event({"role": "assistant", "content": ""}))
    assert second.heard == 1
    for _ in range(100):
        second.feed(event({"reasoning": "hm"}))
    assert second.heard == 101


# The end in each event


def test_an_answer_that_ended_in_each_event_and_broke_can_be_gone_on_with() -> None:
    begun, stream = broken([event({"content": "One"}, "stop"), event({"content": " two"}, "stop")])
    assert not stream.complete
    new = b"".join(stream_of([("content", 0, "One two three")], "b"))
    out, second = resumed(stream.said(), new)
    assert second.complete
    texts_told = [e["choices"][0]["delta"].get("content", "") for e in events(begun + out)]
    assert "".join(texts_told) == "One two three"


# Log probabilities


def test_log_probabilities_are_trimmed_with_their_text() -> None:
    _, stream = broken([with_tokens("Hel", "lo")])
    out, second = resumed(stream.said(), with_tokens("He", "llo", " wor") + with_tokens("ld"))
    assert second.failure is None
    told = [token["token"] for e in events(out) for token in e["choices"][0]["logprobs"]["content"]]
    assert told == [" wor", "ld"]


@pytest.mark.parametrize(
    "again",
    [
        with_tokens("Hel", "lo wor"),
        event({"content": "Hello"}) + event({"content": " world"}),
        with_tokens("Hello", " world").replace(b'"bytes": [72', b'"bytes": [72, 72'),
        with_tokens("Hello", " world").replace(b'"token"', b'"text"'),
    ],
)
def test_log_probabilities_that_do_not_fit_are_not_joined(again: bytes) -> None:
    _, stream = broken([with_tokens("Hel", "lo")])
    out, second = resumed(stream.said(), again)
    assert out == b""
    assert second.failure is not None


# Usage, and how it came about


def test_the_usage_of_all_parts_is_added_up() -> None:
    def usage(prompt: int, cost: float, **more: Any) -> dict[str, Any]:
        details = {"reasoning_tokens": prompt, "audio": None}
        return {"prompt_tokens": prompt, "cost": cost, "details": details, **more}

    _, stream = broken([event({"content": "One"}, usage=usage(1, 0.1, kind="a"))])
    _, second = resumed(
        stream.said(), event({"content": "One two"}) + event(None, usage=usage(20, 0.2))
    )
    again = event({"content": "One two three"}, usage=None) + event({}, "stop")
    out, third = resumed(second.said(), again + event(None, usage=usage(300, 0.4)), label=THIRD)
    assert third.complete
    assert [e["usage"] for e in events(out) if e.get("usage")] == [usage(321, 0.7, kind="a")]
    assert json.loads(bytes(third.said().usage or b"")) == usage(321, 0.7, kind="a")


@pytest.mark.parametrize("odd", [b"5", b"[]", b'"none"', b'{"n": 1e999999}', b"[" * 99 + b"]" * 99])
def test_a_usage_of_an_unknown_kind_does_no_harm(odd: bytes) -> None:
    first = b'data: {"choices": [{"delta": {"content": "x"}}], "usage": %b}\n\n' % odd
    _, stream = broken([first])
    for usage in (odd, b'{"n": 9e999999}', b'{"n": 1}'):
        last = b'data: {"choices": [{"finish_reason": "stop"}], "usage": %b}\n\n' % usage
        _, second = resumed(stream.said(), event({"content": "x"}) + last)
        assert second.complete


# Anything at all


@given(st.binary(), st.sampled_from(["again", "prefill", "instruct"]))
def test_any_bytes_at_all_never_join(data: bytes, method: Method) -> None:
    _, stream = broken([event({"content": "One two three four"})])
    out, second = resumed(stream.said(), data, method)
    assert out == b""
    assert not second.complete


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
odd_calls = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 1) | json_values,
            "id": st.sampled_from(["a", "b"]) | json_values,
            "function": st.fixed_dictionaries(
                {}, optional={"name": st.just("f"), "arguments": texts | json_values}
            ),
        },
    ),
    max_size=2,
)
odd_deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant") | json_values,
        "content": texts | json_values,
        "reasoning": texts | json_values,
        "reasoning_content": texts | json_values,
        "refusal": texts | json_values,
        "tool_calls": odd_calls | json_values,
        "odd": json_values,
    },
)
odd_choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, None, 1]),
        "delta": odd_deltas,
        "logprobs": json_values | st.fixed_dictionaries({"content": json_values}),
        "finish_reason": st.sampled_from([None, None, "", "stop", "error"]),
    },
)
odd_events = st.fixed_dictionaries(
    {"choices": st.lists(odd_choices, max_size=2) | st.none()}, optional={"usage": json_values}
)


@given(
    texts.filter(bool),
    st.lists(odd_events, max_size=4),
    st.lists(odd_events, max_size=4),
    st.sampled_from(["again", "prefill", "instruct"]),
)
def test_any_json_at_all_gives_events_or_a_failure(
    text: str, first: list[Any], second: list[Any], method: Method
) -> None:
    def sse(found: list[Any]) -> bytes:
        return b"".join(b"data: %b\n\n" % json.dumps(e).encode() for e in found)

    first = [*first[:1], {"choices": [{"delta": {"content": text}}]}, *first[1:]]
    _, stream = broken([sse(first)])
    if not stream.started:
        assert stream.failure is not None
        return
    said = stream.said()
    out, resume = resumed(said, sse(first + second), method)
    found = events(out)
    assert resume.started == bool(found)
    assert {(e["id"], e["created"]) for e in found} <= {
        (json.loads(bytes(said.id)), json.loads(bytes(said.created)))
    }
    now = resume.said()
    assert now.content.startswith(said.content)
    assert now.reasoning.startswith(said.reasoning)
    assert now.calls.keys() >= said.calls.keys()
