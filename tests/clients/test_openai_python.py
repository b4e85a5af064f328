"""OpenAI's own client for Python, unmodified but for base URL and key."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from pydantic import BaseModel

from tests.support import chat_provider
from tests.support.chat_provider import ChatProvider
from tests.support.gateway import Gateway
from tests.support.wall import (
    END,
    Close,
    Moment,
    Send,
    WaitFor,
    Wall,
    head,
    html,
    piece,
    sse,
)

pytestmark = pytest.mark.process

MODEL = "gpt-4o"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"zone": {"enum": ["UTC", "MSK"]}}},
    },
}


class City(BaseModel):
    name: str
    inhabitants: int


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=gateway.base_url, api_key=gateway.key, max_retries=0, timeout=20
    ) as client:
        yield client


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def sent(wall: Wall) -> Any:
    """The body of the last request that reached the provider."""
    return json.loads(wall.requests[-1].body)


def listen(stream: Iterable[ChatCompletionChunk], heard: list[str]) -> None:
    """Keeps in `heard` what came, even where the stream raises."""
    for chunk in stream:
        heard.append(chunk.choices[0].delta.content or "")  # noqa: PERF401


def test_a_whole_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == chat_provider.TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id == chat_provider.ID
    assert answer.created == chat_provider.CREATED
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    assert answer.system_fingerprint == "fp_scripted"


def test_an_answer_names_the_catalogs_model_and_its_provider(client: OpenAI, wall: Wall) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.model == MODEL
    assert answer.model_extra is not None
    assert answer.model_extra["provider"] == "Capi"
    assert sent(wall)["model"] == "gpt-4o-2024-08-06"


def test_the_callers_key_stays_with_us_and_the_provider_gets_its_own(
    client: OpenAI, gateway: Gateway, wall: Wall
) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO)
    headers = wall.requests[-1].headers
    assert headers["authorization"] == "Bearer provider-secret"
    assert gateway.key not in str(wall.requests[-1])


def test_headers_say_who_answered(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    assert raw.headers["x-manyways-provider"] == "Capi"
    assert raw.headers["x-manyways-model"] == MODEL
    assert raw.headers["x-manyways-attempts"] == "1"
    assert raw.headers["x-api-version"] == "1.0"
    assert raw.headers["content-type"] == "application/json; charset=utf-8"
    assert raw.request_id == raw.headers["x-request-id"]


@pytest.mark.parametrize(
    ("model", "extra", "answers"),
    [
        ("HuggingSpace/command-r-plus-08-2024", {}, "HuggingSpace"),
        ("command-r-plus-08-2024", {"provider": "HuggingSpace"}, "HuggingSpace"),
        ("gpt-4o", {"provider": {"only": ["Capi"], "allow_fallbacks": False}}, "Capi"),
        ("auto", {"provider": {"only": ["Capi"]}}, "Capi"),
        ("auto", {"provider": {"ignore": ["Capi"]}}, "HuggingSpace"),
    ],
)
def test_models_and_providers_by_every_name(
    client: OpenAI, wall: Wall, model: str, extra: dict[str, Any], answers: str
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=HELLO, extra_body=extra
    )
    assert raw.headers["x-manyways-provider"] == answers
    assert "provider" not in sent(wall)


def test_a_streamed_answer(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == chat_provider.TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {(c.id, c.created, c.model, c.object) for c in chunks} == {
        (chat_provider.ID, chat_provider.CREATED, MODEL, "chat.completion.chunk")
    }
    assert all((c.model_extra or {})["provider"] == "Capi" for c in chunks)
    assert all(c.usage is None for c in chunks)


def test_usage_ends_a_stream_that_asked_for_it(client: OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = stream
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (9, 5)


def test_chunks_arrive_one_by_one(client: OpenAI, provider: ChatProvider) -> None:
    """The provider says the next word only once the caller has the one before."""
    heard = [Moment(), Moment(), Moment()]
    words = ["one", "two", "three"]
    steps: list[Any] = [Send(head(headers=[("Content-Type", "text/event-stream")], chunked=True))]
    for word, moment in zip(words, heard, strict=True):
        event = json.dumps(chat_provider.chunk({"content": word}))
        steps += [Send(piece(f"data: {event}\n\n".encode())), WaitFor(moment)]
    event = json.dumps(chat_provider.chunk({}, "stop"))
    steps += [Send(piece(f"data: {event}\n\ndata: [DONE]\n\n".encode())), Send(END)]
    provider.answers["word by word"] = steps
    with client.chat.completions.create(
        model=MODEL, messages=says("word by word"), stream=True, timeout=5
    ) as stream:
        for word, moment in zip(words, heard, strict=True):
            assert next(stream).choices[0].delta.content == word
            moment.set()
        assert next(stream).choices[0].finish_reason == "stop"
        assert list(stream) == []


def test_a_caller_that_stops_reading_ends_the_work_upstream(
    client: OpenAI, provider: ChatProvider, wall: Wall
) -> None:
    event = json.dumps(chat_provider.chunk({"content": "endless"}))
    first = Send(head(chunked=True) + piece(f"data: {event}\n\n".encode()))
    provider.answers["without end"] = [first, WaitFor(Moment())]
    with client.chat.completions.create(
        model=MODEL, messages=says("without end"), stream=True
    ) as stream:
        next(stream)
        request = wall.requests[-1]
        assert not request.left.is_set()
    request.left.block(5)


def test_parallel_tool_calls_whole(client: OpenAI, wall: Wall) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER, CLOCK], tool_choice="auto"
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls or []
    functions = [call.function for call in calls if call.type == "function"]
    assert [(f.name, json.loads(f.arguments)) for f in functions] == [
        ("get_weather", {"city": "Paris"}),
        ("get_time", {"zone": "UTC"}),
    ]
    assert sent(wall)["tools"] == [WEATHER, CLOCK]
    assert sent(wall)["tool_choice"] == "auto"


def test_one_tool_call_at_a_time(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER, CLOCK], parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls or []) == 1


def test_parallel_tool_calls_streamed(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, tools=[WEATHER, CLOCK]
    ) as stream:
        answer = stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_0", "get_weather", '{"city": "Paris"}'),
        ("call_1", "get_time", '{"zone": "UTC"}'),
    ]


def test_what_a_tool_found_goes_back(client: OpenAI, wall: Wall) -> None:
    asked = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER])
    (call,) = asked.choices[0].message.tool_calls or []
    messages: list[Any] = [
        *HELLO,
        asked.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == chat_provider.TEXT
    assert sent(wall)["messages"] == messages


def test_structured_output_whole(client: OpenAI, wall: Wall) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris", inhabitants=7)
    assert sent(wall)["response_format"]["json_schema"]["strict"] is True


def test_structured_output_streamed(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, response_format=City
    ) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.parsed == City(name="Paris", inhabitants=7)


@pytest.mark.parametrize("streamed", [False, True])
def test_log_probabilities(client: OpenAI, streamed: bool) -> None:
    if streamed:
        with client.chat.completions.stream(
            model=MODEL, messages=HELLO, logprobs=True, top_logprobs=1
        ) as stream:
            choice: Any = stream.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(
            model=MODEL, messages=HELLO, logprobs=True, top_logprobs=1
        ).choices[0]
    token = choice.logprobs.content[0]
    assert (token.token, token.logprob, token.top_logprobs[0].token) == ("Hello", -0.25, "Hello")


@pytest.mark.parametrize("streamed", [False, True])
def test_several_choices(client: OpenAI, streamed: bool) -> None:
    if streamed:
        with client.chat.completions.stream(model=MODEL, messages=HELLO, n=3) as stream:
            choices: list[Any] = list(stream.get_final_completion().choices)
    else:
        choices = list(client.chat.completions.create(model=MODEL, messages=HELLO, n=3).choices)
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert {choice.message.content for choice in choices} == {chat_provider.TEXT}


def test_reasoning_comes_through(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="o3-scripted", messages=HELLO, reasoning_effort="low"
    )
    extra = answer.choices[0].message.model_extra or {}
    assert extra["reasoning_content"] == chat_provider.REASONING
    with client.chat.completions.create(
        model="o3-scripted", messages=HELLO, reasoning_effort="low", stream=True
    ) as stream:
        deltas = [(chunk.choices[0].delta.model_extra or {}) for chunk in stream]
    text = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert text == chat_provider.REASONING


def test_vision_parts_are_sent_as_they_are(client: OpenAI, wall: Wall) -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 10_000
    messages: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
            ],
        }
    ]
    client.chat.completions.create(model=MODEL, messages=messages)
    assert sent(wall)["messages"] == messages


def test_unknown_fields_pass_both_ways(client: OpenAI, wall: Wall) -> None:
    extra = {"top_k": 40, "x_vendor_option": {"deep": [1, {"er": None}]}, "min_p": 0.050000}
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=extra)
    assert {name: sent(wall)[name] for name in extra} == extra
    assert answer.model_extra is not None
    assert answer.model_extra["x_vendor"] == chat_provider.UNKNOWN["x_vendor"]


def test_unknown_numbers_keep_every_digit(gateway: Gateway, wall: Wall) -> None:
    body = (
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}],'
        b' "x": 12345678901234567890.123456789000, "top_k" : 1e2}'
    )
    gateway.chat(body)
    assert b'"x":12345678901234567890.123456789000' in wall.requests[-1].body
    assert b'"top_k":1e2' in wall.requests[-1].body


def test_sampling_parameters_are_sent_only_where_the_caller_set_them(
    client: OpenAI, wall: Wall
) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0.25, max_tokens=9)
    assert sent(wall).keys() == {"model", "messages", "temperature", "max_tokens"}
    assert sent(wall)["temperature"] == 0.25


def test_models_are_listed(client: OpenAI) -> None:
    found = client.models.list().data
    assert [(m.id, m.object, m.owned_by) for m in found] == [
        ("gpt-4o", "model", "Capi"),
        ("o3-scripted", "model", "Capi"),
        ("command-r-plus-08-2024", "model", "HuggingSpace"),
        ("flux", "model", "HuggingSpace"),
    ]
    assert all(model.created > 0 for model in found)


def test_one_model_is_retrieved(client: OpenAI) -> None:
    model = client.models.retrieve("gpt-4o")
    assert (model.id, model.owned_by) == ("gpt-4o", "Capi")
    assert client.models.retrieve("Capi/gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-5o")
    assert raised.value.code == "model_not_found"


# Errors


@pytest.mark.parametrize("key", ["rvf_" + "x" * 71, "sk-something", "ключ".encode().hex()])
def test_a_wrong_key_is_an_authentication_error(client: OpenAI, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        client.with_options(api_key=key).chat.completions.create(model=MODEL, messages=HELLO)
    assert raised.value.code == "invalid_api_key"
    assert raised.value.type == "authentication_error"
    assert key not in str(raised.value)


def test_a_revoked_key_is_a_permission_error_of_a_running_server_too(
    client: OpenAI, gateway: Gateway
) -> None:
    # Of a type without limits: it is used until it works no more.
    made = json.loads(gateway.command("keys", "create", "--type", "admin", "--json").stdout)
    other = client.with_options(api_key=made["key"])
    other.chat.completions.create(model=MODEL, messages=HELLO)
    done = gateway.command("keys", "revoke", made["id"], "--reason", "a refund")
    assert done.returncode == 0, done.stderr
    error: openai.APIStatusError | None = None
    for _ in range(2000):  # the server looks twice a second; each call takes milliseconds
        try:
            other.chat.completions.create(model=MODEL, messages=HELLO)
        except openai.PermissionDeniedError as denied:
            error = denied
            break
    assert error is not None
    assert error.code == "revoked_api_key"
    assert error.type == "authentication_error"


@pytest.mark.parametrize(
    ("model", "extra", "code", "param"),
    [
        ("gpt-5o", {}, "model_not_found", "model"),
        ("Capi/command-r-plus-08-2024", {}, "model_not_found", "model"),
        ("command-r-plus-08-2024", {"provider": "Capi"}, "model_not_found", "model"),
        ("gpt-4o", {"provider": "Nobody"}, "provider_not_found", "provider"),
    ],
)
def test_what_is_not_there_is_a_not_found_error(
    client: OpenAI, model: str, extra: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model=model, messages=HELLO, extra_body=extra)
    assert (raised.value.code, raised.value.param) == (code, param)
    assert raised.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("temperature", 2.5, "temperature"),
        ("top_p", -1, "top_p"),
        ("max_tokens", 0, "max_tokens"),
        ("messages", [], "messages"),
        ("messages", [*HELLO, {"role": "wizard", "content": ""}], "messages[1].role"),
        ("messages", [{"role": "user"}], "messages[0].content"),
        ("tools", [{"type": "function", "function": {}}], "tools[0].function.name"),
        ("stream_options", {"include_usage": "yes"}, "stream_options.include_usage"),
    ],
)
def test_a_bad_field_is_a_bad_request_error_that_names_it(
    client: OpenAI, wall: Wall, field: str, value: Any, param: str
) -> None:
    before = len(wall.requests)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={field: value})
    assert raised.value.param == param
    assert raised.value.code == "invalid_request"
    assert len(wall.requests) == before


@pytest.mark.parametrize(
    ("extra", "param"),
    [({"web_search": True}, "web_search"), ({"transforms": ["middle-out"]}, "transforms")],
)
def test_what_is_not_served_yet_is_refused_by_name(
    client: OpenAI, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=extra)
    assert (raised.value.code, raised.value.param) == ("not_supported", param)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_provider_calls_wrong_is_told_in_its_words(
    client: OpenAI, provider: ChatProvider, streamed: bool
) -> None:
    provider.answers["too creative"] = chat_provider.failure(
        422, "That cannot be drawn.", code="no_drawing", param="messages[0].content"
    )
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.chat.completions.create(model=MODEL, messages=says("too creative"), stream=streamed)
    assert raised.value.code == "no_drawing"
    assert raised.value.param == "messages[0].content"
    assert "That cannot be drawn." in raised.value.message


@pytest.mark.parametrize("streamed", [False, True])
def test_when_nobody_answers_it_is_a_503_with_its_history(
    client: OpenAI, provider: ChatProvider, streamed: bool
) -> None:
    provider.answers["overloaded"] = chat_provider.failure(
        529, "Too much.", headers=[("Retry-After", "300")]
    )
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(
            model=MODEL,
            messages=says("overloaded"),
            stream=streamed,
            extra_body={"provider": {"allow_fallbacks": False}},
        )
    error = raised.value
    assert error.status_code == 503
    assert (error.type, error.code) == ("service_unavailable_error", "all_models_failed")
    assert int(error.response.headers["retry-after"]) >= 1
    assert isinstance(error.body, dict)
    details = error.body["details"]
    assert details["total_attempts"] == len(details["error_history"]) >= 1
    assert details["tried_models"][0] == "gpt-4o (Capi)"
    first = details["error_history"][0]
    assert (first["model"], first["provider"], first["status"]) == ("gpt-4o", "Capi", 529)
    assert isinstance(first["latency_ms"], int)
    assert first["started_at"].endswith("Z")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_web_page_is_no_answer(client: OpenAI, provider: ChatProvider, streamed: bool) -> None:
    provider.answers["lost"] = html()
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model=MODEL, messages=says("lost"), stream=streamed)
    assert raised.value.status_code == 503
    assert "<" not in raised.value.message


def test_an_error_event_before_any_content_is_an_http_error(
    client: OpenAI, provider: ChatProvider
) -> None:
    role = json.dumps(chat_provider.chunk({"role": "assistant", "content": ""}))
    provider.answers["fail first"] = sse(role, '{"error": {"message": "Out of memory."}}')
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model=MODEL, messages=says("fail first"), stream=True)
    assert raised.value.status_code == 503


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(['{"error": {"message": "Out of memory."}}', "[DONE]"], id="error event"),
        pytest.param(["[DONE]"], id="done too early"),
        pytest.param(["{garbled"], id="garbled"),
        pytest.param([], id="nothing"),
    ],
)
def test_a_stream_that_breaks_raises_an_api_error_behind_what_came(
    client: OpenAI, provider: ChatProvider, ending: list[str]
) -> None:
    words = [json.dumps(chat_provider.chunk({"content": word})) for word in ("Once ", "upon ")]
    provider.answers["break off"] = sse(*words, *ending)
    heard: list[str] = []
    with (
        client.chat.completions.create(
            model=MODEL, messages=says("break off"), stream=True
        ) as stream,
        pytest.raises(openai.APIError) as raised,
    ):
        listen(stream, heard)
    assert heard == ["Once ", "upon "]
    assert raised.value.code == "all_models_failed"


def test_a_stream_cut_by_the_network_raises_an_api_error_behind_what_came(
    client: OpenAI, provider: ChatProvider
) -> None:
    event = json.dumps(chat_provider.chunk({"content": "Once "}))
    provider.answers["cut"] = [
        Send(head(chunked=True) + piece(f"data: {event}\n\n".encode())),
        Close(),
    ]
    heard: list[str] = []
    with (
        client.chat.completions.create(model=MODEL, messages=says("cut"), stream=True) as stream,
        pytest.raises(openai.APIError) as raised,
    ):
        listen(stream, heard)
    assert heard == ["Once "]
    assert raised.value.code == "all_models_failed"


def test_an_unknown_route_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.fine_tuning.jobs.list()
    assert raised.value.code == "not_found"


def test_an_endpoint_not_served_yet_says_so(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model=MODEL, input="Hello")
    assert raised.value.code == "not_supported"


# The asynchronous client


async def test_the_asynchronous_client_whole_and_streamed(gateway: Gateway) -> None:
    async with AsyncOpenAI(
        base_url=gateway.base_url, api_key=gateway.key, max_retries=0, timeout=20
    ) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO)
        assert answer.choices[0].message.content == chat_provider.TEXT
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        async with stream:
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == chat_provider.TEXT
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="gpt-5o", messages=HELLO)
