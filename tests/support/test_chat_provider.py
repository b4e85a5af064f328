"""Scripted providers tell of their usage what real ones do."""

import json
from typing import Any

import pytest

from tests.support.chat_provider import ChatProvider, Tells
from tests.support.chat_wall import Speech
from tests.support.wall import Moment, Request, Send

ASKED = {"stream_options": {"include_usage": True}}
kinds = pytest.mark.parametrize("kind", [ChatProvider, Speech])


def answer(kind: type[ChatProvider | Speech], tells: Tells, body: Any) -> list[bytes]:
    request = Request("POST", "/v1/chat/completions", {}, json.dumps(body).encode(), Moment())
    return [step.data for step in kind(tells=tells)(request) if isinstance(step, Send)]


def told(kind: type[ChatProvider | Speech], tells: Tells, **fields: Any) -> list[Any]:
    """The usages in an answer, null for an event without."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    sent = b"".join(answer(kind, tells, body))
    lines = [line for line in sent.split(b"\r\n\r\n", 1)[1].splitlines() if b'"model"' in line]
    payloads = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    return [payload.get("usage") for payload in payloads]


@kinds
def test_usage_that_is_asked_for_comes_behind_the_end(kind: type[ChatProvider | Speech]) -> None:
    *before, last = told(kind, "asked", stream=True, **ASKED)
    assert not any(before)
    assert last["completion_tokens"] > 0
    assert not any(told(kind, "asked", stream=True))
    assert all(told(kind, "asked"))


@kinds
def test_running_usage_grows_with_each_event(kind: type[ChatProvider | Speech]) -> None:
    found = told(kind, "each", stream=True)
    counts = [usage["completion_tokens"] for usage in found]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert told(kind, "each", stream=True, **ASKED) == found
    assert all(told(kind, "each"))


@kinds
def test_who_never_tells_does_not_when_asked(kind: type[ChatProvider | Speech]) -> None:
    assert not any(told(kind, "never", stream=True, **ASKED))
    assert not any(told(kind, "never"))


@kinds
def test_who_knows_no_options_refuses_them_by_name(kind: type[ChatProvider | Speech]) -> None:
    (sent,) = answer(kind, "refuses", {"model": "m", "messages": [], "stream": True, **ASKED})
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert b'"param": "stream_options"' in sent
    assert not any(told(kind, "refuses", stream=True))
    assert all(told(kind, "refuses"))
