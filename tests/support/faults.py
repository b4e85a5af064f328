"""What a provider may do wrong, and what the caller must get: a fault a row.

Each fault is played by the wall, for a stream and for a whole answer. `alone` is the verdict
where nobody else may be asked, `helped` where a second provider gives the same answer:

    complete      to the letter, from the provider that was asked first, at the first attempt
    repeated      to the letter, from the same provider, at a later attempt
    by fallback   to the letter, from the second provider, of whom the caller sees nothing else
    continued     to the letter, begun by one attempt and brought to its end by another
    broken C D    some words, then an error event with the code C, and no `[DONE]`
    S C D         an HTTP error: its status and code

`D` is the code of the first attempt in the error's history. Where a verdict has an `or`, the
contract leaves room. The words are the same for all; times are for `CONFIG`.
"""

import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate

from tests.support.chat_wall import (
    ANSWER,
    FINISH,
    GOOD_STREAM,
    GOOD_WHOLE,
    JSON_TYPE,
    ROLE,
    SSE_TYPE,
    TOKENS,
    Speech,
    chunk,
    event,
)
from tests.support.gateway import Answer
from tests.support.wall import (
    END,
    GARBAGE,
    Close,
    Headers,
    Pause,
    Request,
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
from tests.support.wall import Answer as Play

CONFIG = """
[routing]
order = "same-model-first"
connect_timeout = "1s"
first_token_timeout = "600ms"
idle_timeout = "600ms"
answer_timeout = "1200ms"
deadline = "5s"
retries = 1
retry_pause = "20ms"
rest = "50ms"
"""
"""One second stands for 60 ms: of the limits, the pauses and the trickles."""
ENOUGH = 8.0
"""Seconds in which every fault must be over: the limits above, generously."""

SPEECH = Speech()
LONG = Speech(tuple(f" word{n}" for n in range(12)))


@dataclass(frozen=True)
class Verdicts:
    """What the caller gets, without and with a second provider; `""` where it is not asked."""

    alone: str = ""
    helped: str = ""


@dataclass(frozen=True, eq=False)
class Fault:
    """What the provider does to streamed and whole requests, one after the other; the last one
    for ever.

    `own`: more than one candidate suffers from it, so it needs a provider of its own.
    `address` is where that provider stands, if not at the wall. `speech` is the whole answer.
    """

    name: str
    stream: Sequence[Play] = ()
    whole: Sequence[Play] = ()
    streamed: Verdicts = Verdicts()
    at_once: Verdicts = Verdicts()
    own: bool = False
    address: str = ""
    speech: Speech = SPEECH


def error(status: int, message: str = "no", headers: Headers = (), **fields: object) -> Script:
    """An error in OpenAI's shape."""
    body = json.dumps({"error": {"message": message, **fields}}).encode()
    return whole(body, status, [*JSON_TYPE, *headers])


def begun(*after: Step) -> Script:
    """A stream of some words, and then what happens."""
    return SPEECH.begun(4, *after)


def status_told(play: Play) -> int | None:
    """The HTTP status that is told first, where it is an error."""
    first = play[0] if not callable(play) and play else None
    words = first.data[:64].split() if isinstance(first, Send) else []
    if words[:1] != [b"HTTP/1.1"] or len(words) < 2 or words[1] == b"200":
        return None
    return int(words[1])


def verdict(answer: Answer, text: str) -> str:
    """What the caller has, in the words above; anything else is a fault of ours.

    `text` is what a complete answer says; the first provider's name begins with Primary.
    """
    found = answer.error
    if found is not None:
        history = (found.get("details") or {}).get("error_history") or [{"code": ""}]
        if not answer.streamed:
            return f"{answer.status} {found['code']} {history[0]['code']}".strip()
        assert answer.events()[-1] == {"error": found}, "an error is the last thing said"
        assert text.startswith(answer.text), "as it was sent, and nothing else"
        return f"broken {found['code']} {history[0]['code']}".strip()
    if answer.text != text:
        return f"wrong: {answer.text!r}"
    if answer.streamed:
        whole_stream(answer)
    last = answer.chunks()[-1] if answer.streamed else answer.json()
    if answer.metadata.get("continuations"):
        return "continued"
    if not last["provider"].startswith("Primary"):
        return "by fallback"
    return "complete" if answer.headers["x-manyways-attempts"] == "1" else "repeated"


def whole_stream(answer: Answer) -> None:
    """What holds for every stream that is complete, whoever brought it."""
    events, chunks = answer.events(), answer.chunks()
    assert events.count("[DONE]") == 1
    assert events[-1] == "[DONE]"
    assert len({each["id"] for each in chunks}) == 1, "one id, whoever answers"
    assert len({each["created"] for each in chunks}) == 1
    choices = [choice for each in chunks for choice in each["choices"]]
    assert [c["finish_reason"] for c in choices if c.get("finish_reason")] == ["stop"]
    assert sum("role" in c["delta"] for c in choices) <= 1, "an answer begins once"


def everywhere(name: str, script: Play, found: str) -> Fault:
    """Nothing that anybody else could mend, or nothing that needs mending."""
    same = Verdicts(found, found)
    return Fault(name, [script], [script], same, same)


def early(name: str, script: Play, code: str, *, own: bool = False) -> Fault:
    """A failure before the first word, streamed and whole."""
    found = before(code)
    return Fault(name, [script], [script], found, found, own=own)


def early_stream(name: str, script: Play, code: str) -> Fault:
    return Fault(name, stream=[script], streamed=before(code))


def early_whole(name: str, script: Play, code: str) -> Fault:
    return Fault(name, whole=[script], at_once=before(code))


def late(name: str, script: Play, code: str, speech: Speech = SPEECH) -> Fault:
    """A stream that breaks after some words."""
    alone = " or ".join(f"broken all_models_failed {each}" for each in code.split(" or "))
    return Fault(name, stream=[script], streamed=Verdicts(alone, "continued"), speech=speech)


def harmless(name: str, script: Play, speech: Speech = SPEECH) -> Fault:
    """A stream that is complete all the same."""
    fine = Verdicts("complete", "complete")
    return Fault(name, stream=[script], streamed=fine, speech=speech)


def passing(name: str, bad: Play, alone: str = "repeated", helped: str = "by fallback") -> Fault:
    """What is over when the same provider is asked again."""
    found = Verdicts(alone, helped)
    return Fault(name, [bad, SPEECH], [bad, SPEECH], found, found)


def before(code: str) -> Verdicts:
    alone = " or ".join(f"503 all_models_failed {each}" for each in code.split(" or "))
    return Verdicts(alone, "by fallback")


def unreachable(name: str, address: str, code: str) -> Fault:
    found = before(code)
    return Fault(name, [()], [()], found, found, own=True, address=address)


def until_a_date(_request: Request) -> Script:
    """A 429 until a second from now, told as a date."""
    return error(429, headers=[("Retry-After", formatdate(time.time() + 1.5, usegmt=True))])


def trickle(data: bytes, pause: float) -> Script:
    return tuple(step for byte in data for step in (Send(bytes([byte])), Pause(pause)))


def claimed(events: Sequence[str], more: int, *after: Step) -> Script:
    """A stream with a `Content-Length` that is wrong by `more`."""
    body = b"".join(f"data: {each}\n\n".encode() for each in events)
    return (Send(head(200, SSE_TYPE, length=len(body) + more) + body), *after)


OPENING = Send(head(200, SSE_TYPE, chunked=True))
ALL = [ROLE, *TOKENS, FINISH]
OVERLOADED = json.dumps({"error": {"message": "overloaded"}})

COMMENT = Send(piece(b": still here\n\n"))
TOO_LONG = error(
    400, "This model's maximum context length is 8192 tokens", code="context_length_exceeded"
)

FAULTS = [
    Fault(
        "nothing wrong",
        [GOOD_STREAM],
        [GOOD_WHOLE],
        Verdicts("complete", "complete"),
        Verdicts("complete", "complete"),
    ),
    # No answer at all.
    unreachable("connections are refused", "refused", "connect or timeout"),
    unreachable("a name that nobody has", "nameless", "connect or timeout"),
    unreachable("a certificate of a stranger", "stranger", "tls"),
    unreachable("no TLS where it is asked for", "plain", "tls or timeout"),
    early("reset before headers", (Reset(),), "reset"),
    early("closed before headers", (Close(),), "reset"),
    early("reset inside headers", (Send(b"HTTP/1.1 200 OK\r\nCont"), Reset()), "reset"),
    early("silence inside headers", (Send(b"HTTP/1.1 200 OK\r\nCont"), Stall()), "timeout"),
    early("silence", (Stall(),), "timeout"),
    early("not HTTP", GARBAGE, "garbled"),
    Fault(
        "an answer that is late, but in time",
        [(Pause(0.2), *GOOD_STREAM)],
        [(Pause(0.2), *GOOD_WHOLE)],
        Verdicts("complete", "complete"),
        Verdicts("complete", "complete"),
    ),
    Fault(
        "an answer later than a first token may be",
        [(Pause(0.9), *GOOD_STREAM)],
        [(Pause(0.9), *GOOD_WHOLE)],
        before("timeout"),
        Verdicts("complete", "complete"),
    ),
    Fault(
        "an answer that is far too late",
        [(Pause(2.5), *GOOD_STREAM)],
        [(Pause(2.5), *GOOD_WHOLE)],
        before("timeout"),
        before("timeout"),
    ),
    Fault(
        "one byte a second",
        [(OPENING, *trickle(b"".join(piece(f"data: {e}\n\n".encode()) for e in ALL), 0.06))],
        [(Send(head(200, JSON_TYPE, length=len(ANSWER))), *trickle(ANSWER, 0.06))],
        before("timeout"),
        before("timeout"),
    ),
    # 200, and no answer.
    early("a page of HTML", html(), "no_answer"),
    early("an empty body", whole(b"", 200, JSON_TYPE), "no_answer"),
    early("an error inside a 200", error(200, "overloaded"), "error_inside or no_answer"),
    early("no object", whole(b"[]", 200, JSON_TYPE), "no_answer or garbled"),
    early("broken JSON", whole(ANSWER[:-1], 200, JSON_TYPE), "no_answer or garbled"),
    Fault(
        "a compressed body that nobody asked for",
        whole=[whole(gzip.compress(ANSWER), 200, [*JSON_TYPE, ("Content-Encoding", "gzip")])],
        at_once=Verdicts("complete", "complete"),
    ),
    early(
        "a body in a coding that nobody knows",
        whole(gzip.compress(ANSWER), 200, [*JSON_TYPE, ("Content-Encoding", "x-strange")]),
        "no_answer or garbled",
    ),
    early(
        "a compressed body without its end",
        whole(gzip.compress(ANSWER)[:-9], 200, [*JSON_TYPE, ("Content-Encoding", "gzip")]),
        "no_answer or garbled",
    ),
    early_whole("a stream where none was asked for", GOOD_STREAM, "no_answer or garbled"),
    Fault(
        "a whole answer where a stream was asked for",
        stream=[GOOD_WHOLE],
        streamed=Verdicts("503 all_models_failed no_answer or complete", "by fallback or complete"),
    ),
    early(
        "a redirect",
        whole(b"", 302, [("Location", "http://127.0.0.1:1/")]),
        "provider_error",
    ),
    early("204", (Send(head(204)),), "provider_error or no_answer"),
    # Errors that are the provider's.
    early("408", error(408), "provider_error"),
    early("409", error(409), "provider_error"),
    early("425", error(425), "provider_error"),
    early("500", error(500), "provider_error"),
    early("500 without a body", whole(b"", 500), "provider_error"),
    early("502 in HTML", html(502), "provider_error"),
    early("503", error(503), "provider_error"),
    early("529", error(529), "provider_error"),
    early("429", error(429), "rate_limited"),
    early(
        "429 until long after the deadline",
        error(429, headers=[("Retry-After", "60")]),
        "rate_limited",
    ),
    passing("429 once", error(429)),
    passing("429 once, with Retry-After", error(429, headers=[("Retry-After", "1")])),
    passing("429 once, with a date", until_a_date),
    passing("500 once", error(500)),
    # Where the connection had been kept, that is told apart from a failure: it is made anew.
    passing("reset once", (Reset(),), "repeated or complete", "by fallback or complete"),
    passing("HTML once", html()),
    Fault(
        "503 for a minute",
        [*[error(503)] * 9, SPEECH],
        [*[error(503)] * 9, SPEECH],
        before("provider_error"),
        before("provider_error"),
    ),
    early(
        "401",
        error(401, "Incorrect API key provided: provider-secret"),
        "credentials",
        own=True,
    ),
    early("402", error(402, "no credit"), "credentials", own=True),
    early("403", error(403, "not you"), "credentials", own=True),
    early(
        "400 about the key",
        error(400, "API key not valid. Please pass a valid API key."),
        "credentials",
        own=True,
    ),
    early(
        "404 about the model",
        error(404, "The model `upstream-name` does not exist", code="model_not_found"),
        "model_gone",
    ),
    # Errors that are the caller's: nobody else is asked.
    everywhere(
        "400 of the caller",
        error(400, "bad tools", code="bad_tools", param="tools[0]"),
        "400 bad_tools",
    ),
    everywhere("422 of the caller", error(422, "not so"), "422 invalid_request"),
    everywhere("413 of the caller", error(413, "too much"), "413 invalid_request"),
    everywhere("404 of a route", error(404, "Not Found"), "404 invalid_request"),
    everywhere("400 filter", error(400, "flagged", code="content_filter"), "400 content_filter"),
    Fault(
        "400 context",
        [TOO_LONG],
        [TOO_LONG],
        Verdicts("400 context_length_exceeded", "by fallback"),
        Verdicts("400 context_length_exceeded", "by fallback"),
    ),
    # Whole answers that are not whole.
    early_whole(
        "a body that lies long", whole(ANSWER, 200, JSON_TYPE, claims=len(ANSWER) + 50), "timeout"
    ),
    early_whole(
        "a body that lies long and ends",
        (*whole(ANSWER, 200, JSON_TYPE, claims=len(ANSWER) + 50), Close()),
        "cut",
    ),
    early_whole(
        "a body that lies short",
        (*whole(ANSWER, 200, JSON_TYPE, claims=len(ANSWER) - 50), Close()),
        "garbled or no_answer",
    ),
    early_whole(
        "half a body, then a reset",
        (Send(head(200, JSON_TYPE, length=len(ANSWER)) + ANSWER[:100]), Reset()),
        "cut",
    ),
    early_whole(
        "half a body, then silence",
        (Send(head(200, JSON_TYPE, length=len(ANSWER)) + ANSWER[:100]), Stall()),
        "timeout",
    ),
    early_whole(
        "a whole answer without choices",
        whole(b'{"id":"x","choices":[]}', 200, JSON_TYPE),
        "no_answer",
    ),
    early_whole(
        "a whole answer that trickles",
        (Send(head(200, JSON_TYPE, length=len(ANSWER))), *trickle(ANSWER, 0.05)),
        "timeout",
    ),
    # Streams that fail before their first word.
    early_stream("only a role, then silence", (OPENING, event(ROLE), Stall()), "timeout"),
    early_stream("only a role, then the end", sse(ROLE), "cut"),
    early_stream("headers, then silence", (OPENING, Stall()), "timeout"),
    early_stream("headers, then a reset", (OPENING, Reset()), "cut or reset"),
    early_stream("headers, then the connection's end", (OPENING, Close()), "cut or reset"),
    early_stream(
        "a first token that is late",
        (OPENING, event(ROLE), Pause(1.2), *map(event, (*TOKENS, FINISH, "[DONE]")), Send(END)),
        "timeout",
    ),
    early_stream(
        "comments, then nothing",
        (
            OPENING,
            *(step for _ in range(8) for step in (COMMENT, Pause(0.1))),
            Stall(),
        ),
        "timeout",
    ),
    early_stream(
        "only empty words",
        (
            OPENING,
            *(step for _ in range(40) for step in (event(SPEECH.role), Pause(0.05))),
            Stall(),
        ),
        "timeout",
    ),
    early_stream("an error as the first event", sse(OVERLOADED), "error_inside"),
    early_stream(
        "an event named error",
        chunked(b'event: error\ndata: {"message": "overloaded"}\n\n', headers=SSE_TYPE),
        "error_inside",
    ),
    early_stream("an error behind the role", sse(ROLE, OVERLOADED, "[DONE]"), "error_inside"),
    early_stream("no event at all", sse(), "cut"),
    early_stream("only [DONE]", sse("[DONE]"), "cut"),
    early_stream("no JSON as the first event", sse("what?"), "garbled"),
    # Streams that break after some words.
    late("stall after one word", SPEECH.begun(1, Stall()), "timeout"),
    late("stall after some words", begun(Stall()), "timeout"),
    late("stall before the finish", SPEECH.begun(7, Stall()), "timeout"),
    late(
        "after some words only comments",
        begun(*(step for _ in range(60) for step in (COMMENT, Pause(0.1)))),
        "timeout",
    ),
    late(
        "one byte a second after some words",
        begun(*trickle(b"".join(piece(f"data: {e}\n\n".encode()) for e in TOKENS[4:]), 0.06)),
        "timeout",
    ),
    late("reset after some words", begun(Reset()), "cut"),
    late("closed after some words", begun(Close()), "cut"),
    late("closed before the finish", SPEECH.begun(7, Close()), "cut"),
    late(
        "closed inside an event",
        begun(Send(piece(f"data: {TOKENS[4][:40]}".encode())), Close()),
        "cut or garbled",
    ),
    late("a clean end after some words", begun(Send(END)), "cut"),
    late("a clean end before the finish", SPEECH.begun(7, Send(END)), "cut"),
    late("[DONE] after some words", begun(event("[DONE]"), Send(END)), "cut"),
    late(
        "broken JSON after some words",
        begun(
            event('{"choices": [{"delta'),
            *map(event, TOKENS[4:]),
            event(FINISH),
            event("[DONE]"),
            Send(END),
        ),
        "garbled",
    ),
    late(
        "two events in one after some words",
        begun(Send(piece(f"data: {TOKENS[4]}\ndata: {TOKENS[5]}\n\n".encode())), Stall()),
        "garbled",
    ),
    late("an event that is no object", begun(event("[]"), event("[DONE]"), Send(END)), "garbled"),
    late("HTML after some words", begun(event("<html>Bad Gateway</html>"), Stall()), "garbled"),
    late(
        "invalid UTF-8 after some words",
        begun(Send(piece(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')), Stall()),
        "garbled",
    ),
    Fault(
        "broken chunk framing after some words",
        stream=[begun(Send(b"zz\r\nwhat\r\n"), Stall())],
        streamed=Verdicts(
            "broken all_models_failed garbled or 503 all_models_failed garbled",
            "continued or by fallback",
        ),
    ),
    late("an error after some words", begun(event(OVERLOADED), Send(END)), "error_inside"),
    late(
        "an error as the tenth event",
        LONG.begun(8, event(OVERLOADED), event("[DONE]"), Send(END)),
        "error_inside",
        LONG,
    ),
    late(
        "finish_reason error",
        begun(event(chunk(finish="error")), event("[DONE]"), Send(END)),
        "error_inside",
    ),
    late("a stream whose length lies long", claimed(ALL[:5], 50, Stall()), "timeout"),
    late("a stream whose length lies long and ends", claimed(ALL[:5], 50, Close()), "cut"),
    Fault(
        "a stream whose length lies short",
        stream=[claimed([*ALL, "[DONE]"], -60)],
        streamed=Verdicts(
            "broken all_models_failed cut or broken all_models_failed garbled"
            " or 503 all_models_failed garbled",
            "continued or by fallback",
        ),
    ),
    Fault(
        "a cut once",
        stream=[begun(Close()), SPEECH],
        streamed=Verdicts("continued", "continued"),
    ),
    Fault(
        "words without end",
        stream=[begun(*(step for _ in range(40) for step in (event(TOKENS[4]), Pause(0.2))))],
        streamed=Verdicts("broken timeout timeout", "broken timeout timeout"),
        speech=Speech(SPEECH.words[:4] + SPEECH.words[4:5] * 40),
    ),
    # Streams that are complete all the same.
    harmless("no [DONE]", sse(*ALL)),
    harmless("no [DONE], no end", sse(*ALL, ends=False)),
    harmless("a reset behind the finish", (*sse(*ALL, ends=False), Pause(0.05), Reset())),
    harmless("[DONE], but no end of the body", sse(*ALL, "[DONE]", ends=False)),
    harmless("[DONE] twice", sse(*ALL, "[DONE]", "[DONE]")),
    harmless("an error behind the finish", sse(*ALL, OVERLOADED, "[DONE]")),
    harmless(
        "no empty line behind [DONE]",
        chunked(
            *(f"data: {e}\n\n".encode() for e in ALL),
            b"data: [DONE]",
            headers=SSE_TYPE,
        ),
    ),
    harmless("one byte at a time", recut(GOOD_STREAM)),
    harmless("a true length", claimed([*ALL, "[DONE]"], 0)),
    harmless("a length without [DONE]", claimed(ALL, 0)),
    harmless("a length that lies long behind a complete answer", claimed([*ALL, "[DONE]"], 50)),
    Fault(
        "a length that cuts [DONE]",
        stream=[claimed([*ALL, "[DONE]"], -6, Close())],
        streamed=Verdicts("complete or 503 all_models_failed garbled", "complete or by fallback"),
    ),
    harmless(
        "comments between words",
        begun(COMMENT, *map(event, (*TOKENS[4:], FINISH, "[DONE]")), Send(END)),
    ),
]


def second(speech: Speech) -> Speech:
    """The same answer as a second provider gives it: other pieces, another id."""
    return replace(speech.recut(5), id="chatcmpl-second", model="second-name")
