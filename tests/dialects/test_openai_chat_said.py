"""What a stream knows to have handed out: all of it, to the letter, and nothing else."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from manyways.dialects.openai_chat import AnswerLabel, ChatStream
from manyways.dialects.openai_chat.said import decode_known, decode_odd, odd_fields, pieces
from tests.dialects.answers import Atom, broken, event, letters, resumed, stream_of
from tests.dialects.streams import SAMPLES, Sample, events

# What was said

any_sample = st.sampled_from([sample for sample in SAMPLES if sample.choices == 1])


@given(any_sample, st.data())
def test_what_was_said_is_what_was_handed_out(sample: Sample, data: st.DataObject) -> None:
    out, stream = broken([sample.data[: data.draw(st.integers(0, len(sample.data)))]])
    if not stream.started:
        assert out == b""
        return
    said = stream.said()
    found = events(out)
    assert (json.loads(bytes(said.id)), json.loads(bytes(said.created))) == (
        found[0]["id"],
        found[0]["created"],
    )
    deltas = [choice["delta"] for e in found for choice in e["choices"]]
    assert said.content == "".join(delta.get("content") or "" for delta in deltas)
    assert said.reasoning == "".join(delta.get("reasoning_content") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    arguments = "".join(text for kind, _, text in said.runs if kind == "arguments")
    assert arguments == "".join(call["function"].get("arguments", "") for call in calls)
    names = [call["function"]["name"] for call in calls if "name" in call["function"]]
    assert [call.name for call in said.calls.values()] == names


def test_long_answers_are_known_to_the_letter() -> None:
    """Also where kinds change in the middle of what is noted at once."""
    atoms = [
        ("reasoning_content", 0, "думаю " * 50),
        ("content", 0, "text 🙂" * 70),
        ("name", 0, "f"),
        ("arguments", 0, "[1, 2]" * 40),
        ("name", 1, "g"),
        ("arguments", 1, "{}" * 50),
    ]
    fine = letters(atoms)
    first = stream_of(fine, "a")
    expected: list[Atom] = []
    for cut, (kind, index, text) in enumerate(fine, 3):
        run = ("reasoning" if kind == "reasoning_content" else kind, index)
        so_far = expected.pop()[2] if expected and expected[-1][:2] == run else ""
        expected.append((*run, so_far + text))
        if cut % 37 == 0 or cut > len(fine):
            _, stream = broken(first[: cut - 1])
            assert list(stream.said().runs) == expected


@pytest.mark.parametrize(
    "part",
    [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": "{"}},
        {"id": None, "type": None, "function": {"name": None, "arguments": "{"}},
    ],
)
def test_ordinary_tool_calls_are_understood_the_quick_way(part: dict[str, Any]) -> None:
    choices = Raw(json.dumps([{"index": 0, "delta": {"tool_calls": [part]}}]).encode())
    (choice,) = decode_odd(choices)
    (quick,) = decode_known(choices) or [choice]
    assert quick is not choice
    assert quick.delta is not None
    assert choice.delta is not None
    assert list(pieces(quick.delta, {})) == list(pieces(choice.delta, {}))
    assert odd_fields(choice.delta) == ()
    for unknown in ({**part, "custom": {}}, {**part, "function": {"x": 1}}):
        with pytest.raises(msgspec.ValidationError):
            decode_known(Raw(json.dumps([{"delta": {"tool_calls": [unknown]}}]).encode()))


def test_a_name_comes_in_pieces_or_again_and_again() -> None:
    def parts(*names: str) -> list[bytes]:
        return [
            event({"tool_calls": [{"index": 0, "function": {"name": name, "arguments": "x"}}]})
            for name in names
        ]

    for names in (["get_", "weather"], ["get_weather"] * 2, ["get_", "weather", "get_weather"]):
        _, stream = broken(parts(*names))
        assert stream.said().calls[0].name == "get_weather"
        arguments = [text for kind, _, text in stream.said().runs if kind == "arguments"]
        assert "".join(arguments) == "x" * len(names)


def test_what_failed_was_not_said() -> None:
    _, stream = broken([event({"content": "One"}), event({"content": "Two"}, "error")])
    assert stream.failure is not None
    assert stream.said().content == "One"


NOTE = Raw(b'{"continuations": 1}')


def test_metadata_stands_in_the_first_event_and_from_the_end_on() -> None:
    label = AnswerLabel(model="m", provider="p", id="i", created=1, metadata=NOTE)
    atoms = letters([("content", 0, "Hello")])
    data = [*stream_of(atoms, "a"), event(None, usage={"total_tokens": 1})]
    whole = ChatStream(label)
    marked = ["_metadata" in e for e in events(b"".join(map(whole.feed, data)))]
    assert marked == [True, *[False] * 5, True, True]
    _, stream = broken(data[:3])
    out, _ = resumed(stream.said(), b"".join(data), label=label)
    assert ["_metadata" in e for e in events(out)] == [True, *[False] * 2, True, True]
    each = ChatStream(label)
    out = b"".join(each.feed(event({"content": text}, "stop")) for text in "abc")
    assert ["_metadata" in e for e in events(out)] == [True] * 3
    only = ChatStream(label)
    (one,) = events(only.feed(event({"content": "x"}, "stop")))
    assert one["_metadata"] == {"continuations": 1}


def test_what_was_said_is_not_told_to_logs() -> None:
    _, stream = broken([event({"reasoning": "secret"}), event({"content": "Hello"})])
    assert repr(stream.said()) == "<Said reasoning 6, content 5>"
