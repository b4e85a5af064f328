"""Protocol `openai`: any server that speaks OpenAI's API, the embedded model's included."""

import itertools
import time
from typing import Protocol

from manyways.errors import AttemptFailed, Refusal, TransportError
from manyways.types import Provider
from manyways.upstream import failures
from manyways.upstream.transport import Limits, Response, Transport
from manyways.watch import TimeLimit

_ERROR_BODY = 256 * 1024
_NO_SECRET = 3
"""Keys of so few letters are placeholders, and parts of ordinary words."""
_LIST_BODY = 32 * 1024 * 1024
_LIST_LIMIT = 60.0
"""Seconds for a whole list of models, however lively it trickles."""


class Address(Protocol):
    """Where a provider listens: fixed for most, known only later for a child process."""

    async def address(self, limit: float) -> str:
        """The base URL without a trailing slash, within `limit` seconds. Raises `ConnectFailed`."""
        ...


class FixedAddress:
    """An address from the configuration."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def address(self, limit: float) -> str:  # noqa: ARG002  (it is never waited for)
        return self._base_url


class OpenAIProvider:
    """One provider, asked over a transport. Several keys are used in turn."""

    def __init__(
        self,
        provider: Provider,
        transport: Transport,
        *,
        address: Address | None = None,
        api_keys: tuple[str, ...] | None = None,
    ) -> None:
        self.name = provider.name
        self._transport = transport
        self._fixed = provider.base_url if address is None else ""
        self._address = address or FixedAddress(provider.base_url)
        shared = tuple(provider.headers.items())
        keys = provider.api_keys if api_keys is None else api_keys
        self._keys = tuple(key for key in keys if len(key) > _NO_SECRET)
        self._headers = itertools.cycle(
            [(*shared, ("Authorization", f"Bearer {key}")) for key in keys] or [shared]
        )

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self.name}>"

    async def chat(self, body: bytes, limits: Limits, *, stream: bool) -> Response:
        """Ask `/chat/completions`; the answer's status is 200, its body has not been read.

        Raises `AttemptFailed`, or `Refusal` where the provider says that the request itself
        is wrong.
        """
        response = await self._send(
            "POST",
            "/chat/completions",
            body,
            limits,
            "text/event-stream" if stream else "application/json",
        )
        if response.status == 200:
            return response
        try:
            async with response:
                found = await response.body(_ERROR_BODY)
        except TransportError:
            found = b""  # the status alone says enough
        failure = failures.from_status(response.status, response.headers, found, time.time())
        if isinstance(failure, Refusal):
            failure.message = self.redact(failure.message)
        raise failure

    def redact(self, text: str) -> str:
        """`text` without this provider's keys, whoever repeats them."""
        for key in self._keys:
            text = text.replace(key, "***")
        return text

    async def list_models(self, limits: Limits) -> bytes:
        """The provider's own list, `/models`. Raises `AttemptFailed`, `Refusal`."""
        try:
            with TimeLimit(_LIST_LIMIT, "the list of models"):
                response = await self._send("GET", "/models", b"", limits, "application/json")
                async with response:
                    found = await response.body(_LIST_BODY)
        except TransportError as error:
            raise failures.from_transport(error) from error
        except TimeoutError as error:
            raise AttemptFailed("timeout", str(error)) from error
        if response.status != 200:
            raise failures.from_status(response.status, response.headers, found, time.time())
        return found

    async def _send(
        self, method: str, path: str, body: bytes, limits: Limits, accept: str
    ) -> Response:
        headers = [("Accept", accept), *next(self._headers)]
        if body:
            headers.append(("Content-Type", "application/json"))
        try:
            base = self._fixed or await self._address.address(limits.connect)
            return await self._transport.send(method, base + path, headers, body, limits)
        except TransportError as error:
            raise failures.from_transport(error) from error
