"""One conversation with a provider, taken apart, for walls that play it with faults."""

import contextlib
import json
from collections.abc import Callable, Iterator

from tests.support.wall import Request, Script, Send, Wall, piece, sse, wall_in_thread, whole

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


class ChatWall:
    """A wall whose script is for chat requests; the list of models is asked for in between."""

    def __init__(self, wall: Wall) -> None:
        self.wall = wall
        self.answer: Script | Callable[[Request], Script] = ()

    @property
    def requests(self) -> list[Request]:
        """The chat requests so far."""
        return [request for request in self.wall.requests if request.method == "POST"]

    def __call__(self, request: Request) -> Script:
        if request.method == "GET":
            return whole(b'{"object": "list", "data": [{"id": "m"}]}', 200, JSON_TYPE)
        return self.answer(request) if callable(self.answer) else self.answer


@contextlib.contextmanager
def chat_wall() -> Iterator[ChatWall]:
    with wall_in_thread() as standing:
        standing.answer = chats = ChatWall(standing)
        yield chats
