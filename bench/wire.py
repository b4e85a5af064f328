"""What is said in the benchmark: the questions the load asks and the answers the upstream gives.

Sizes are those of a short chat turn: a question of 1 kB, a whole answer of 1 kB, a streamed
answer of 100 chunks. The pace of a stream is named inside the last message, because that is the
one place which every gateway passes on untouched.
"""

import json
from typing import Any, Final

MODEL: Final = "bench-model"
KILOBYTE: Final = 1024
CHUNKS: Final = 100

DENSE: Final = "all-at-once"
PACED: Final = "every-10ms"
HELD: Final = "every-40ms"
PACES: Final = {DENSE: 0, PACED: 10, HELD: 40}
"""The pause between two chunks, in milliseconds."""
SILENT: Final = "one-chunk-and-no-more"
"""A stream that begins and never goes on."""

_SYLLABLES: Final = ("ka", "lo", "mi", "ren", "sta", "vor", "ul", "tes")
_CREATED: Final = 1_790_000_000


def _word(index: int) -> str:
    return f"{_SYLLABLES[index % 8]}{_SYLLABLES[index // 8 % 8]}{index} "


WORDS: Final = tuple(_word(index) for index in range(CHUNKS))
STREAMED_TEXT: Final = "".join(WORDS)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def question(*, stream: bool, pace: str = DENSE, model: str = MODEL) -> bytes:
    """The body of a request: exactly 1 kB of JSON."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You answer in one short paragraph."},
            {"role": "user", "content": ""},
        ],
        "temperature": 0.5,
        "max_tokens": 256,
        "stream": stream,
    }
    message = body["messages"][1]
    message["content"] = f"Answer {pace}. "
    message["content"] += _filling(KILOBYTE - len(_json(body)))
    return _json(body)


def _filling(length: int) -> str:
    return (STREAMED_TEXT * (length // len(STREAMED_TEXT) + 1))[:length]


def _whole() -> tuple[str, bytes]:
    def answer(text: str) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        return _json(
            {
                "id": "chatcmpl-bench",
                "object": "chat.completion",
                "created": _CREATED,
                "model": MODEL,
                "choices": [
                    {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
                ],
                "usage": _USAGE,
                "system_fingerprint": "fp_bench",
            }
        )

    text = _filling(KILOBYTE - len(answer("")))
    return text, answer(text)


_USAGE: Final = {"prompt_tokens": 230, "completion_tokens": 200, "total_tokens": 430}
WHOLE_TEXT, WHOLE_BODY = _whole()


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _data([choice])


def _data(choices: list[dict[str, Any]], **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": MODEL,
        "system_fingerprint": "fp_bench",
        "choices": choices,
    }
    return b"data: " + _json(chunk | more) + b"\n\n"


ROLE_EVENT: Final = _event({"role": "assistant", "content": ""})
WORD_EVENTS: Final = tuple(_event({"content": word}) for word in WORDS)
FINISH_EVENT: Final = _event({}, finish="stop")
USAGE_EVENT: Final = _data([], usage=_USAGE)
DONE_EVENT: Final = b"data: [DONE]\n\n"


def whole_text(body: bytes) -> str:
    """The text of a whole answer. Raises `ValueError` when it is none."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (LookupError, TypeError) as error:
        raise ValueError(f"no whole answer: {body[:200]!r}") from error
    return str(text)


def streamed_text(body: bytes) -> str:
    """The text of a streamed answer, read to its end.

    Raises `ValueError` when an event is broken, or `[DONE]` or the finish reason is missing.
    """
    words: list[str] = []
    finished = done = False
    for line in body.replace(b"\r\n", b"\n").split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            done = True
            continue
        event = json.loads(data)
        for choice in event.get("choices", ()):
            words.append((choice.get("delta") or {}).get("content") or "")
            finished = finished or choice.get("finish_reason") == "stop"
    if not (done and finished):
        raise ValueError(f"the stream has no end: ...{body[-200:]!r}")
    return "".join(words)
