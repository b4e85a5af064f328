"""Models for verification, without a network: an `Asker` whose answers a test gives.

asker = Asked(lambda path, fields: chat("four"))
finding = await some_check(interview(model("m"), asker))
assert asker.requests[0]["messages"]
"""

import json
from collections.abc import AsyncGenerator, Callable
from random import Random
from typing import Any

from manyways.types import Model
from manyways.verification.asking import JSON, Answer
from manyways.verification.interview import Interview
from manyways.verification.pacing import Pace, Places, Purse

Reply = bytes | Answer | Exception | list[bytes]
"""A body, an answer, what is raised, or the chunks of a stream."""
Script = Callable[[str, dict[str, Any]], Reply]
"""What is answered at a path; the request's fields, empty where it is not JSON."""


class Asked:
    """Notes what it was asked (`requests`, and `bodies` as they came), and answers by script."""

    def __init__(self, script: Script, files: Callable[[str], Answer] | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.fetched: list[str] = []
        self._script = script
        self._files = files

    def _reply(self, path: str, body: bytes, content_type: str) -> Answer | list[bytes]:
        fields = json.loads(body) if content_type == JSON else {}
        self.requests.append(fields)
        self.bodies.append(body)
        found = self._script(path, fields)
        if isinstance(found, Exception):
            raise found
        return [found] if isinstance(found, bytes) else found

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        found = self._reply(path, body, content_type)
        return found if isinstance(found, Answer) else Answer(body=b"".join(found))

    async def stream(
        self, model: Model, path: str, body: bytes, *, limit: float, largest: int
    ) -> AsyncGenerator[bytes, None]:
        found = self._reply(path, body, JSON)
        assert not isinstance(found, Answer)
        for chunk in found:
            yield chunk

    async def fetch(self, model: Model, url: str, *, limit: float) -> Answer:
        self.fetched.append(url)
        assert self._files is not None, "nothing to be fetched"
        return self._files(url)


def chat(text: str | None = "", *, finish: str = "stop", **message: Any) -> bytes:
    """A whole answer of a chat model; `message` are further fields of its message."""
    return json.dumps(
        {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, **message},
                    "finish_reason": finish,
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
    ).encode()


def chunks(*pieces: str, finish: str | None = "stop", done: bool = True) -> list[bytes]:
    """A streamed answer, a chunk a piece."""

    def event(**choice: Any) -> bytes:
        fields = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**fields, 'choices': [{'index': 0, **choice}]})}\n\n".encode()

    found = [event(delta={"content": piece}) for piece in pieces]
    if finish is not None:
        found.append(event(delta={}, finish_reason=finish))
    return [*found, b"data: [DONE]\n\n"] if done else found


def model(name: str = "m", **fields: Any) -> Model:
    return Model(id=name, provider="Test", upstream_id=name, created=1, **fields)


def interview(one: Model, asker: Asked, *, budget: float = 1.0, seed: int = 1) -> Interview:
    return Interview(
        one,
        asker,
        pace=Pace(0.0),
        places=Places(4, 4),
        purse=Purse(budget),
        timeout=5.0,
        chance=Random(seed),
    )
