"""Answers as providers may stream them, broken anywhere, and what a caller makes of them."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from manyways.dialects.openai_chat import AnswerLabel, ChatStream, Method, ResumedStream, Said
from tests.dialects.streams import LABEL, events

SECOND = AnswerLabel(model="second-name", provider="Stall", id="chatcmpl-2", created=1800000000)
THIRD = AnswerLabel(model="third-name", provider="Market", id="chatcmpl-3", created=1900000000)


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
tool_calls = st.tuples(st.sampled_from(["look_up", "f"]), texts)
answers = st.one_of(
    [
        st.builds(
            Answer,
            reasoning=reasoning,
            content=content,
            calls=st.lists(tool_calls, min_size=calls, max_size=2),
            finish=st.sampled_from(["stop", "length", "tool_calls"]),
        )
        for reasoning, content, calls in ((texts, spoken, 0), (spoken, texts, 0), (texts, texts, 1))
    ]
)
"""None of them empty."""
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


def with_tokens(*tokens: str, finish: str | None = None) -> bytes:
    listed = [{"token": t, "logprob": -0.5, "bytes": list(t.encode())} for t in tokens]
    choice = {
        "index": 0,
        "delta": {"content": "".join(tokens)},
        "logprobs": {"content": listed, "refusal": None},
        "finish_reason": finish,
    }
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
