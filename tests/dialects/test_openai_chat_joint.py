"""What goes with the words of an answer, where two parts of it are joined: told once, and whole."""

from typing import Any

import pytest

from manyways.dialects.openai_chat import Method, methods
from tests.dialects.answers import broken, event, heard, resumed
from tests.dialects.streams import events

# Thoughts told twice over


def details(text: str) -> list[dict[str, Any]]:
    return [{"type": "reasoning.text", "text": text, "index": 0}]


@pytest.mark.parametrize("beside", ["reasoning_details", "annotations", "provider_specific_fields"])
def test_thoughts_told_twice_over_are_not_joined_inside(beside: str) -> None:
    """The caller would get a part of what is said about them, or all of it for a part."""
    _, stream = broken([event({"reasoning": "th"})])
    whole = {"reasoning": "think", beside: {"text": "think"}}
    out, second = resumed(stream.said(), event(whole) + event({"content": "x"}, "stop"))
    assert out == b""
    assert second.failure is not None
    assert second.failure.code == "diverged"


def test_what_is_said_about_thoughts_behind_the_joint_is_kept() -> None:
    _, stream = broken([event({"reasoning": "th"})])
    more = [
        event({"reasoning": "th"}),
        event({"reasoning_details": details("ink")}),
        event({"reasoning": "ink", "reasoning_details": details("ink")}),
        event({"content": "x"}, "stop"),
    ]
    out, second = resumed(stream.said(), b"".join(more))
    assert second.complete
    assert [e["choices"][0]["delta"] for e in events(out)] == [
        {"reasoning_details": details("ink")},
        {"reasoning": "ink", "reasoning_details": details("ink")},
        {"content": "x"},
    ]


@pytest.mark.parametrize("method", ["again", "prefill"])
@pytest.mark.parametrize("before", [True, False])
def test_what_is_said_about_thoughts_does_no_harm_once_they_are_over(
    method: Method, before: bool
) -> None:
    thought = {"reasoning": "Hm.", "reasoning_details": details("Hm.")}
    signed = {"reasoning_details": [{"type": "reasoning.text", "signature": "c2ln"}]}
    thoughts = [event(thought), event(signed)] if before else []
    _, stream = broken([*thoughts, event({"content": "One"})])
    text = "One two" if method == "again" else " two"
    calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]
    new = [
        event(thought),
        event(signed),
        event({"content": text, **signed}),
        event({"tool_calls": calls, **signed}, "tool_calls"),
    ]
    out, second = resumed(stream.said(), b"".join(new), method)
    assert second.complete
    assert [e["choices"][0]["delta"] for e in events(out)] == [
        {"content": " two"},
        {"tool_calls": calls, **signed},
    ]


# What stands beside the text

CITED = {"annotations": [{"type": "url_citation", "url_citation": {"url": "http://a.example"}}]}


@pytest.mark.parametrize("beside", [CITED, {"provider_specific_fields": {"citations": ["a"]}}])
def test_what_stands_beside_the_text_is_not_told_twice(beside: dict[str, Any]) -> None:
    first = [event({"content": "One"}), event({"content": "", **beside})]
    again = [event({"content": "One"}), event({"content": "", **beside}), event({}, "stop")]
    across = [event({"content": "One two", **beside}), event({"content": ".", **beside}, "stop")]
    for cut, new, told in (
        (2, again, []),
        (1, again, [beside]),
        (2, across, [beside]),  # the last, which says more
        (1, across, [beside, beside]),
    ):
        _, stream = broken(first[:cut])
        out, second = resumed(stream.said(), b"".join(new))
        assert second.complete
        deltas = [e["choices"][0]["delta"] for e in events(out)]
        found = [{n: v for n, v in delta.items() if n in beside} for delta in deltas]
        assert [one for one in found if one] == told


def test_what_stands_beside_the_text_is_not_told_thrice() -> None:
    _, stream = broken([event({"content": "One", **CITED})])
    _, second = resumed(stream.said(), event({"content": "One two"}))
    out, third = resumed(second.said(), event({"content": "One two three", **CITED}, "stop"))
    assert third.complete
    assert [e["choices"][0]["delta"] for e in events(out)] == [{"content": " three"}]


# What stands in a tool call


def test_what_a_vendor_adds_to_a_calls_opening_stands_there_once() -> None:
    def opening(index: int, who: str, arguments: str) -> bytes:
        call = {"index": index, "id": who, "function": {"name": "f", "arguments": arguments}}
        return event({"tool_calls": [{**call, "extra_content": {"google": who}}]})

    begun, stream = broken([opening(0, "a", "[")])
    again = [opening(0, "b", "[]"), opening(1, "c", "{}"), event({}, "tool_calls")]
    out, second = resumed(stream.said(), b"".join(again))
    assert second.complete
    calls = [c for e in events(begun + out) for c in e["choices"][0]["delta"].get("tool_calls", ())]
    assert [call.get("extra_content") for call in calls] == [{"google": "a"}, None, {"google": "c"}]
    assert [call["function"]["arguments"] for call in calls] == ["[", "]", "{}"]


@pytest.mark.parametrize("first", [["get_weather"], ["get_", "weather"], ["get_weather"] * 3])
@pytest.mark.parametrize("then", [["get_weather"], ["get_", "weather"], ["get_weather"] * 3])
def test_a_name_may_come_in_pieces_and_be_told_again(first: list[str], then: list[str]) -> None:
    def part(name: str | None, arguments: str) -> bytes:
        function = {"name": name, "arguments": arguments}
        return event({"tool_calls": [{"index": 0, "id": "a", "function": function}]})

    _, stream = broken([*(part(name, "") for name in first), part(None, "[1")])
    *names, last = then
    new = [*(part(name, "") for name in names), part(last, "["), part(None, "1]"), event({}, "x")]
    out, second = resumed(stream.said(), b"".join(new))
    assert second.complete
    found = [e["choices"][0]["delta"] for e in events(out)]
    assert found == [{"tool_calls": [{"index": 0, "function": {"arguments": "]"}}]}, {}]


# Characters cut in two


def test_an_answer_with_half_a_character_is_not_gone_on_with() -> None:
    half = event({"content": "\ud83d"})
    assert b"\\ud83d" in half
    _, stream = broken([event({"content": "a"}), half])
    said = stream.said()
    assert methods(said, prefill=True, best_effort=True, structured=False) == ()
    _, stream = broken([event({"content": "a😀"})])
    halves = [event({"content": "a"}), half, event({"content": "\ude00"}, "stop")]
    out, second = resumed(stream.said(), b"".join(halves))
    assert out == b""
    assert second.failure is not None


def test_half_a_character_may_follow_the_joint() -> None:
    begun, stream = broken([event({"content": "a"})])
    halves = [event({"content": "a"}), event({"content": "b\ud83d"}), event({"content": "\ude00"})]
    out, second = resumed(stream.said(), b"".join([*halves, event({}, "stop")]))
    assert second.complete
    assert heard(begun + out).content == "ab\ud83d\ude00"
    assert methods(second.said(), prefill=True, best_effort=True, structured=False) == ()
