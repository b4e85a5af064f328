"""A provider that speaks OpenAI's Chat Completions by script, on top of the wall.

    provider = ChatProvider()
    with wall_in_thread(provider) as wall:
        provider.answers["be rude"] = failure(400, "Not like that.", param="messages")

It answers what a request asks for: tools are called, a JSON schema is satisfied, `n` choices
are made, log probabilities given. Where the last user message is a key of `answers`, that is
played instead. What it `tells` of its usage differs, as with real ones.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.wall import Answer, Request, Script, sse, whole

ID = "chatcmpl-scripted"
CREATED = 1731654208
TEXT = "Hello from the script."
REASONING = "Fifteen times thirty-seven is 555."
UNKNOWN = {"x_vendor": {"queue_time": 0.010407901, "big": 12345678901234567890}}
"""A field no client has heard of, with numbers that do not survive a round trip."""
USAGE: dict[str, Any] = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}

_JSON = [("Content-Type", "application/json")]
_SAMPLES = {"string": "Paris", "integer": 7, "number": 1.5, "boolean": True, "null": None}

Json = dict[str, Any]
Tells = Literal["asked", "each", "never", "refuses"]
"""Of their usage, providers tell

asked:   streams that ask, behind their end, and every whole answer, as OpenAI does;
each:    every event of every stream, as far as it has come, and every whole answer;
never:   nobody;
refuses: whole answers. Who asks a stream gets 400: they know no `stream_options`.
"""


@dataclass
class ChatProvider:
    """Tells a wall what to answer. `answers` are played for the user message they stand under."""

    models: tuple[str, ...] = ("m",)
    answers: dict[str, Answer] = field(default_factory=dict)
    tells: Tells = "asked"

    def __call__(self, request: Request) -> Script:
        if request.path.endswith("/models"):
            data = [{"id": m, "object": "model", "created": CREATED} for m in self.models]
            return reply({"object": "list", "data": data})
        body = json.loads(request.body)
        told = self.answers.get(last_words(body))
        if told is not None:
            return told(request) if callable(told) else told
        if self.tells == "refuses" and "stream_options" in body:
            return unknown_options()
        if body.get("stream"):
            return stream(chunks(body, self.tells))
        return reply(completion(body, self.tells))


def reply(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Script:
    """A JSON document as the whole answer."""
    return whole(json.dumps(value).encode(), status, [*_JSON, *headers])


def failure(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> Script:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "code": code, "param": param}
    return reply({"error": error}, status, headers)


def unknown_options() -> Script:
    """What a provider says that knows no `stream_options`."""
    message = "Unknown parameter: 'stream_options'."
    return failure(400, message, code="unknown_parameter", param="stream_options")


def stream(events: Iterable[Json], *, done: bool = True) -> Script:
    """These chunks as server-sent events, with `[DONE]` behind them where `done`."""
    return sse(*map(json.dumps, events), *(["[DONE]"] if done else []))


def chunk(delta: Json, finish_reason: str | None = None, **fields: Any) -> Json:
    """One event of a stream with a single choice."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**_envelope("chat.completion.chunk"), "choices": [choice], **fields}


def completion(body: Json, tells: Tells = "asked") -> Json:
    """The whole answer to `body`."""
    message, finish_reason = _message(body)
    choice = {"message": message, "logprobs": _logprobs(body), "finish_reason": finish_reason}
    return {
        **_envelope("chat.completion"),
        "choices": [{"index": i, **choice} for i in range(body.get("n") or 1)],
        **({} if tells == "never" else {"usage": _usage(message)}),
        "service_tier": "default",
        **UNKNOWN,
    }


def chunks(body: Json, tells: Tells = "asked") -> Iterator[Json]:
    """The same answer in pieces, with what is told of its usage."""
    message, finish_reason = _message(body)
    envelope = _envelope("chat.completion.chunk")
    options = body.get("stream_options") or {}
    usage: Json = {"usage": None} if tells == "asked" and options.get("include_usage") else {}
    logprobs = _logprobs(body)
    said = 0
    for i in range(body.get("n") or 1):
        deltas = [{"role": "assistant", "content": None}, *_deltas(message)]
        for delta in [*deltas, {}]:
            choice = {
                "index": i,
                "delta": delta,
                "logprobs": logprobs if delta.get("content") else None,
                "finish_reason": None if delta else finish_reason,
            }
            if tells == "each":
                said += 1 if delta and "role" not in delta else 0
                usage = {"usage": running(said)}
            yield {**envelope, "choices": [choice], **usage, **UNKNOWN}
    if tells == "asked" and usage:
        yield {**envelope, "choices": [], "usage": _usage(message)}


def running(said: int) -> Json:
    """The usage of an answer that has come so far, at a token a piece."""
    prompt: int = USAGE["prompt_tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}


def last_words(body: Json) -> str:
    """The text of the last user message, `""` where there is none."""
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    return ""


def _message(body: Json) -> tuple[Json, str]:
    message: Json = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    if body.get("reasoning_effort"):
        message["reasoning_content"] = REASONING
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        wanted = [tool["function"] for tool in body["tools"] if tool["type"] == "function"]
        if body.get("parallel_tool_calls") is False:
            wanted = wanted[:1]
        message["content"] = None
        message["tool_calls"] = [_call(i, function) for i, function in enumerate(wanted)]
        return message, "tool_calls"
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        message["content"] = json.dumps(_instance(response_format["json_schema"]["schema"]))
    return message, "stop"


def _call(i: int, function: Json) -> Json:
    arguments = json.dumps(_instance(function.get("parameters") or {"type": "object"}))
    return {
        "id": f"call_{i}",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _instance(schema: Mapping[str, Any]) -> Any:
    """A value that satisfies a simple JSON schema."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _instance(inner) for name, inner in properties.items()}
    if kind == "array":
        return [_instance(schema["items"])]
    return _SAMPLES[str(kind)]


def _deltas(message: Json) -> Iterator[Json]:
    for name in ("reasoning_content", "content"):
        yield from ({name: piece} for piece in _pieces(message.get(name) or ""))
    for i, call in enumerate(message.get("tool_calls") or ()):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": i, **call, "function": function}]}
        for piece in _pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": i, "function": {"arguments": piece}}]}


def _pieces(text: str, size: int = 5) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def _logprobs(body: Json) -> Json | None:
    if not body.get("logprobs"):
        return None
    token = {"token": "Hello", "bytes": [72, 101, 108, 108, 111], "logprob": -0.25}
    return {"content": [{**token, "top_logprobs": [token]}], "refusal": None}


def _usage(message: Json) -> Json:
    thought = len(message.get("reasoning_content", "").split())
    return {**USAGE, "completion_tokens_details": {"reasoning_tokens": thought}}


def _envelope(kind: str) -> Json:
    return {
        "id": ID,
        "object": kind,
        "created": CREATED,
        "model": "what-the-provider-calls-it",
        "system_fingerprint": "fp_scripted",
    }
