"""What a stream tells of its usage, what it leaves to be counted, what its caller sees of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.openai_chat import ChatStream, ResumedStream
from tests.dialects.answers import (
    SECOND,
    THIRD,
    Answer,
    answers,
    atoms_of,
    broken,
    event,
    letters,
    resumed,
    split,
    stream_of,
    texts_alone,
)
from tests.dialects.streams import LABEL, SAMPLES, Sample, events

USAGE = {"prompt_tokens": 9, "completion_tokens": 5}
ONLY_USAGE = event(None, usage=USAGE)
DONE = b"data: [DONE]\n\n"


def spared(*pieces: bytes, choices: int = 1) -> tuple[bytes, ChatStream]:
    """What a caller gets that has not asked for usage."""
    stream = ChatStream(LABEL, choices, wants_usage=False)
    return b"".join(map(stream.feed, pieces)) + stream.end(), stream


def told(stream: ChatStream) -> Any:
    return None if stream.usage is None else json.loads(bytes(stream.usage))


def said_in(answer: Answer) -> str:
    """All text of an answer, a call's name once."""
    calls = "".join(name + arguments for name, arguments in answer.calls)
    return answer.reasoning + answer.content + answer.refusal + calls


# Who sees it


def test_a_caller_that_has_not_asked_gets_no_event_of_usage_alone() -> None:
    data = [*stream_of([("content", 0, "Hi")]), ONLY_USAGE, DONE]
    out, stream = spared(*data)
    assert out == spared(*data[:-2], DONE)[0]
    assert (stream.complete, stream.done, told(stream)) == (True, True, USAGE)


@pytest.mark.parametrize("choices", [b"", b'"choices": null, ', b'"choices": [], "x": 1, '])
def test_an_event_without_choices_is_one_of_usage_alone(choices: bytes) -> None:
    event_ = b'data: {%b"usage": {"prompt_tokens": 9, "completion_tokens": 5}}\n\n' % choices
    out, stream = spared(event_)
    assert (out, told(stream)) == (b"", USAGE)


def test_usage_that_is_null_is_left_out() -> None:
    data = [event({"content": "Hi"}, usage=None), event({}, "stop", usage=None, x=1)]
    assert all("usage" not in found for found in events(spared(*data)[0]))
    assert events(spared(*data)[0])[1]["x"] == 1
    stream = ChatStream(LABEL)
    assert all(found["usage"] is None for found in events(b"".join(map(stream.feed, data))))


def test_usage_that_nobody_asked_for_passes_beside_choices() -> None:
    out, stream = spared(event({"content": "Hi"}, usage=USAGE), event({}, "stop"))
    assert [found.get("usage") for found in events(out)] == [USAGE, None]
    assert told(stream) == USAGE


@given(answers, st.lists(st.booleans(), min_size=80, max_size=80))
def test_being_spared_usage_changes_nothing_else(answer: Answer, where: list[bool]) -> None:
    plain = stream_of(letters(atoms_of(answer))[:60], finish=answer.finish)
    told_often = [
        piece for data, here in zip(plain, where, strict=False)
        for piece in ([ONLY_USAGE] if here else []) + [data]
    ]  # fmt: skip
    out, stream = spared(*told_often, DONE)
    assert out == spared(*plain, DONE)[0]
    assert stream.complete
    assert told(stream) == (USAGE if any(where[: len(plain)]) else None)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_caller_that_asks_gets_every_event(sample: Sample) -> None:
    stream = ChatStream(LABEL, sample.choices)
    out = stream.feed(sample.data) + stream.end()
    assert len(events(out)) == len(sample.payloads)


def test_usage_before_the_answer_starts_nothing() -> None:
    out, stream = spared(*[ONLY_USAGE] * 1000)
    assert (out, stream.started, stream.failure) == (b"", False, None)


def test_the_last_usage_is_the_one() -> None:
    more = {**USAGE, "completion_tokens": 6}
    _, stream = spared(ONLY_USAGE, event({"content": "Hi"}, usage=more), event({}, usage=None))
    assert told(stream) == more


# What was produced


@given(answers, st.data())
def test_all_that_was_produced_can_be_counted(answer: Answer, data: st.DataObject) -> None:
    """However it was cut, from the first event to the last."""
    atoms = data.draw(split(atoms_of(answer)))
    pieces = stream_of(atoms)
    stream = ChatStream(LABEL)
    for end, piece in enumerate(pieces):
        assert stream.produced == "".join(text for _, _, text in atoms[: max(0, end - 1)])
        stream.feed(piece)
    assert stream.produced == said_in(answer)


@given(st.lists(answers, min_size=2, max_size=3))
def test_the_texts_of_all_choices_are_counted_each_on_its_own(several: list[Answer]) -> None:
    streams = [stream_of(letters(atoms_of(answer))) for answer in several]
    stream = ChatStream(LABEL, len(several))
    for turn in range(max(map(len, streams))):
        for index, pieces in enumerate(streams):
            if turn < len(pieces):
                stream.feed(
                    pieces[turn].replace(b'{"index": 0, "delta"', b'{"index": %d, "delta"' % index)
                )
    assert stream.complete
    assert stream.produced == "".join(map(said_in, several))


def test_fields_nobody_has_heard_of_do_not_hide_the_text() -> None:
    for choices in (1, 2):
        _, stream = broken(
            [event({"content": "Hi", "x": {"y": 1}}), event({"content": "!"})], choices
        )
        assert stream.produced == "Hi!"


def test_what_failed_had_produced_something_all_the_same() -> None:
    _, stream = broken([event({"content": "Hi"}), b'data: {"error": {"message": "no"}}\n\n'])
    assert stream.failure is not None
    assert stream.produced == "Hi"


# Of a joined answer


@given(texts_alone, st.data())
def test_each_attempt_counts_what_it_said_itself(answer: Answer, data: st.DataObject) -> None:
    """The second says again what the first had said, and the third what both had."""
    first = stream_of(letters(atoms_of(answer)))
    cut = data.draw(st.integers(2, len(first) - 1))
    _, one = broken(first[:cut])
    again = stream_of(data.draw(split(atoms_of(answer))))
    _, two = resumed(one.said(), b"".join(again[:-1]))
    _, three = resumed(two.said(), b"".join(again), label=THIRD)
    assert one.produced == answer.content[: cut - 1]
    assert two.produced == three.produced == answer.content
    assert three.said().content == answer.content


def test_an_attempt_counts_its_thoughts_even_if_the_caller_is_past_them() -> None:
    _, one = broken([event({"content": "One, two"})])
    begun = event({"reasoning_content": "Hm."}) + event({"content": "One"})
    for method in ("again", "prefill"):
        out, two = resumed(one.said(), begun, method)
        assert (out, two.produced) == (b"", "Hm.One")


def test_an_attempt_that_does_not_fit_had_produced_something_all_the_same() -> None:
    _, one = broken([event({"content": "One, two"})])
    _, two = resumed(one.said(), event({"content": "One, three"}))
    assert two.failure is not None
    assert two.produced == "One, three"


def test_each_attempt_tells_its_own_usage() -> None:
    """The caller is told the sum, in the last event of all."""
    _, one = broken([event({"content": "One"}, usage=USAGE)])
    data = event({"content": "One, two"}) + event({}, "stop") + ONLY_USAGE
    out, two = resumed(one.said(), data)
    assert told(one) == told(two) == USAGE
    both = {"prompt_tokens": 18, "completion_tokens": 10}
    assert events(out)[-1]["usage"] == both
    assert json.loads(bytes(two.said().usage or b"")) == both


def test_an_attempt_that_told_nothing_has_no_usage_of_its_own() -> None:
    _, one = broken([event({"content": "One"}, usage=USAGE)])
    _, two = resumed(one.said(), event({"content": "One, two"}))
    assert told(two) is None
    assert json.loads(bytes(two.said().usage or b"")) == USAGE


def test_a_joined_answer_spares_its_caller_usage_too() -> None:
    _, one = broken([event({"content": "One"}, usage=USAGE)])
    stream = ResumedStream(SECOND, one.said(), "again", wants_usage=False)
    out = stream.feed(event({"content": "One, two"}, usage=None) + event({}, "stop") + ONLY_USAGE)
    assert [found.get("usage") for found in events(out)] == [None, None]
    assert (stream.complete, told(stream)) == (True, USAGE)
