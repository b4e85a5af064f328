"""What the embedded model answers: alike whole and streamed, and one answer to a request."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from manyways.errors import Refusal
from manyways.types import Provider
from manyways.upstream.local import LocalModel, LocalProvider
from manyways.upstream.native import NativeTransport
from manyways.upstream.transport import Limits

LIMITS = Limits(connect=60, headers=60, idle=60)
MOST = 2**20

Messages = list[dict[str, str]]


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[LocalProvider]:
    """The real model, and the way to it."""
    transport = NativeTransport()
    model = LocalModel()
    model.start()
    try:
        yield LocalProvider(Provider(name="local", protocol="local"), transport, model)
    finally:
        await model.stop()
        await transport.aclose()


def body(messages: Messages, **more: Any) -> bytes:
    return json.dumps({"messages": messages, "max_tokens": 8, **more}).encode()


async def whole(provider: LocalProvider, messages: Messages) -> dict[str, Any]:
    async with await provider.chat(body(messages), LIMITS, stream=False) as response:
        return dict(json.loads(await response.body(MOST)))


async def streamed(provider: LocalProvider, messages: Messages) -> str:
    """The text of what it streams."""
    asked = body(messages, stream=True)
    async with await provider.chat(asked, LIMITS, stream=True) as response:
        lines = (await response.body(MOST)).decode().splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def templated(provider: LocalProvider, messages: Messages) -> str:
    """What the messages are for the model."""
    path = "/../apply-template"
    async with await provider.post(path, body(messages), "application/json", LIMITS) as response:
        return str(json.loads(await response.body(MOST))["prompt"])


async def test_a_key_that_nobody_has_configured_is_not_named() -> None:
    local = Provider(name="local", protocol="local")
    assert LocalProvider(local, NativeTransport(), LocalModel()).label(0) == "no key"


@pytest.mark.model
async def test_behind_an_assistants_message_comes_only_what_follows_it_whole_and_streamed() -> None:
    begun = [
        {"role": "user", "content": "Tell me about the Nile"},
        {"role": "assistant", "content": "The Nile is"},
    ]
    async with embedded() as provider:
        told = await whole(provider, begun)
        pieces = await streamed(provider, begun)
        closed = await whole(provider, [*begun, {"role": "user", "content": "Go on."}])

    said = told["choices"][0]["message"]["content"]
    assert said == pieces
    assert said.startswith(" "), "it goes on in the midst of the sentence"
    assert "The Nile is" not in said
    assert closed["usage"]["prompt_tokens"] > told["usage"]["prompt_tokens"]


@pytest.mark.model
async def test_its_prompt_is_what_the_models_own_template_makes_of_the_messages() -> None:
    """The beginning and ends that the model was trained with, written out."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    own = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )
    async with embedded() as provider:
        made = await templated(provider, messages)
        begun = await templated(provider, messages[:2])
        named = await templated(provider, [{"role": "system", "content": "Be brief."}])

    assert made == own
    assert begun == own[: own.index("Hello.") + len("Hello.")]
    assert named == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.model
@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_to_one_request_are_refused_in_plain_words(*, stream: bool) -> None:
    hello = [{"role": "user", "content": "Say hello."}]
    async with embedded() as provider:
        for several in (2, 3, 128):
            with pytest.raises(Refusal) as caught:
                await provider.chat(body(hello, n=several), LIMITS, stream=stream)
            assert (caught.value.code, caught.value.param) == ("not_supported", "n")
            assert "leave n out" in caught.value.message
        for single in ({}, {"n": 1}, {"n": None}):
            asked = body(hello, stream=stream, **single)
            async with await provider.chat(asked, LIMITS, stream=stream) as response:
                assert response.status == 200
                await response.body(MOST)
