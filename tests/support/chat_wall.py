"""One conversation with a provider, taken apart, for walls that play it with faults."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tests.support.chat_provider import Tells, unknown_options
from tests.support.wall import (
    Answer,
    Request,
    Script,
    Send,
    Step,
    Wall,
    head,
    piece,
    sse,
    wall_in_thread,
    whole,
)

WORDS = ["Neither", " rain", " nor", " snow", " stays", " these", " bytes"]
JSON_TYPE = [("Content-Type", "application/json")]
SSE_TYPE = [("Content-Type", "text/event-stream; charset=utf-8")]


def chunk(content: str | None = None, finish: str | None = None, **extra: object) -> str:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1731654208,
            "model": "upstream-name",
            "choices": [choice],
            **extra,
        }
    )


ROLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1731654208,
        "model": "upstream-name",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
    }
)
TOKENS = [chunk(word) for word in WORDS]
FINISH = chunk(finish="stop")
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1731654208,
        "model": "upstream-name",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(WORDS)},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10},
    }
).encode()


def event(data: str) -> Send:
    return Send(piece(f"data: {data}\n\n".encode()))


GOOD_STREAM = sse(ROLE, *TOKENS, FINISH, "[DONE]")
GOOD_WHOLE = whole(ANSWER, 200, JSON_TYPE)


@dataclass(frozen=True)
class Speech:
    """An answer in words, streamed one chunk a word, or whole.

    As a wall's answer it is given as it was asked for, with what it `tells` of its usage.
    """

    words: tuple[str, ...] = tuple(WORDS)
    id: str = "chatcmpl-1"
    model: str = "upstream-name"
    tells: Tells = "asked"

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def usage(self) -> dict[str, int]:
        return self.usage_of(len(self.words))

    def usage_of(self, count: int) -> dict[str, int]:
        """The usage of the first `count` words."""
        return {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}

    @cached_property
    def role(self) -> str:
        return self.chunk({"role": "assistant", "content": ""}, **self._told_of(0))

    @cached_property
    def tokens(self) -> list[str]:
        return [
            self.chunk({"content": word}, **self._told_of(count))
            for count, word in enumerate(self.words, 1)
        ]

    @cached_property
    def finish(self) -> str:
        return self.chunk({}, "stop", **self._told_of(len(self.words)))

    @cached_property
    def tail(self) -> str:
        """The chunk that tells the usage."""
        return json.dumps({**self._envelope(), "choices": [], "usage": self.usage})

    @cached_property
    def whole(self) -> bytes:
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        kind = {"object": "chat.completion"}
        usage = {} if self.tells == "never" else {"usage": self.usage}
        return json.dumps({**self._envelope(), **kind, "choices": [choice], **usage}).encode()

    def chunk(self, delta: dict[str, object], finish: str | None = None, **extra: object) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps({**self._envelope(), "choices": [choice], **extra})

    def begun(self, count: int, *after: Step) -> Script:
        """A stream of the first `count` words, and then what happens."""
        opening = Send(head(200, SSE_TYPE, chunked=True))
        return (opening, *map(event, (self.role, *self.tokens[:count])), *after)

    def rest(self, sent: str) -> "Speech":
        """What is left to say behind `sent`, cut as the words are."""
        start, words = len(sent), []
        for word in self.words:
            if word[start:]:
                words.append(word[start:])
            start = max(0, start - len(word))
        return replace(self, words=tuple(words))

    def recut(self, size: int) -> "Speech":
        """The same text in pieces of `size` letters."""
        starts = range(0, len(self.text), size)
        pieces = (self.text[start : start + size] for start in starts)
        return replace(self, words=tuple(pieces))

    def __call__(self, request: Request) -> Script:
        body = json.loads(request.body)
        if self.tells == "refuses" and "stream_options" in body:
            return unknown_options()
        if not body.get("stream"):
            return whole(self.whole, 200, JSON_TYPE)
        wants = (body.get("stream_options") or {}).get("include_usage")
        tail = [self.tail] if wants and self.tells == "asked" else []
        return sse(self.role, *self.tokens, self.finish, *tail, "[DONE]")

    def _told_of(self, count: int) -> dict[str, Any]:
        return {"usage": self.usage_of(count)} if self.tells == "each" else {}

    def _envelope(self) -> dict[str, object]:
        kind = "chat.completion.chunk"
        return {"id": self.id, "object": kind, "created": 1731654208, "model": self.model}


class Turns:
    """Plays these, one a request, and the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._lock = threading.Lock()
        self._left = list(answers)

    def __call__(self, request: Request) -> Script:
        with self._lock:
            answer = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return answer(request) if callable(answer) else answer


class ChatWall:
    """A wall whose script is for chat requests; the list of models is asked for in between.

    `models` has scripts for requests that name these models; all others get `answer`.
    """

    def __init__(self, wall: Wall) -> None:
        self.wall = wall
        self.answer: Script | Callable[[Request], Script] = ()
        self.models: dict[str, Answer] = {}

    @property
    def requests(self) -> list[Request]:
        """The chat requests so far."""
        return [request for request in self.wall.requests if request.method == "POST"]

    def asked(self, model: str) -> list[Request]:
        """The chat requests for one model."""
        return [each for each in self.requests if json.loads(each.body)["model"] == model]

    def __call__(self, request: Request) -> Script:
        if request.method == "GET":
            return whole(b'{"object": "list", "data": [{"id": "m"}]}', 200, JSON_TYPE)
        answer = self.answer
        if self.models:
            answer = self.models.get(json.loads(request.body)["model"], answer)
        return answer(request) if callable(answer) else answer


@contextlib.contextmanager
def chat_wall() -> Iterator[ChatWall]:
    with wall_in_thread() as standing:
        standing.answer = chats = ChatWall(standing)
        yield chats
