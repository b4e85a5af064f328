"""The way from verification to models: the same providers and sockets that requests go by."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final, TypeVar

from yarl import URL

from manyways.errors import AttemptFailed, Refusal, TransportError
from manyways.types import Model, Provider
from manyways.upstream import failures
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.public import see_that_it_is_public
from manyways.upstream.transport import Limits, Response, Transport
from manyways.verification.asking import JSON, Answer
from manyways.watch import TimeLimit

LARGEST: Final = 32 * 1024 * 1024
"""Bytes of what is fetched."""
CONNECT: Final = 10.0
"""Seconds until a connection stands."""
REDIRECTS: Final = 3
_MOVED: Final = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")
Yielding = Callable[[str], Awaitable[None]]
"""Waits until verification may use a provider: who serves callers goes first."""


class ProviderAsker:
    """Asks models at their providers, their credentials in turn: one that is not accepted is
    left out, and only the last one's failure counts. `outside` leads to the
    public internet and nowhere else. Time limits begin behind the `yielding`."""

    def __init__(
        self,
        providers: Mapping[str, OpenAIProvider],
        settings: Mapping[str, Provider],
        outside: Transport,
        *,
        yielding: Yielding | None = None,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._outside = outside
        self._yielding = yielding
        self._turns: dict[str, int] = {}

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        """See `Asker`."""
        limits = _limits(limit)

        async def ask(provider: OpenAIProvider, credential: int) -> Answer:
            if path == "/chat/completions":
                answered = provider.chat(body, limits, stream=False, credential=credential)
            else:
                answered = provider.post(path, body, content_type, limits, credential=credential)
            return await _read(await answered, largest)

        await self._yielded(model)
        return await self._in_time(limit, self._accepted(model, ask))

    async def stream(
        self,
        model: Model,
        path: str,  # noqa: ARG002  (`Asker`)
        body: bytes,
        *,
        limit: float,
        largest: int,
    ) -> AsyncGenerator[bytes, None]:
        """See `Asker`. Chats are all that streams."""
        limits = _limits(limit)

        async def ask(provider: OpenAIProvider, credential: int) -> Response:
            return await provider.chat(body, limits, stream=True, credential=credential)

        await self._yielded(model)
        now = asyncio.get_running_loop().time
        give_up = now() + limit
        try:
            with TimeLimit(limit, "the answer"):
                response = await self._accepted(model, ask)
            async with response:
                size = 0
                while True:
                    # Not around the `yield`: it would hold for whatever the other does meanwhile.
                    with TimeLimit(max(0.0, give_up - now()), "the answer"):
                        chunk = await response.chunk()
                    if not chunk:
                        return
                    size += len(chunk)
                    if size > largest:
                        raise AttemptFailed("too_large", "its answer does not end")
                    yield chunk
        except TransportError as error:
            raise failures.from_transport(error) from error
        except TimeoutError as error:
            raise AttemptFailed("timeout", f"no whole answer within {limit:g} s") from error

    async def fetch(self, model: Model, url: str, *, limit: float) -> Answer:
        """See `Asker`. Addresses in private networks are refused, but for the one that the
        provider itself is at: its host and port. Nothing is sent that tells who asks."""
        return await self._in_time(limit, self._fetched(model, url, _limits(limit)))

    async def _fetched(self, model: Model, url: str, limits: Limits) -> Answer:
        base = URL(self._settings[model.provider].base_url)
        own = (base.host, base.port)
        wanted = _address(url)
        for _ in range(REDIRECTS + 1):
            near = (wanted.host, wanted.port) == own
            carrier = self._providers[model.provider].transport if near else self._outside
            if not near:
                see_that_it_is_public(wanted.host or "")
            try:
                response = await carrier.send("GET", str(wanted), (), b"", limits)
                if response.status == 200:
                    return await _read(response, LARGEST)
                async with response:
                    moved = response.headers.get("location", "")
            except ValueError as error:
                raise Refusal("provider_refused", f"the address cannot be asked: {error}") from None
            except TransportError as error:
                raise failures.from_transport(error) from error
            if response.status not in _MOVED or not moved:
                status = response.status
                raise AttemptFailed("provider_error", f"HTTP {status}", status=status)
            wanted = _address(moved, wanted)
        raise AttemptFailed("provider_error", "the address leads from one to another")

    async def _yielded(self, model: Model) -> None:
        if self._yielding is not None:
            await self._yielding(model.provider)

    async def _accepted(
        self, model: Model, ask: Callable[[OpenAIProvider, int], Awaitable[T]]
    ) -> T:
        provider = self._providers[model.provider]
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


async def _read(response: Response, largest: int) -> Answer:
    try:
        async with response:
            body = await response.body(largest)
    except TransportError as error:
        raise failures.from_transport(error) from error
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Answer(body=body, content_type=kind)


def _address(url: str, base: URL | None = None) -> URL:
    """Raises `Refusal` where it is none on the web."""
    try:
        found = URL(url) if base is None else base.join(URL(url))
        if found.scheme in ("http", "https") and found.host and found.port:
            return found
    except ValueError:
        pass
    raise Refusal("provider_refused", "what it names is no address on the web")
