"""The way from verification to models: the same providers and sockets that requests go by."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import urljoin, urlsplit

from manyways.errors import AttemptFailed, Refusal, TransportError
from manyways.types import Model, Provider
from manyways.upstream import failures
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits, Response, Transport
from manyways.verification.asking import JSON, Answer
from manyways.watch import TimeLimit

LARGEST: Final = 32 * 1024 * 1024
"""Bytes of an answer: a picture of 20 MiB as text, and some more."""
CONNECT: Final = 10.0
"""Seconds until a connection stands."""
REDIRECTS: Final = 3
_MOVED: Final = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")
Yielding = Callable[[str], Awaitable[None]]
"""Waits until verification may use a provider: who serves callers goes first."""


class ProviderAsker:
    """Asks models at their providers, their credentials in turn: one that is not accepted is
    left out, and only the last one's failure counts."""

    def __init__(
        self,
        providers: Mapping[str, OpenAIProvider],
        settings: Mapping[str, Provider],
        carrier: Transport,
        *,
        yielding: Yielding | None = None,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._carrier = carrier
        self._yielding = yielding
        self._turns: dict[str, int] = {}

    async def whole(
        self, model: Model, path: str, body: bytes, *, content_type: str = JSON, limit: float
    ) -> Answer:
        """See `Asker`."""
        limits = _limits(limit)

        async def ask(provider: OpenAIProvider, credential: int) -> Answer:
            if path == "/chat/completions":
                answered = provider.chat(body, limits, stream=False, credential=credential)
            else:
                answered = provider.post(path, body, content_type, limits, credential=credential)
            return await _read(await answered)

        return await self._in_time(limit, self._accepted(model, ask))

    async def stream(
        self,
        model: Model,
        path: str,  # noqa: ARG002
        body: bytes,
        *,
        limit: float,
    ) -> AsyncIterator[bytes]:
        """See `Asker`. Chats are all that streams."""
        limits = _limits(limit)

        async def ask(provider: OpenAIProvider, credential: int) -> Response:
            return await provider.chat(body, limits, stream=True, credential=credential)

        try:
            with TimeLimit(limit, "the answer"):
                async with await self._accepted(model, ask) as response:
                    size = 0
                    while chunk := await response.chunk():
                        size += len(chunk)
                        if size > LARGEST:
                            raise AttemptFailed("too_large", "its answer does not end")
                        yield chunk
        except TransportError as error:
            raise failures.from_transport(error) from error
        except TimeoutError as error:
            raise AttemptFailed("timeout", f"no whole answer within {limit:g} s") from error

    async def fetch(self, model: Model, url: str, *, limit: float) -> Answer:
        """See `Asker`. Addresses in private networks are refused, unless they are the provider's
        own."""
        return await self._in_time(limit, self._fetched(model, url, _limits(limit)))

    async def _fetched(self, model: Model, url: str, limits: Limits) -> Answer:
        own = urlsplit(self._settings[model.provider].base_url)
        for _ in range(REDIRECTS + 1):
            await _see_that_it_is_public(url, own.hostname or "")
            try:
                response = await self._carrier.send("GET", url, (), b"", limits)
                moved = response.headers.get("location", "")
                if response.status in _MOVED and moved:
                    async with response:
                        url = urljoin(url, moved)
                    continue
                if response.status == 200:
                    return await _read(response)
                async with response:
                    pass
            except ValueError as error:
                raise Refusal("provider_refused", f"the address cannot be asked: {error}") from None
            except TransportError as error:
                raise failures.from_transport(error) from error
            raise AttemptFailed("provider_error", f"HTTP {response.status}", status=response.status)
        raise AttemptFailed("provider_error", "the address leads from one to another")

    async def _accepted(
        self, model: Model, ask: Callable[[OpenAIProvider, int], Awaitable[T]]
    ) -> T:
        provider = self._providers[model.provider]
        if self._yielding is not None:
            await self._yielding(model.provider)
        first = self._turns.get(model.provider, 0)
        self._turns[model.provider] = (first + 1) % provider.credentials
        for left in reversed(range(provider.credentials)):
            try:
                return await ask(provider, (first + left) % provider.credentials)
            except AttemptFailed as failure:
                if failure.code != "credentials" or not left:
                    raise
        raise AssertionError

    async def _in_time(self, limit: float, answer: Awaitable[Answer]) -> Answer:
        try:
            with TimeLimit(limit, "the answer"):
                return await answer
        except TimeoutError as error:
            raise AttemptFailed("timeout", f"no whole answer within {limit:g} s") from error


def _limits(limit: float) -> Limits:
    return Limits(connect=min(CONNECT, limit), headers=limit, idle=limit)


async def _read(response: Response) -> Answer:
    try:
        async with response:
            body = await response.body(LARGEST)
    except TransportError as error:
        raise failures.from_transport(error) from error
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Answer(body=body, content_type=kind)


async def _see_that_it_is_public(url: str, own: str) -> None:
    """Raises `Refusal` where a provider would send us into our own network."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise Refusal("provider_refused", "what it names is no address on the web")
    if host == own:
        return
    try:
        async with asyncio.timeout(CONNECT):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port or parts.scheme, type=socket.SOCK_STREAM
            )
    except TimeoutError as error:
        raise AttemptFailed("timeout", "its host name cannot be looked up") from error
    except OSError as error:
        raise AttemptFailed("connect", "its host name leads nowhere (DNS)") from error
    addresses = (ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found)
    if not all(address.is_global for address in addresses):
        raise Refusal("provider_refused", "what it names is in a private network")
