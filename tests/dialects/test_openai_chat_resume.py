"""A broken answer and its continuation: together the whole answer, to the letter, or a failure."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Raw

from manyways.dialects.openai_chat import (
    AnswerLabel,
    ChatStream,
    Method,
    ResumedStream,
    Said,
    extra_messages,
    methods,
)
from tests.dialects.streams import LABEL, SAMPLES, Sample, carry, events

SECOND = AnswerLabel(model="second-name", provider="Stall", id="chatcmpl-2", created=1800000000)
THIRD = AnswerLabel(model="third-name", provider="Market", id="chatcmpl-3", created=1900000000)


# Answers, as a provider may stream them


@dataclass
class Answer:
    """What a caller understands of a streamed answer."""

    reasoning: str = ""
    content: str = ""
    refusal: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish: str | None = None


Atom = tuple[str, int, str]
"""A text of an answer: the kind, the tool call's index, the text. A call's name is whole."""


def atoms_of(answer: Answer) -> list[Atom]:
    found = [
        ("reasoning_content", 0, answer.reasoning),
        ("content", 0, answer.content),
        ("refusal", 0, answer.refusal),
    ]
    for index, (name, arguments) in enumerate(answer.calls):
        found += [("name", index, name), ("arguments", index, arguments)]
    return [atom for atom in found if atom[2]]


def event(delta: dict[str, Any] | None, finish: str | None = None, **fields: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


def delta_of(atom: Atom, provider: str) -> dict[str, Any]:
    kind, index, text = atom
    if kind == "name":
        head = {"index": index, "id": f"{provider}-{index}", "type": "function"}
        return {"tool_calls": [{**head, "function": {"name": text, "arguments": ""}}]}
    if kind == "arguments":
        return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
    return {kind: text}


def stream_of(
    atoms: Iterable[Atom], provider: str = "a", finish: str | None = "stop", created: int = 7
) -> list[bytes]:
    """One event an atom, the role before them, the end behind them."""
    head: dict[str, Any] = {"id": f"id-{provider}", "created": created}
    return [
        event({"role": "assistant", "content": ""}, **head),
        *(event(delta_of(atom, provider), **head) for atom in atoms),
        event({}, finish, **head),
    ]


def letters(atoms: Iterable[Atom]) -> list[Atom]:
    """As finely as an answer can be split."""
    return [
        (kind, index, piece)
        for kind, index, text in atoms
        for piece in ([text] if kind == "name" else text)
    ]


@st.composite
def split(draw: st.DrawFn, atoms: Sequence[Atom]) -> list[Atom]:
    """The same answer in other pieces."""
    found: list[Atom] = []
    for kind, index, text in atoms:
        inside = st.lists(st.integers(1, max(1, len(text) - 1)), max_size=4, unique=True)
        cuts = [] if kind == "name" else sorted(draw(inside))
        bounds = [0, *[cut for cut in cuts if cut < len(text)], len(text)]
        found += [(kind, index, text[a:b]) for a, b in itertools.pairwise(bounds)]
    return found


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def heard(out: bytes) -> Answer:
    """What a caller makes of its events, who adds up what it is given."""
    answer = Answer()
    calls: dict[int, list[str]] = {}
    for chunk in events(out):
        for choice in chunk["choices"]:
            assert answer.finish is None, "nothing follows the end"
            delta = choice["delta"]
            answer.reasoning += delta.get("reasoning_content") or ""
            answer.content += delta.get("content") or ""
            answer.refusal += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or ():
                if call["index"] not in calls:
                    calls[call["index"]] = [call["id"], call["function"]["name"], ""]
                else:
                    assert "id" not in call
                    assert "name" not in call["function"]
                calls[call["index"]][2] += call["function"].get("arguments", "")
            answer.finish = choice["finish_reason"]
    answer.calls = [(name, arguments) for _, name, arguments in calls.values()]
    return answer


def assert_one_answer(out: bytes) -> None:
    found = events(out)
    assert len({(e["id"], e["created"], e["object"]) for e in found}) == 1
    roles = [c for e in found for c in e["choices"] if "role" in c["delta"]]
    assert len(roles) == 1


words = st.sampled_from(
    [
        "a",
        "the ",
        " cat",
        "\n",
        "\n\n",
        "  ",
        " ",
        "Привет",
        ", ",
        "мир",
        "🙂",
        "👨‍👩‍👧",
        "é",
        '"',
        "{",
        "\\",
        "4",
    ]
)
texts = st.lists(words, max_size=12).map("".join)
spoken = st.lists(words, min_size=1, max_size=14).map("".join)
answers = st.builds(
    Answer,
    reasoning=texts,
    content=texts,
    calls=st.lists(st.tuples(st.sampled_from(["look_up", "f"]), texts), max_size=2),
    finish=st.sampled_from(["stop", "length", "tool_calls"]),
)
texts_alone = st.builds(Answer, content=spoken, finish=st.just("stop"))


def broken(data: Iterable[bytes], choices: int = 1) -> tuple[bytes, ChatStream]:
    stream = ChatStream(LABEL, choices)
    return b"".join(map(stream.feed, data)), stream


def resumed(
    said: Said,
    data: bytes,
    method: Method = "again",
    size: int = 100_000,
    label: AnswerLabel = SECOND,
) -> tuple[bytes, ResumedStream]:
    stream = ResumedStream(label, said, method)
    out = b"".join(map(stream.feed, pieces(data, size)))
    return out + stream.end(), stream


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
    assume(len(first) > 2)
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
    assume(said_atoms)
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
    assume(atoms)
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
    assume(atoms)
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
    assume(atoms)
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


# Prefill


def gives_it_away(said: str, rest: str) -> bool:
    """A continuation that repeats the beginning cannot be told from a repetition."""
    return len(said) >= 16 and rest[:16] == said[:16]


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
        if gives_it_away(text, rest):
            continue
        assert second.failure is None, (text, rest)
        assert second.complete
        assert heard(begun + out) == answer
        assert_one_answer(begun + out)


@given(st.lists(words, min_size=1, max_size=30).map("".join), st.data())
def test_a_server_that_echoes_the_prefill_adds_nothing_twice(
    whole: str, data: st.DataObject
) -> None:
    assume(len(whole) > 16)
    text = whole[: data.draw(st.integers(16, len(whole)))]
    assume(text.strip())
    begun, stream = broken(stream_of([("content", 0, text)], "a")[:-1])
    again = data.draw(split([("content", 0, whole)]))
    ways: tuple[Method, ...] = ("prefill", "instruct")
    for method in ways:
        out, second = resumed(stream.said(), b"".join(stream_of(again, "b")), method)
        assert second.complete
        assert heard(begun + out).content == whole


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


@pytest.mark.parametrize("opening", [("name", 0, "f"), ("refusal", 0, "No.")])
@pytest.mark.parametrize("method", ["prefill", "instruct"])
def test_a_continuation_that_is_no_text_is_not_joined(opening: Atom, method: Method) -> None:
    _, stream = broken(stream_of([("content", 0, "Well")], "a")[:-1])
    out, second = resumed(stream.said(), b"".join(stream_of([opening], "b")), method)
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
    ],
)
def test_what_is_not_understood_is_not_gone_on_with(odd: dict[str, Any]) -> None:
    assert ways({"content": "x"}, odd) == ()
    _, stream = broken([event({"content": "Hello"})])
    out, second = resumed(stream.said(), event({"content": "Hel"} | odd) + event({}, "stop"))
    assert out == b""
    assert second.failure is not None


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


# Log probabilities


def with_tokens(*tokens: str, finish: str | None = None) -> bytes:
    listed = [{"token": t, "logprob": -0.5, "bytes": list(t.encode())} for t in tokens]
    choice = {
        "index": 0,
        "delta": {"content": "".join(tokens)},
        "logprobs": {"content": listed, "refusal": None},
        "finish_reason": finish,
    }
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


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


@given(any_sample, st.data())
def test_every_sample_can_be_asked_for_again_wherever_it_breaks(
    sample: Sample, data: st.DataObject
) -> None:
    whole, _ = carry([sample.data])
    begun, stream = broken([sample.data[: data.draw(st.integers(0, sample.last_payload_end - 1))]])
    assume(stream.started)
    rest, second = resumed(stream.said(), sample.data)
    assert second.complete
    told = [choice for e in events(begun + rest) for choice in e["choices"]]
    assert told == [choice for e in events(whole) for choice in e["choices"]]


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
    st.lists(odd_events, max_size=4),
    st.lists(odd_events, max_size=4),
    st.sampled_from(["again", "prefill", "instruct"]),
)
def test_any_json_at_all_gives_events_or_a_failure(
    first: list[Any], second: list[Any], method: Method
) -> None:
    def sse(found: list[Any]) -> bytes:
        return b"".join(b"data: %b\n\n" % json.dumps(e).encode() for e in found)

    _, stream = broken([sse(first)])
    assume(stream.started)
    said = stream.said()
    out, resume = resumed(said, sse(first + second), method)
    found = events(out)
    assert resume.started == bool(found)
    assert {(e["id"], e["created"]) for e in found} <= {
        (json.loads(bytes(said.id)), json.loads(bytes(said.created)))
    }
    runs = resume.said().runs
    assert runs[: len(said.runs) - 1] == said.runs[:-1]
