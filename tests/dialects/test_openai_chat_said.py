"""What a stream knows to have handed out: all of it, to the letter, and nothing else."""

import json

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Raw

from manyways.dialects.openai_chat import AnswerLabel, ChatStream
from tests.dialects.answers import Atom, broken, event, letters, resumed, stream_of
from tests.dialects.streams import SAMPLES, Sample, events

any_sample = st.sampled_from([sample for sample in SAMPLES if sample.choices == 1])


# What was said


any_sample = st.sampled_from([sample for sample in SAMPLES if sample.choices == 1])


@given(any_sample, st.data())
def test_what_was_said_is_what_was_handed_out(sample: Sample, data: st.DataObject) -> None:
    out, stream = broken([sample.data[: data.draw(st.integers(0, len(sample.data)))]])
    assume(stream.started)
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
    only = ChatStream(label)
    (one,) = events(only.feed(event({"content": "x"}, "stop")))
    assert one["_metadata"] == {"continuations": 1}


def test_what_was_said_is_not_told_to_logs() -> None:
    _, stream = broken([event({"reasoning": "secret"}), event({"content": "Hello"})])
    assert repr(stream.said()) == "<Said reasoning 6, content 5>"
