"""What is made of answers, whole or streamed, however strange they are."""

import json
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manyways.verification.interview import BadAnswer, Said
from tests.support.asked import Asked, chunks, interview, model

NAMES: Final = (
    "choices",
    "message",
    "delta",
    "content",
    "text",
    "index",
    "function",
    "name",
    "arguments",
    "tool_calls",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "finish_reason",
    "model",
    "reasoning",
    "reasoning_content",
    "annotations",
    "error",
)
"""Fields that mean something."""


class TestStreams:
    async def test_pieces_come_together(self) -> None:
        call = {"index": 0, "function": {"name": "f", "arguments": '{"a"'}}
        rest = {"index": 0, "function": {"arguments": ": 1}"}}
        events = [
            {"choices": [{"delta": {"reasoning_content": "hm"}}]},
            {"choices": [{"delta": {"content": "Hel"}}], "usage": None},
            {"choices": [{"delta": {"content": "lo", "tool_calls": [call]}}]},
            {"choices": [{"delta": {"tool_calls": [rest], "annotations": [{"a": 1}]}}]},
            {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        ]
        said = await listened(*map(json.dumps, events), "[DONE]")
        assert (said.text, said.reasoning, said.finish_reason) == ("Hello", "hm", "tool_calls")
        assert said.tool_calls == ({"function": {"name": "f", "arguments": '{"a": 1}'}},)
        assert said.annotations == ({"a": 1},)
        assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (3, 4)
        assert said.pieces == 2

    async def test_a_cut_stream_is_no_answer(self) -> None:
        asker = Asked(lambda *_: chunks("one", " two", finish=None, done=False))
        with pytest.raises(BadAnswer, match="without a finish"):
            await interview(model(), asker).say("Well?", stream=True)

    @pytest.mark.parametrize(("finish", "done"), [("stop", False), (None, True)])
    async def test_one_sign_of_the_end_is_enough(self, finish: str | None, done: bool) -> None:
        asker = Asked(lambda *_: chunks("one", finish=finish, done=done))
        assert (await interview(model(), asker).say("Well?", stream=True)).text == "one"

    async def test_the_last_event_counts_without_its_empty_line(self) -> None:
        *most, last = chunks("one", " two", done=False)
        asker = Asked(lambda *_: [*most, last.rstrip()])
        assert (await interview(model(), asker).say("Well?", stream=True)).finish_reason == "stop"

    async def test_an_error_inside_is_told(self) -> None:
        error = json.dumps({"error": {"message": "overloaded"}})
        with pytest.raises(BadAnswer, match="overloaded"):
            await listened(json.dumps({"choices": [{"delta": {"content": "a"}}]}), error)

    async def test_garbage_is_quoted_in_what_can_be_printed(self) -> None:
        with pytest.raises(BadAnswer) as bad:
            await listened("\x1b[31mred " * 1000)
        assert str(bad.value).isprintable()
        assert len(str(bad.value)) < 300

    async def test_an_event_without_an_end_is_not_held(self) -> None:
        asker = Asked(lambda *_: [b"data: " + b"x" * 1_000_000] * 6)
        with pytest.raises(BadAnswer, match="cannot be read"):
            await interview(model(), asker).say("Well?", stream=True)


class TestForeignTypes:
    """Whatever JSON a provider sends, wherever: an answer, or `BadAnswer`, and nothing else."""

    ANYTHING = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(NAMES),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
    WRONG = st.fixed_dictionaries(
        {},
        optional={
            "choices": ANYTHING
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "message": ANYTHING,
                        "delta": ANYTHING,
                        "finish_reason": ANYTHING,
                    },
                ),
                max_size=2,
            ),
            "usage": ANYTHING,
            "model": ANYTHING,
            "error": ANYTHING,
        },
    )

    @given(WRONG | ANYTHING)
    async def test_in_whole_answers(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        one = interview(model(), Asked(lambda *_: body))
        try:
            said = await one.say("Well?")
        except BadAnswer:
            return
        assert isinstance(said.text, str)
        assert isinstance(said.reasoning, str)
        assert all(isinstance(call, dict) for call in said.tool_calls)

    @given(st.lists(WRONG | ANYTHING, max_size=4))
    async def test_in_streams(self, events: list[Any]) -> None:
        try:
            said = await listened(*map(json.dumps, events), "[DONE]")
        except BadAnswer:
            return
        assert isinstance(said.text, str)
        assert all(isinstance(call["function"]["name"], str) for call in said.tool_calls)

    @given(st.binary(max_size=200))
    async def test_bytes_that_are_nothing(self, body: bytes) -> None:
        one = interview(model(), Asked(lambda *_: body))
        with pytest.raises(BadAnswer):
            await one.say("Well?")

    @given(st.lists(st.binary(max_size=60), max_size=6))
    async def test_streams_of_bytes_that_are_nothing(self, pieces: list[bytes]) -> None:
        assume(b"[DONE]" not in b"".join(pieces))  # that alone is an empty answer
        one = interview(model(), Asked(lambda *_: pieces))
        with pytest.raises(BadAnswer):
            await one.say("Well?", stream=True)

    async def test_an_error_with_status_200_is_told(self) -> None:
        one = interview(model(), Asked(lambda *_: b'{"error": {"message": "no money"}}'))
        with pytest.raises(BadAnswer, match="no money"):
            await one.say("Well?")

    async def test_text_in_parts_is_text(self) -> None:
        parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, {}]
        answer = {"choices": [{"message": {"content": parts}}]}
        one = interview(model(), Asked(lambda *_: json.dumps(answer).encode()))
        assert (await one.say("Well?")).text == "Hello"


async def listened(*events: str) -> Said:
    """What is said by these events of a stream."""
    stream = [f"data: {event}\n\n".encode() for event in events]
    return await interview(model(), Asked(lambda *_: stream)).say("Well?", stream=True)
