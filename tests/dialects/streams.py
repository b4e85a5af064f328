"""Streams of our own making, each with something that real providers send.

| file               | what is odd about it                                                     |
|--------------------|--------------------------------------------------------------------------|
| reasoning          | comments, reasoning beside content, details, usage behind the end        |
| tool_calls         | escapes inside arguments, a second call without an index                 |
| usage_without_done | numbers to be kept digit by digit; no `[DONE]`, no last empty line       |
| empty_first_event  | no choices, no id, no model in the first event; padding fields           |
| nameless           | CRLF, no space behind `data:`, no ids, another `created` each time       |
| two_choices        | two answers, interleaved, that end at different times                    |
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyways.dialects.openai_chat import AnswerLabel, ChatStream

_DATA = Path(__file__).parent / "data"
_PAYLOAD = re.compile(rb"^data: ?([^\r\n]+)\r?$", re.MULTILINE)

LABEL = AnswerLabel(model="catalog-name", provider="Shop", id="chatcmpl-ours", created=1700000000)


@dataclass(frozen=True)
class Sample:
    """One stream as a provider sends it, and how many choices it has."""

    name: str
    data: bytes
    choices: int = 1

    @property
    def payloads(self) -> list[bytes]:
        """The events' JSON, without `[DONE]`."""
        return [found for found in _PAYLOAD.findall(self.data) if found != b"[DONE]"]

    @property
    def last_payload_end(self) -> int:
        """Where the JSON ends that makes the answer complete."""
        end = 0
        for match in _PAYLOAD.finditer(self.data):
            if re.search(rb'"finish_reason":"\w', match.group(1)):
                end = match.end(1)
        return end


SAMPLES = [
    Sample(path.stem, path.read_bytes(), 2 if path.stem == "two_choices" else 1)
    for path in sorted(_DATA.glob("*.sse"))
]


def carry(
    pieces: Iterable[bytes], choices: int = 1, *, ends: bool = True
) -> tuple[bytes, ChatStream]:
    """What the caller gets of these pieces, and the machine behind them."""
    stream = ChatStream(LABEL, choices)
    out = [stream.feed(piece) for piece in pieces]
    if ends:
        out.append(stream.end())
    return b"".join(out), stream


def events(data: bytes) -> list[Any]:
    """The JSON of a caller's events, which must be framed to the letter."""
    assert data == b"" or data.endswith(b"\n\n")
    found = []
    for event in data.split(b"\n\n")[:-1]:
        assert event.startswith(b"data: ")
        assert b"\n" not in event
        found.append(json.loads(event.removeprefix(b"data: ")))
    return found
