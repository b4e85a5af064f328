"""OpenAI's own client for JavaScript, unmodified but for base URL and key.

All cases run in one process, `tests/node/openai.mjs`; each is judged here.
"""

import json
from typing import Any

import pytest

from tests.clients.conftest import NODE_FOLDER, Node
from tests.support import chat_provider
from tests.support.chat_provider import ChatProvider
from tests.support.gateway import Gateway
from tests.support.wall import END, Moment, Request, Script, Send, WaitFor, Wall, head, piece, sse

pytestmark = [pytest.mark.process, pytest.mark.node]


def event(delta: dict[str, Any], finish_reason: str | None = None) -> str:
    return json.dumps(chat_provider.chunk(delta, finish_reason))


def framed(*events: str) -> bytes:
    return b"".join(b"data: %b\n\n" % text.encode() for text in events)


@pytest.fixture(scope="module")
def found(gateway: Gateway, provider: ChatProvider, node: Node) -> Any:
    """What the cases found, by name."""
    said, never = Moment(), Moment()

    def go_on(request: Request) -> Script:
        said.set()
        return chat_provider.reply(chat_provider.completion(json.loads(request.body)))

    begin = Send(head(headers=[("Content-Type", "text/event-stream")], chunked=True))
    provider.answers |= {
        "go on": go_on,
        "word by word": [
            begin,
            Send(piece(framed(event({"content": "one"})))),
            WaitFor(said),
            Send(piece(framed(event({"content": "two"}), event({}, "stop"), "[DONE]"))),
            Send(END),
        ],
        "without end": [begin, Send(piece(framed(event({"content": "endless"})))), WaitFor(never)],
        "overloaded": chat_provider.failure(529, "Too much."),
        "break off": sse(event({"content": "Once "}), '{"error": {"message": "Gone."}}'),
    }
    made = json.loads(gateway.command("keys", "create", "--type", "full", "--json").stdout)
    done = gateway.command("keys", "revoke", made["id"], "--reason", "a refund")
    assert done.returncode == 0, done.stderr
    script = NODE_FOLDER / "openai.mjs"
    ran = node.run(script, gateway.base_url, gateway.key, made["key"])
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_whole_answer(found: Any) -> None:
    answer = found["whole"]
    assert answer["choices"][0]["message"]["content"] == chat_provider.TEXT
    assert (answer["id"], answer["model"]) == (chat_provider.ID, "gpt-4o")
    assert answer["provider"] == "Capi"
    assert answer["usage"]["total_tokens"] == 14


def test_headers_say_who_answered_and_which_request_it_was(found: Any) -> None:
    assert found["headers"]["provider"] == "Capi"
    assert len(found["headers"]["requestId"]) == 36


def test_a_streamed_answer(found: Any) -> None:
    chunks = found["streamed"]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == chat_provider.TEXT
    assert {(c["id"], c["created"], c["model"], c["provider"]) for c in chunks} == {
        (chat_provider.ID, chat_provider.CREATED, "gpt-4o", "Capi")
    }
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_usage_ends_a_stream_that_asked_for_it(found: Any) -> None:
    *chunks, last = found["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["usage"]["total_tokens"] == 14


def test_chunks_arrive_one_by_one(found: Any) -> None:
    assert found["oneByOne"] == ["one", "two", "stop"]


def test_a_caller_that_stops_reading_ends_the_work_upstream(found: Any, wall: Wall) -> None:
    assert found["leaving"] == "endless"
    (request,) = [r for r in wall.requests if b"without end" in r.body]
    request.left.block(5)


def test_parallel_tool_calls_whole_and_streamed(found: Any) -> None:
    for name in ("tools", "toolsStreamed"):
        choice = found[name]["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        calls = [call["function"] for call in choice["message"]["tool_calls"]]
        assert [(call["name"], call["arguments"]) for call in calls] == [
            ("get_weather", '{"city": "Paris"}'),
            ("get_time", '{"zone": "UTC"}'),
        ]


def test_structured_output(found: Any) -> None:
    assert found["structured"] == {"name": "Paris", "inhabitants": 1.5}


def test_log_probabilities(found: Any) -> None:
    (token,) = found["logprobs"]["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["logprob"]) == ("Hello", -0.25)


def test_unknown_fields_pass_both_ways(found: Any, wall: Wall) -> None:
    assert found["unknown"]["x_vendor"]["queue_time"] == 0.010407901
    sent = [json.loads(r.body) for r in wall.requests if b"x_vendor_option" in r.body]
    assert [body["x_vendor_option"] for body in sent] == [{"deep": [1, {"er": None}]}]


def test_models_are_listed_and_retrieved(found: Any) -> None:
    assert [model["id"] for model in found["models"]][:2] == ["gpt-4o", "o3-scripted"]
    assert (found["model"]["id"], found["model"]["owned_by"]) == ("gpt-4o", "Capi")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wrongKey", ("AuthenticationError", 401, "invalid_api_key", None)),
        ("revokedKey", ("PermissionDeniedError", 403, "revoked_api_key", None)),
        ("noModel", ("NotFoundError", 404, "model_not_found", "model")),
        ("badField", ("BadRequestError", 400, "invalid_request", "temperature")),
        ("overloaded", ("InternalServerError", 503, "all_models_failed", None)),
        ("overloadedStream", ("InternalServerError", 503, "all_models_failed", None)),
        ("brokenStream", ("APIError", None, "all_models_failed", None)),
    ],
)
def test_errors_become_the_clients_own_classes(
    found: Any, name: str, expected: tuple[Any, ...]
) -> None:
    error = found[name]
    assert (error["class"], error.get("status"), error["code"], error.get("param")) == expected
    assert error["heard"] == (["Once "] if name == "brokenStream" else [])


def test_a_503_tells_its_history(found: Any) -> None:
    details = found["overloaded"]["details"]
    assert details["tried_models"][0] == "gpt-4o (Capi)"
    assert details["error_history"][0]["status"] == 529
