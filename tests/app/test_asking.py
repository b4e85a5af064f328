"""The way from verification to models, and to addresses that models have named."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

import pytest

from manyways.app.asking import LARGEST, REDIRECTS, ProviderAsker
from manyways.errors import AttemptFailed, Refusal
from manyways.types import Model, Provider
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.names import system_addresses
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.public import is_public, public
from manyways.upstream.transport import Address, Limits, untold
from manyways.verification.asking import Answer
from tests.support.virtual_time import virtual_time
from tests.support.wall import Request, Script, Wall, whole

MODEL = Model(id="m", provider="Test", upstream_id="m", created=1)
OUTSIDE = "93.184.216.34"
"""A public address."""


class Names:
    """What names mean, one lookup after the other; the last meaning stays. Others are looked up
    by the system."""

    def __init__(self, **meanings: list[str]) -> None:
        self.meanings = {name.replace("_", "."): list(them) for name, them in meanings.items()}
        self.lookups = 0

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.lookups += 1
        found = self.meanings.get(host)
        if found is None:
            return await system_addresses(host, port)
        now = found.pop(0) if len(found) > 1 else found[0]
        return [Address(socket.AF_INET, one, port) for one in now.split()]

    async def close(self) -> None:
        pass


class Reply:
    """Implements `transport.Response`."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: Sequence[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._chunks = list(chunks)

    async def chunk(self) -> bytes:
        if self._chunks and self._chunks[0] == b"...":
            await asyncio.sleep(1e6)
        return self._chunks.pop(0) if self._chunks else b""

    async def body(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in self._all()])

    async def _all(self) -> AsyncIterator[bytes]:
        while chunk := await self.chunk():
            yield chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass


class Carrier:
    """Implements `transport.Transport`, by script: what is answered at an address."""

    def __init__(self, script: Callable[[str], Reply]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.sent: list[tuple[str, str]] = []

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        on_resend: Callable[[], object] = untold,
    ) -> Reply:
        self.asked.append(url)
        self.sent += headers
        return self.script(url)

    async def aclose(self) -> None:
        pass


def ok(*chunks: bytes) -> Reply:
    return Reply(200, {"content-type": "image/png; x=y"}, chunks)


def to(url: str) -> Reply:
    return Reply(302, {"location": url}, ())


def asker(
    carrier: Any,
    outside: Any = None,
    base: str = "http://up.example/v1",
    keys: tuple[str, ...] = ("secret-key",),
    yielding: Callable[[str], Awaitable[None]] | None = None,
) -> ProviderAsker:
    provider = Provider(name="Test", protocol="openai", base_url=base, api_keys=keys)
    providers = {"Test": OpenAIProvider(provider, carrier)}
    return ProviderAsker(providers, {"Test": provider}, outside or carrier, yielding=yielding)


# Addresses that models have named

LEADING_INSIDE = [
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/x.png",
    "http://10.1.2.3/",
    "http://192.168.0.1/",
    "http://172.16.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://0.0.0.0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:a00:1]/",
    "http://[::7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fd00::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://localhost/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://127.0.0.1./",
    "http://0x7f000001/",
    "http://public.example@127.0.0.1/",
    "http://up.example@127.0.0.1/",
    "http://up.example:80@127.0.0.1/",
    "http://up.example#@127.0.0.1/../",
    "http://inside.example/",
    "http://both.example/",
    "https://inside.example:8443/",
    "file:///etc/passwd",
    "ftp://public.example/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "data:text/plain,hello",
    "//127.0.0.1/",
    "/etc/passwd",
    "http://",
    "http://[::1",
    "http://127.0.0.1:notaport/",
    "http://127.0.0.1:99999/",
    "",
]


@pytest.mark.parametrize("url", LEADING_INSIDE)
async def test_an_address_that_leads_inside_is_refused(url: str) -> None:
    names = Names(inside_example=["10.0.0.1"], both_example=[f"{OUTSIDE} 127.0.0.1"])
    names.meanings["up.example"] = ["10.0.0.1"]
    outside = AiohttpTransport(resolver=public(names))
    carrier = Carrier(lambda _: ok(b"secret"))
    try:
        with pytest.raises(Refusal, match=r"private network|no address on the web"):
            # The provider's own name, with "#@", is another port's.
            await asker(carrier, outside, base="http://up.example:444/v1").fetch(
                MODEL, url, limit=5.0
            )
    finally:
        await outside.aclose()
    assert carrier.asked == []


@pytest.mark.parametrize("inside", ["http://127.0.0.1/", "http://[::1]/", "file:///etc/passwd"])
async def test_who_is_led_on_is_not_led_inside(inside: str) -> None:
    outside = Carrier(lambda url: to(inside) if "first" in url else ok(b"secret"))
    with pytest.raises(Refusal):
        await asker(Carrier(lambda _: ok()), outside).fetch(
            MODEL, f"http://{OUTSIDE}/first", limit=5.0
        )
    assert outside.asked == [f"http://{OUTSIDE}/first"]


async def test_a_name_that_means_something_else_a_moment_later_gains_nothing() -> None:
    """It is looked up once for each connection, and what was looked at is what is asked."""
    async with Wall(whole(b"secret")) as wall:
        port = int(wall.url.rpartition(":")[2])
        names = Names(rebound_example=[OUTSIDE, "127.0.0.1"])
        lookup = public(names)
        (first,) = await lookup("rebound.example", port)
        assert first.host == OUTSIDE
        outside = AiohttpTransport(resolver=lookup)
        try:
            with pytest.raises(Refusal, match="private network"):
                await asker(Carrier(lambda _: ok()), outside).fetch(
                    MODEL, f"http://rebound.example:{port}/", limit=5.0
                )
        finally:
            await outside.aclose()
        assert names.lookups == 2
        assert wall.requests == []


async def test_a_name_that_leads_nowhere_is_a_failure_and_no_offence() -> None:
    outside = AiohttpTransport(resolver=public(Names()))
    try:
        with pytest.raises(AttemptFailed):
            await asker(Carrier(lambda _: ok()), outside).fetch(
                MODEL, "http://nowhere.invalid/", limit=5.0
            )
    finally:
        await outside.aclose()


async def test_the_provider_itself_may_be_inside_but_nobody_beside_it() -> None:
    async with Wall(whole(b"picture", headers=[("Content-Type", "image/png; a=b")])) as wall:
        port = int(wall.url.rpartition(":")[2])
        carrier, outside = AiohttpTransport(), AiohttpTransport(resolver=public())
        one = asker(carrier, outside, base=f"{wall.url}/v1")
        try:
            url = f"http://user:password@127.0.0.1:{port}/files/1.png#x"
            found = await one.fetch(MODEL, url, limit=5.0)
            assert found == Answer(body=b"picture", content_type="image/png")
            with pytest.raises(Refusal):
                await one.fetch(MODEL, f"http://127.0.0.1:{port + 1}/files/1.png", limit=5.0)
            with pytest.raises(Refusal):
                await one.fetch(MODEL, f"http://localhost:{port}/files/1.png", limit=5.0)
        finally:
            await carrier.aclose()
            await outside.aclose()
        (request,) = wall.requests
        assert request.path == "/files/1.png"
        assert set(request.headers) == {"host", "accept-encoding"}


async def test_nothing_is_sent_that_tells_who_asks() -> None:
    outside = Carrier(lambda url: to("/there") if "first" in url else ok(b"x"))
    one = asker(Carrier(lambda _: ok()), outside)
    assert (await one.fetch(MODEL, f"http://{OUTSIDE}/first", limit=5.0)).body == b"x"
    assert outside.asked == [f"http://{OUTSIDE}/first", f"http://{OUTSIDE}/there"]
    assert outside.sent == []


async def test_who_is_led_in_circles_gives_up() -> None:
    outside = Carrier(to)
    with pytest.raises(AttemptFailed, match="from one to another"):
        await asker(Carrier(lambda _: ok()), outside).fetch(MODEL, f"http://{OUTSIDE}/", limit=5.0)
    assert len(outside.asked) == REDIRECTS + 1


async def test_an_address_with_nothing_there_says_so() -> None:
    outside = Carrier(lambda _: Reply(404, {}, ()))
    with pytest.raises(AttemptFailed, match="HTTP 404") as caught:
        await asker(outside).fetch(MODEL, f"http://{OUTSIDE}/", limit=5.0)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_the_public_internet_is_public(address: str) -> None:
    assert is_public(address) is True


# Models


async def test_credentials_are_used_in_turn_and_one_that_is_not_accepted_is_left_out() -> None:
    async with Wall() as wall:
        seen: list[str] = []

        def answer(request: Request) -> Script:
            key = request.headers["authorization"].removeprefix("Bearer ")
            seen.append(key)
            return whole(b"{}", 401 if key == "bad" else 200)

        wall.answer = answer
        carrier = AiohttpTransport()
        one = asker(carrier, base=wall.url, keys=("good", "bad", "fine"))
        try:
            for _ in range(3):
                await one.whole(MODEL, "/embeddings", b"{}", limit=5.0, largest=LARGEST)
        finally:
            await carrier.aclose()
    assert set(seen) == {"good", "bad", "fine"}
    assert seen.count("bad") <= 2
    assert len(seen) - seen.count("bad") == 3


async def test_where_no_credential_is_accepted_the_last_failure_counts() -> None:
    carrier = Carrier(lambda _: Reply(401, {}, ()))
    with pytest.raises(AttemptFailed) as caught:
        await asker(carrier, keys=("a", "b")).whole(MODEL, "/x", b"", limit=5.0, largest=LARGEST)
    assert (caught.value.code, len(carrier.asked)) == ("credentials", 2)


async def streamed(one: ProviderAsker, limit: float) -> list[bytes]:
    chunks = one.stream(MODEL, "/chat/completions", b"{}", limit=limit, largest=LARGEST)
    return [chunk async for chunk in chunks]


def test_waiting_for_callers_is_not_held_against_a_model() -> None:
    async def patience(_: str) -> None:
        await asyncio.sleep(60.0)

    async def story() -> None:
        one = asker(Carrier(lambda _: ok(b"a", b"b")), yielding=patience)
        found = await one.whole(MODEL, "/chat/completions", b"{}", limit=1.0, largest=LARGEST)
        assert found.body == b"ab"
        assert await streamed(one, limit=1.0) == [b"a", b"b"]

    with virtual_time() as run:
        run(story())


def test_an_answer_that_does_not_come_to_its_end_is_given_up() -> None:
    async def story() -> float:
        one = asker(Carrier(lambda _: ok(b"a", b"...")))
        with pytest.raises(AttemptFailed, match="within 30 s"):
            await one.whole(MODEL, "/chat/completions", b"{}", limit=30.0, largest=LARGEST)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(AttemptFailed, match="within 30 s"):
            await streamed(one, limit=30.0)
        return loop.time() - began

    with virtual_time() as run:
        assert 30.0 <= run(story()) <= 30.2


def test_the_time_that_a_listener_takes_ends_nothing_of_its_own() -> None:
    """The limit is on the model. Whoever stops listening is not cancelled for it later."""

    async def story() -> None:
        chunks = asker(Carrier(lambda _: ok(b"a", b"b"))).stream(
            MODEL, "/chat/completions", b"{}", limit=30.0, largest=LARGEST
        )
        assert await anext(chunks) == b"a"
        await asyncio.sleep(100.0)

    with virtual_time() as run:
        run(story())


async def test_a_stream_without_an_end_is_given_up() -> None:
    carrier = Carrier(lambda _: ok(*[b"x" * 2**20] * 40))
    with pytest.raises(AttemptFailed, match="does not end"):
        await streamed(asker(carrier), limit=30.0)
