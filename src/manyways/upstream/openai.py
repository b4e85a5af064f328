"""Protocol `openai`: any server that speaks OpenAI's API, the embedded model's included."""

import time
from collections.abc import Sequence
from typing import Protocol

from manyways.errors import AttemptFailed, Refusal, TransportError
from manyways.types import Provider
from manyways.upstream import failures
from manyways.upstream.failed import Failed, secrets_of
from manyways.upstream.pages import LIST_HEADERS, Pages, same_origin
from manyways.upstream.transport import Limits, Response, Transport
from manyways.watch import TimeLimit

_ERROR_BODY = 256 * 1024
_NO_SECRET = 3
"""Keys of so few letters are placeholders, and parts of ordinary words."""
_LONG_ENOUGH = 12
"""Letters of a key whose last ones give nothing away."""
_SHOWN = 4
_ASK_AGAIN = 3600.0
"""Seconds behind which a provider that refused to tell its usage is asked again."""
_JSON = ("Accept", "application/json")
_EVENTS = ("Accept", "text/event-stream")
_JSON_BODY = ("Content-Type", "application/json")
_LIST_LIMIT = 60.0
"""Seconds for a whole list of models, however lively it trickles, and in however many pages."""


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
    """One provider, asked over a transport.

    Its keys are its credentials, numbered from 0 in the order of the configuration; who asks
    says with which. A provider without keys has one credential, 0, that sends none. `drain`
    tells whether an answer that its caller has left is to be read to its end. `resends` counts
    the requests that found a kept connection closed, and were sent again on a new one.
    """

    def __init__(
        self,
        provider: Provider,
        transport: Transport,
        *,
        address: Address | None = None,
        api_keys: tuple[str, ...] | None = None,
    ) -> None:
        self.name = provider.name
        self.drain = provider.drain
        self.resends = 0
        self._on_resend = self._resent
        self._no_usage_until = 0.0
        self._failed: Failed | None = None
        self._transport = transport
        self._fixed = provider.base_url if address is None else ""
        self._address = address or FixedAddress(provider.base_url)
        self._keys = provider.api_keys if api_keys is None else api_keys
        self._headers = [_Headers(provider, key) for key in self._keys or (None,)]
        self._secrets = secrets_of(provider, self._keys)
        self._list_base = provider.models_url
        self._list_path = "" if self._list_base else "/models"
        # What proves who we are goes to whom it was given for, and nowhere else.
        elsewhere = self._list_base and not same_origin(self._list_base, provider.base_url)
        self._listing: list[Sequence[tuple[str, str]]] = (
            [LIST_HEADERS] if elsewhere else [one.listing for one in self._headers]
        )

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self.name}>"

    @property
    def transport(self) -> Transport:
        """What leads to it."""
        return self._transport

    @property
    def failed(self) -> Failed | None:
        """The latest exchange of bytes with it that failed, since the start."""
        return self._failed

    def failing(self, code: str, error: BaseException) -> None:
        """One has failed, which was of this outcome class."""
        self._failed = Failed.now(code, error, self._secrets)

    @property
    def credentials(self) -> int:
        """How many there are: at least one."""
        return len(self._headers)

    @property
    def tells_usage(self) -> bool:
        """Whether streams may be asked for their usage: some providers refuse the question."""
        return time.monotonic() >= self._no_usage_until

    def refused_usage(self) -> None:
        """It answers a stream, but for this question. It is not asked for an hour."""
        self._no_usage_until = time.monotonic() + _ASK_AGAIN

    def label(self, credential: int) -> str:
        """How logs and the operator's pages name a credential, without telling it."""
        if not self._keys:
            return "no key"
        key = self._keys[credential]
        known = f" (…{key[-_SHOWN:]})" if len(key) >= _LONG_ENOUGH else ""
        return f"key {credential + 1}{known}"

    async def chat(
        self, body: bytes, limits: Limits, *, stream: bool, credential: int = 0
    ) -> Response:
        """Ask `/chat/completions`; the answer's status is 200, its body has not been read.

        Raises `AttemptFailed`, or `Refusal` where the provider says that the request itself
        is wrong.
        """
        headers = self._headers[credential]
        return await self._answered(
            "/chat/completions", headers.streamed if stream else headers.whole, body, limits
        )

    async def post(
        self, path: str, body: bytes, content_type: str, limits: Limits, *, credential: int = 0
    ) -> Response:
        """Ask another path below the base URL for whatever it answers. As `chat` in all else."""
        headers = (*self._headers[credential].bare, ("Content-Type", content_type))
        return await self._answered(path, headers, body, limits)

    async def _answered(
        self, path: str, headers: Sequence[tuple[str, str]], body: bytes, limits: Limits
    ) -> Response:
        response = await self._send("POST", path, headers, body, limits)
        if response.status == 200:
            return response
        try:
            async with response:
                found = await response.body(_ERROR_BODY)
        except TransportError:
            found = b""  # the status alone says enough
        raise self._failure(response, found)

    def redact(self, text: str) -> str:
        """`text` without this provider's keys, whoever repeats them."""
        for key in self._keys:
            if len(key) > _NO_SECRET:
                text = text.replace(key, "***")
        return text

    async def list_models(self, limits: Limits) -> bytes:
        """The provider's own list, with the first credential that is accepted.

        It is at `/models` below the base URL, or at `Provider.models_url`. A list that comes in
        pages is asked for to its end, and its pages put together into one body. Keys and headers
        of the configuration are sent only to the base URL's own origin.

        Raises `AttemptFailed`, `Refusal`.
        """
        *others, last = self._listing
        try:
            with TimeLimit(_LIST_LIMIT, "the list of models"):
                for headers in others:
                    try:
                        return await self._list_models(headers, limits)
                    except AttemptFailed as failure:
                        if failure.code != "credentials":
                            raise
                return await self._list_models(last, limits)
        except TimeoutError as error:
            raise AttemptFailed("timeout", str(error)) from error

    async def _list_models(self, headers: Sequence[tuple[str, str]], limits: Limits) -> bytes:
        pages = Pages()
        while pages.query is not None:
            path = self._list_path + pages.query
            response = await self._send("GET", path, headers, b"", limits, base=self._list_base)
            try:
                async with response:
                    found = await response.body(pages.room)
            except TransportError as error:
                raise self._broken(error) from error
            if response.status != 200:
                raise self._failure(response, found)
            pages.add(found)
        return pages.joined()

    def _resent(self) -> None:
        self.resends += 1

    def _failure(self, response: Response, body: bytes) -> Refusal | AttemptFailed:
        failure = failures.from_status(response.status, response.headers, body, time.time())
        failure.message = self.redact(failure.message)
        failure.args = (failure.message,)
        if isinstance(failure, Refusal):
            failure.param = failure.param and self.redact(failure.param)
            failure.provider_code = failure.provider_code and self.redact(failure.provider_code)
        else:
            failure.words = self.redact(failure.words)
        return failure

    async def _send(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        base: str = "",
    ) -> Response:
        try:
            base = base or self._fixed or await self._address.address(limits.connect)
            return await self._transport.send(
                method, base + path, headers, body, limits, on_resend=self._on_resend
            )
        except TransportError as error:
            raise self._broken(error) from error

    def _broken(self, error: TransportError) -> AttemptFailed:
        failure = failures.from_transport(error)
        self.failing(failure.code, error)
        return failure


class _Headers:
    """What is sent with one credential, made once: the transport knows it again."""

    __slots__ = ("bare", "listing", "streamed", "whole")

    def __init__(self, provider: Provider, key: str | None) -> None:
        shared = tuple(provider.headers.items())
        if key is not None:
            shared += (("Authorization", f"Bearer {key}"),)
        self.bare = shared
        self.listing = (*LIST_HEADERS, *shared)
        self.whole = (_JSON, *shared, _JSON_BODY)
        self.streamed = (_EVENTS, *shared, _JSON_BODY)
