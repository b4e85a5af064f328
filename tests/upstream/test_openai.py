"""A provider is asked with the credential that was chosen, and never tells one."""

import gzip
import json
import socket
import time
from collections.abc import AsyncIterator

import pytest

from manyways.errors import AttemptFailed, Garbled, Refusal
from manyways.types import Provider
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits, Transport
from tests.support.wall import Close, Reset, Script, Send, Wall, whole

LIMITS = Limits(connect=5, headers=5, idle=5)
FIRST, SECOND = "sk-first-key-0001", "sk-second-key-0002"
BODY = b'{"model": "m", "messages": []}'
REFUSED = whole(json.dumps({"error": {"message": f"Incorrect API key: {FIRST}"}}).encode(), 401)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = AiohttpTransport()
    yield transport
    await transport.aclose()


@pytest.fixture
async def wall() -> AsyncIterator[Wall]:
    async with Wall(whole(b"{}")) as wall:
        yield wall


def provider(
    wall: Wall, transport: Transport, *keys: str, headers: dict[str, str] | None = None
) -> OpenAIProvider:
    row = Provider(
        name="p", protocol="openai", base_url=wall.url, api_keys=keys, headers=headers or {}
    )
    return OpenAIProvider(row, transport)


async def asked(provider: OpenAIProvider, *, stream: bool = False, credential: int = 0) -> None:
    async with await provider.chat(BODY, LIMITS, stream=stream, credential=credential) as answer:
        await answer.body(1000)


async def test_the_credential_asked_with_is_the_one_that_was_chosen(
    wall: Wall, transport: Transport
) -> None:
    two = provider(wall, transport, FIRST, SECOND)
    assert two.credentials == 2
    await asked(two, credential=1)
    await asked(two)
    await asked(two)
    sent = [request.headers["authorization"] for request in wall.requests]
    assert sent == [f"Bearer {SECOND}", f"Bearer {FIRST}", f"Bearer {FIRST}"]


async def test_what_is_sent_again_is_counted_for_whom_it_was(
    wall: Wall, transport: Transport
) -> None:
    one, other = provider(wall, transport, FIRST), provider(wall, transport, FIRST)
    await asked(one)
    wall.then((Close(),))
    await asked(one)
    assert len(wall.requests) == 3
    assert (one.resends, other.resends) == (1, 0)


async def test_without_keys_there_is_one_credential_that_sends_none(
    wall: Wall, transport: Transport
) -> None:
    open_to_all = provider(wall, transport)
    assert open_to_all.credentials == 1
    await asked(open_to_all, credential=0)
    assert "authorization" not in wall.requests[0].headers


@pytest.mark.parametrize(
    ("stream", "accepted"), [(False, "application/json"), (True, "text/event-stream")]
)
async def test_a_request_says_what_it_is_and_what_it_wants(
    wall: Wall, transport: Transport, *, stream: bool, accepted: str
) -> None:
    with_headers = provider(wall, transport, FIRST, headers={"X-Title": "ours"})
    await asked(with_headers, stream=stream)
    (request,) = wall.requests
    assert (request.method, request.path, request.body) == ("POST", "/chat/completions", BODY)
    assert request.headers["accept"] == accepted
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-title"] == "ours"


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ((), ["no key"]),
        ((FIRST, SECOND), ["key 1 (…0001)", "key 2 (…0002)"]),
        (("sk-12345678",), ["key 1"]),  # four of eleven letters would be half of it
        (("x",), ["key 1"]),
    ],
)
async def test_a_label_names_a_key_without_telling_it(
    wall: Wall, transport: Transport, keys: tuple[str, ...], labels: list[str]
) -> None:
    named = provider(wall, transport, *keys)
    assert [named.label(number) for number in range(named.credentials)] == labels


async def test_models_are_listed_with_the_first_credential_that_is_accepted(
    wall: Wall, transport: Transport
) -> None:
    wall.then(REFUSED, whole(b'{"data": []}'))
    assert await provider(wall, transport, FIRST, SECOND).list_models(LIMITS) == b'{"data": []}'
    assert [request.headers["authorization"] for request in wall.requests] == [
        f"Bearer {FIRST}",
        f"Bearer {SECOND}",
    ]


async def test_models_are_not_listed_where_no_credential_is_accepted(
    wall: Wall, transport: Transport
) -> None:
    wall.answer = REFUSED
    with pytest.raises(AttemptFailed) as caught:
        await provider(wall, transport, FIRST, SECOND).list_models(LIMITS)
    assert caught.value.code == "credentials"
    assert len(wall.requests) == 2


async def test_another_key_is_not_asked_with_when_the_key_is_not_what_is_wrong(
    wall: Wall, transport: Transport
) -> None:
    wall.answer = whole(b"", 500)
    with pytest.raises(AttemptFailed) as caught:
        await provider(wall, transport, FIRST, SECOND).list_models(LIMITS)
    assert caught.value.code == "provider_error"
    assert len(wall.requests) == 1


async def test_a_key_that_the_provider_repeats_does_not_reach_the_caller(
    wall: Wall, transport: Transport
) -> None:
    words = {"error": {"message": f"with {SECOND} you may not", "code": "no"}}
    wall.answer = whole(json.dumps(words).encode(), 400)
    two = provider(wall, transport, FIRST, SECOND)
    with pytest.raises(Refusal, match=r"^with \*\*\* you may not$"):
        await asked(two, credential=0)


async def test_the_latest_exchange_that_failed_is_remembered_in_words(
    wall: Wall, transport: Transport
) -> None:
    one = provider(wall, transport, FIRST)
    await asked(one)
    assert one.failed is None
    before = time.time()
    wall.answer = (Send(b"HTTP/1.1 200"), Reset())
    with pytest.raises(AttemptFailed):
        await asked(one)
    assert one.failed is not None
    assert one.failed.code == "reset"
    assert one.failed.words
    assert before <= one.failed.at <= time.time()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    gone = OpenAIProvider(Provider(name="p", protocol="openai", base_url=nobody), transport)
    with pytest.raises(AttemptFailed):
        await gone.list_models(LIMITS)
    assert gone.failed is not None
    assert gone.failed.code == "connect"
    assert "refused" in gone.failed.words.lower()


def test_what_is_remembered_of_a_failure_is_one_line_without_secrets(transport: Transport) -> None:
    row = Provider(
        name="p",
        protocol="openai",
        base_url="https://someone:passing@p.test/v1?code=hidden",
        api_keys=(FIRST,),
        headers={"X-Secret": f"{FIRST}-and-more", "X-Short": "it"},
    )
    one = OpenAIProvider(row, transport)
    said = f"{FIRST}-and-more, {FIRST},\n someone:passing, code=hidden, it \x1b[31m"
    one.failing("garbled", Garbled(said + "x" * 1000))
    assert one.failed is not None
    assert one.failed.words.startswith("***, ***, ***:***, ***, it [31mxxx")
    assert len(one.failed.words) <= 301


def page(number: int, *, more: bool) -> Script:
    listed = {"data": [{"id": f"m{number}"}], "has_more": more, "last_id": f"m{number}"}
    return whole(json.dumps(listed).encode())


async def test_a_list_in_pages_is_asked_for_to_its_end_with_one_credential(
    wall: Wall, transport: Transport
) -> None:
    wall.then(REFUSED, page(1, more=True), page(2, more=True), page(3, more=False))
    found = await provider(wall, transport, FIRST, SECOND).list_models(LIMITS)
    assert [one["id"] for one in json.loads(found)["data"]] == ["m1", "m2", "m3"]
    asked = [(request.path, request.headers["authorization"]) for request in wall.requests[1:]]
    assert asked == [
        ("/models", f"Bearer {SECOND}"),
        ("/models?after_id=m1", f"Bearer {SECOND}"),
        ("/models?after_id=m2", f"Bearer {SECOND}"),
    ]


async def test_a_list_comes_compressed_where_the_provider_can(
    wall: Wall, transport: Transport
) -> None:
    listed = json.dumps({"data": [{"id": f"m{n}"} for n in range(9000)]}).encode()
    wall.then(whole(gzip.compress(listed), headers=[("Content-Encoding", "gzip")]))
    assert await provider(wall, transport, FIRST).list_models(LIMITS) == listed
    (request,) = wall.requests
    assert request.headers["accept-encoding"] == "gzip, br, zstd"
    await asked(provider(wall, transport, FIRST))
    assert wall.requests[1].headers["accept-encoding"] == "identity"


async def test_a_list_that_unfolds_without_end_is_given_up(
    wall: Wall, transport: Transport
) -> None:
    bomb = gzip.compress(bytes(40 * 2**20), 1)
    wall.answer = whole(bomb, headers=[("Content-Encoding", "gzip")])
    with pytest.raises(AttemptFailed):
        await provider(wall, transport).list_models(LIMITS)


async def test_half_a_list_is_none(wall: Wall, transport: Transport) -> None:
    wall.then(page(1, more=True), whole(b"", 500))
    with pytest.raises(AttemptFailed) as caught:
        await provider(wall, transport).list_models(LIMITS)
    assert caught.value.code == "provider_error"


async def test_a_list_beside_the_base_url_gets_the_key_of_its_host(
    wall: Wall, transport: Transport
) -> None:
    row = Provider(
        name="p",
        protocol="openai",
        base_url=wall.url + "/openai",
        models_url=wall.url + "/models",
        api_keys=(FIRST,),
    )
    await OpenAIProvider(row, transport).list_models(LIMITS)
    (request,) = wall.requests
    assert (request.path, request.headers["authorization"]) == ("/models", f"Bearer {FIRST}")


async def test_a_list_elsewhere_gets_neither_keys_nor_headers(
    wall: Wall, transport: Transport
) -> None:
    async with Wall(REFUSED) as base:
        row = Provider(
            name="p",
            protocol="openai",
            base_url=base.url,
            models_url=wall.url + "/list",
            api_keys=(FIRST, SECOND),
            headers={"X-Api-Key": "secret"},
        )
        await OpenAIProvider(row, transport).list_models(LIMITS)
        assert base.requests == []
    (request,) = wall.requests
    assert request.path == "/list"
    assert "authorization" not in request.headers
    assert "x-api-key" not in request.headers


async def test_whether_an_answer_is_drained_is_the_providers_to_say(
    wall: Wall, transport: Transport
) -> None:
    row = Provider(name="p", protocol="openai", base_url=wall.url, drain=True)
    assert OpenAIProvider(row, transport).drain
    assert not provider(wall, transport).drain
