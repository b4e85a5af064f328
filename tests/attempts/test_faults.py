"""Whatever a provider does, the caller gets a complete answer or an honest error, in time.

Each fault is played by the wall over a real socket to a gateway that runs as a process. A
streamed answer is `complete` only with every word and `[DONE]`; `broken` means words, then an
error event and no `[DONE]`; everything else is an HTTP error with its code.
"""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.chat_wall import (
    ANSWER,
    FINISH,
    GOOD_STREAM,
    GOOD_WHOLE,
    JSON_TYPE,
    ROLE,
    SSE_TYPE,
    TOKENS,
    WORDS,
    ChatWall,
    chat_wall,
    chunk,
    event,
)
from tests.support.gateway import Answer, Gateway, provider, running_gateway
from tests.support.wall import (
    END,
    GARBAGE,
    Close,
    Headers,
    Pause,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    chunked,
    head,
    html,
    piece,
    recut,
    sse,
    whole,
)

pytestmark = pytest.mark.process

CONFIG = """
[routing]
connect_timeout = "1s"
first_token_timeout = "600ms"
idle_timeout = "600ms"
answer_timeout = "1200ms"
deadline = "5s"
"""
ENOUGH = 8.0
"""Seconds in which every fault must be over: the limits above, generously."""


def error(status: int, message: str = "no", headers: Headers = (), **fields: object) -> Script:
    body = json.dumps({"error": {"message": message, **fields}}).encode()
    return whole(body, status, [*JSON_TYPE, *headers])


def begun(*after: Step) -> Script:
    """A stream of some words, and then what happens."""
    opening = [Send(head(200, SSE_TYPE, chunked=True))]
    sent = [Send(piece(f"data: {event}\n\n".encode())) for event in (ROLE, *TOKENS[:4])]
    return (*opening, *sent, *after)


@dataclass(frozen=True)
class Fault:
    """What the provider does to a streamed and a whole request, and what the caller gets."""

    name: str
    stream: Script | None
    whole: Script | None
    streamed: str
    at_once: str


def both(name: str, script: Script, verdict: str) -> Fault:
    return Fault(name, script, script, verdict, verdict)


def streamed(name: str, script: Script, verdict: str) -> Fault:
    return Fault(name, script, None, verdict, "")


FAULTS = [
    Fault("nothing wrong", GOOD_STREAM, GOOD_WHOLE, "complete", "complete"),
    both("reset before headers", (Reset(),), "503 all_models_failed reset"),
    both("closed before headers", (Close(),), "503 all_models_failed reset"),
    both(
        "reset inside headers",
        (Send(b"HTTP/1.1 200 OK\r\nCont"), Reset()),
        "503 all_models_failed reset",
    ),
    both("silence", (Stall(),), "503 all_models_failed timeout"),
    both("not HTTP", GARBAGE, "503 all_models_failed garbled"),
    both("a page of HTML", html(), "503 all_models_failed no_answer"),
    both("an empty body", whole(b"", 200, JSON_TYPE), "503 all_models_failed no_answer"),
    both(
        "an error inside a 200",
        error(200, "overloaded"),
        "503 all_models_failed error_inside or 503 all_models_failed no_answer",
    ),
    both(
        "a redirect",
        whole(b"", 302, [("Location", "http://127.0.0.1:1/")]),
        "503 all_models_failed provider_error",
    ),
    both("500", error(500), "503 all_models_failed provider_error"),
    both("503", error(503), "503 all_models_failed provider_error"),
    both("529", error(529), "503 all_models_failed provider_error"),
    both("429", error(429), "503 all_models_failed rate_limited"),
    both(
        "401",
        error(401, "Incorrect API key provided: provider-secret"),
        "503 all_models_failed credentials",
    ),
    both("402", error(402, "no credit"), "503 all_models_failed credentials"),
    both(
        "400 about the key",
        error(400, "API key not valid. Please pass a valid API key."),
        "503 all_models_failed credentials",
    ),
    both(
        "404 about the model",
        error(404, "The model `upstream-name` does not exist", code="model_not_found"),
        "503 all_models_failed model_gone",
    ),
    both(
        "400 of the caller",
        error(400, "bad tools", code="bad_tools", param="tools[0]"),
        "400 bad_tools",
    ),
    both("422 of the caller", error(422, "not so"), "422 invalid_request"),
    both(
        "400 context",
        error(
            400,
            "This model's maximum context length is 8192 tokens",
            code="context_length_exceeded",
        ),
        "400 context_length_exceeded",
    ),
    both("400 filter", error(400, "flagged", code="content_filter"), "400 content_filter"),
    Fault(
        "a body that lies long",
        None,
        whole(ANSWER, 200, JSON_TYPE, claims=len(ANSWER) + 50),
        "",
        "503 all_models_failed timeout",
    ),
    Fault(
        "a body that lies long and ends",
        None,
        (*whole(ANSWER, 200, JSON_TYPE, claims=len(ANSWER) + 50), Close()),
        "",
        "503 all_models_failed cut",
    ),
    Fault(
        "a body that lies short",
        None,
        (*whole(ANSWER, 200, JSON_TYPE, claims=len(ANSWER) - 50), Close()),
        "",
        "503 all_models_failed garbled or 503 all_models_failed no_answer",
    ),
    Fault(
        "half a body, then a reset",
        None,
        (Send(head(200, JSON_TYPE, length=len(ANSWER)) + ANSWER[:100]), Reset()),
        "",
        "503 all_models_failed cut",
    ),
    Fault(
        "a whole answer without choices",
        None,
        whole(b'{"id":"x","choices":[]}', 200, JSON_TYPE),
        "",
        "503 all_models_failed no_answer",
    ),
    Fault(
        "a whole answer that trickles",
        None,
        (
            Send(head(200, JSON_TYPE, length=len(ANSWER))),
            *(step for byte in ANSWER for step in (Send(bytes([byte])), Pause(0.05))),
        ),
        "",
        "503 all_models_failed timeout",
    ),
    streamed(
        "only a role, then silence",
        (Send(head(200, SSE_TYPE, chunked=True)), event(ROLE), Stall()),
        "503 all_models_failed timeout",
    ),
    streamed(
        "headers, then silence",
        (Send(head(200, SSE_TYPE, chunked=True)), Stall()),
        "503 all_models_failed timeout",
    ),
    streamed(
        "comments, then nothing",
        (
            Send(head(200, SSE_TYPE, chunked=True)),
            *(step for _ in range(8) for step in (Send(piece(b": still here\n\n")), Pause(0.1))),
            Stall(),
        ),
        "503 all_models_failed timeout",
    ),
    streamed(
        "an error as the first event",
        sse(json.dumps({"error": {"message": "overloaded"}})),
        "503 all_models_failed error_inside",
    ),
    streamed("no event at all", sse(), "503 all_models_failed cut"),
    streamed("only [DONE]", sse("[DONE]"), "503 all_models_failed cut"),
    streamed("no JSON as the first event", sse("what?"), "503 all_models_failed garbled"),
    streamed("stall after some words", begun(Stall()), "broken"),
    streamed("reset after some words", begun(Reset()), "broken"),
    streamed("closed after some words", begun(Close()), "broken"),
    streamed("a clean end after some words", begun(Send(END)), "broken"),
    streamed("[DONE] after some words", begun(event("[DONE]"), Send(END)), "broken"),
    streamed(
        "broken JSON after some words",
        begun(
            event('{"choices": [{"delta'),
            *map(event, TOKENS[4:]),
            event(FINISH),
            event("[DONE]"),
            Send(END),
        ),
        "broken",
    ),
    streamed(
        "invalid UTF-8 after some words",
        begun(Send(piece(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')), Stall()),
        "broken",
    ),
    streamed(
        "broken chunk framing after some words",
        begun(Send(b"zz\r\nwhat\r\n"), Stall()),
        "broken or 503 all_models_failed garbled",
    ),
    streamed(
        "an error after some words",
        begun(event(json.dumps({"error": {"message": "overloaded"}})), Send(END)),
        "broken",
    ),
    streamed(
        "finish_reason error",
        begun(event(chunk(finish="error")), event("[DONE]"), Send(END)),
        "broken",
    ),
    streamed(
        "words without end",
        begun(*(step for _ in range(40) for step in (event(TOKENS[4]), Pause(0.2)))),
        "endless",
    ),
    streamed("no [DONE]", sse(ROLE, *TOKENS, FINISH), "complete"),
    streamed(
        "no [DONE], no end",
        chunked(
            *(f"data: {e}\n\n".encode() for e in (ROLE, *TOKENS, FINISH)),
            headers=SSE_TYPE,
            ends=False,
        ),
        "complete",
    ),
    streamed(
        "a reset behind the finish",
        (
            *chunked(
                *(f"data: {e}\n\n".encode() for e in (ROLE, *TOKENS, FINISH)),
                headers=SSE_TYPE,
                ends=False,
            ),
            Pause(0.05),
            Reset(),
        ),
        "complete",
    ),
    streamed(
        "[DONE], but no end of the body",
        chunked(
            *(f"data: {e}\n\n".encode() for e in (ROLE, *TOKENS, FINISH, "[DONE]")),
            headers=SSE_TYPE,
            ends=False,
        ),
        "complete",
    ),
    streamed(
        "no empty line behind [DONE]",
        chunked(
            *(f"data: {e}\n\n".encode() for e in (ROLE, *TOKENS, FINISH)),
            b"data: [DONE]",
            headers=SSE_TYPE,
        ),
        "complete",
    ),
    streamed("one byte at a time", recut(GOOD_STREAM), "complete"),
]


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        yield chats


@pytest.fixture(scope="module")
def gateway(wall: ChatWall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("faults")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    config = (
        CONFIG
        + provider(wall.wall.url, "m", name="Wall")
        + provider(f"http://127.0.0.1:{port}", "refused", name="Refusing")
        + provider("http://no-such-host.invalid", "nameless", name="Nameless")
    )
    with running_gateway(directory, config) as running:
        yield running


def verdict(answer: Answer) -> str:
    """What the caller has, in a few words."""
    if answer.status != 200:
        body = answer.json()["error"]
        details = body.get("details")
        history = f" {details['error_history'][0]['code']}" if details else ""
        return f"{answer.status} {body['code']}{history}"
    if "event-stream" not in answer.headers["content-type"]:
        content = answer.json()["choices"][0]["message"]["content"]
        return "complete" if content == "".join(WORDS) else f"wrong: {content!r}"
    events = answer.events()
    payloads = [event for event in events if event != "[DONE]"]
    text = "".join(
        choice["delta"].get("content") or ""
        for event in payloads
        for choice in event.get("choices", ())
    )
    errors = [event["error"] for event in payloads if "error" in event]
    if errors:
        assert events[-1] == {"error": errors[0]}, "an error is the last thing said"
        sent = "".join(WORDS[:4])
        assert text.startswith(sent) or sent.startswith(text), "as it was sent"
        return "broken"
    return "complete" if events[-1] == "[DONE]" and text == "".join(WORDS) else "looks finished"


def ask(gateway: Gateway, model: str = "m", *, stream: bool) -> Answer:
    began = time.monotonic()
    messages = [{"role": "user", "content": "Go on"}]
    answer = gateway.chat({"model": model, "messages": messages, "stream": stream}, timeout=30)
    assert time.monotonic() - began < ENOUGH, "an error comes in time"
    return answer


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.stream], ids=lambda f: f.name)
def test_a_stream_is_complete_or_an_honest_error(
    gateway: Gateway, wall: ChatWall, fault: Fault
) -> None:
    assert fault.stream is not None
    wall.answer = fault.stream
    got = verdict(ask(gateway, stream=True))
    assert got in allowed(fault.streamed.replace("endless", "broken"))


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.whole], ids=lambda f: f.name)
def test_a_whole_answer_is_complete_or_an_honest_error(
    gateway: Gateway, wall: ChatWall, fault: Fault
) -> None:
    assert fault.whole is not None
    wall.answer = fault.whole
    got = verdict(ask(gateway, stream=False))
    assert got in allowed(fault.at_once)


def allowed(verdicts: str) -> list[str]:
    return verdicts.split(" or ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["refused", "nameless"])
def test_a_provider_that_cannot_be_reached_is_a_503(
    gateway: Gateway, model: str, stream: bool
) -> None:
    answer = ask(gateway, model, stream=stream)
    assert verdict(answer) in ("503 all_models_failed connect", "503 all_models_failed timeout")
    error = answer.json()["error"]
    assert error["type"] == "service_unavailable_error"
    assert error["details"]["total_attempts"] == 1
    assert error["details"]["tried_models"][0].startswith(model)
    assert int(answer.headers["retry-after"]) >= 1


def test_the_providers_retry_after_reaches_the_caller(gateway: Gateway, wall: ChatWall) -> None:
    wall.answer = error(429, headers=[("Retry-After", "7")])
    assert ask(gateway, stream=False).headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        error(401, "Incorrect API key provided: provider-secret"),
        error(500, "no luck with provider-secret"),
        error(429, "provider-secret asks too often"),
        error(422, "provider-secret"),
        error(200, "provider-secret is overloaded"),
        sse(json.dumps({"error": {"message": "provider-secret"}})),
        begun(event(json.dumps({"error": "provider-secret"})), Send(END)),
    ],
)
def test_our_key_at_the_provider_stays_with_us(
    gateway: Gateway, wall: ChatWall, script: Script, stream: bool
) -> None:
    wall.answer = script
    assert b"provider-secret" not in ask(gateway, stream=stream).body
    assert not any("provider-secret" in line for line in gateway.log)


def test_the_callers_fault_keeps_the_providers_param(gateway: Gateway, wall: ChatWall) -> None:
    wall.answer = error(400, "bad tools", code="bad_tools", param="tools[0]")
    found = ask(gateway, stream=True).json()["error"]
    assert (found["param"], found["message"]) == ("tools[0]", "bad tools")
    assert found["type"] == "invalid_request_error"


def test_after_all_of_this_no_connection_is_left_behind(gateway: Gateway, wall: ChatWall) -> None:
    wall.answer = GOOD_WHOLE
    assert verdict(ask(gateway, stream=False)) == "complete"
    assert wall.wall.open_connections <= 2
