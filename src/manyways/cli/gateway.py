"""A running gateway as the command line asks it: its models, and answers as they stream in.

Everything is asked in an event loop of its own (`asyncio.run`), so that Ctrl-C cancels what
is under way and closes its connection.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from manyways.dialects.sse import DONE, EventReader, EventTooLong
from manyways.errors import ConnectFailed, ManywaysError, TimedOut, TlsFailed, TransportError
from manyways.upstream import outlets, proxies
from manyways.upstream.settings import Settings
from manyways.upstream.transport import Limits, Response

# A gateway that is alive says something every ten seconds, were it only a comment.
LIMITS: Final = Limits(connect=5.0, headers=60.0, idle=45.0)
LISTING: Final = Limits(connect=5.0, headers=10.0, idle=10.0)
ANSWER_LIMIT: Final = 600.0
"""Seconds for a whole answer; the gateway's own deadline is far below."""

_TRIED: Final = "\n\nTried models:"  # behind it, the message names them again
_MAX_LIST: Final = 64 * 1024 * 1024
_MAX_ERROR: Final = 1024 * 1024
_MAX_EVENT: Final = 64 * 1024 * 1024


class GatewayFailed(ManywaysError):
    """The gateway did not do what was asked; `str()` says it in words.

    `code` is the gateway's own (`model_not_found`), or one of ours: `no_gateway`,
    `not_a_gateway`, `cut`, `timeout`, `no_key`. `status` is the HTTP status, where one came.
    `error` is the gateway's own object, empty where it sent none; `headers` those it came with.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        error: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.error = error or {}
        self.retry_after = (headers or {}).get("Retry-After")
        self.request_id = (headers or {}).get("X-Request-Id")

    def __repr__(self) -> str:
        return f"<GatewayFailed {self.code} status={self.status}: {self.message}>"

    def explained(self) -> str:
        """The message, a line for each attempt the gateway made, and what to do or to quote."""
        lines = [*_attempts(_table(self.error.get("details")).get("error_history"))]
        message = self.message
        if lines:
            message = message.partition(_TRIED)[0]
        if self.retry_after:
            lines.append(f"Ask again in {self.retry_after} s.")
        # Who was refused for what they sent can mend it, and need not ask the operator.
        if self.request_id and (self.status is None or self.status >= 500):
            lines.append(f"The operator finds it in the log as {self.request_id}.")
        return "\n".join([message, *lines])


class ModelRow(Struct, frozen=True):
    """What the command line uses of a row of the catalog."""

    id: str
    provider: str = ""
    category: str = "text"
    context_window: int | None = None
    latency_ms: float | None = None
    status: str = ""


class _Models(Struct):
    data: list[ModelRow]


class Message(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


class Question(Struct, frozen=True, kw_only=True):
    """What is asked of whom. An empty `provider` leaves the choice to the gateway."""

    model: str
    messages: Sequence[Message]
    provider: str = ""


class Answer(Struct, kw_only=True):
    """An answer as far as it has come; `total_ms` is set when it ended, however it did.

    `instead_of` is the model that was meant to answer, where another one had to.
    """

    model: str | None = None
    provider: str | None = None
    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None
    instead_of: str | None = None

    def __repr__(self) -> str:
        return f"<Answer of {self.model}, {len(self.content)} letters, {self.finish_reason}>"

    @property
    def tokens_per_second(self) -> float | None:
        """How fast it came after its first token; `None` where the tokens were not told."""
        tokens = (self.usage or {}).get("completion_tokens")
        if not isinstance(tokens, int) or self.first_token_ms is None or self.total_ms is None:
            return None
        seconds = (self.total_ms - self.first_token_ms) / 1000
        return (tokens - 1) / seconds if seconds > 0 and tokens > 1 else None


class Gateway:
    """A gateway at `url`, mount included. `key` is called whenever a key is needed, `cure`
    says what to do where no gateway answers. Of `upstream`, the transport is used."""

    def __init__(
        self, url: str, key: Callable[[], str], *, cure: str, upstream: Settings | None = None
    ) -> None:
        self.url = url
        self._key = key
        self._cure = cure
        self._upstream = upstream or Settings()

    def __repr__(self) -> str:
        return f"<Gateway {self.url}>"

    async def models(
        self, *, category: str | None = None, provider: str | None = None
    ) -> list[ModelRow]:
        """Its models, in its order; those that are down come last. Needs no key. Raises
        `GatewayFailed`."""
        query = {"category": category, "provider": provider, "status": "all"}
        given = urlencode({name: value for name, value in query.items() if value})
        async with self._exchange("GET", f"/models?{given}", (), b"", LISTING) as response:
            body = await response.body(_MAX_LIST)
        try:
            rows = msgspec.json.decode(body, type=_Models).data
        except (ValueError, RecursionError):
            raise self._stranger(response.status) from None
        return sorted(rows, key=lambda row: row.status == "down")

    async def ask(self, question: Question, answer: Answer, tell: Callable[[str], None]) -> None:
        """Ask, filling `answer` and calling `tell` with each piece of its content as it comes.

        Returns behind a complete answer. Raises `GatewayFailed`, after which `answer` holds
        what had come.
        """
        headers = (
            ("Authorization", f"Bearer {self._key()}"),
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream"),
        )
        body = {
            "model": question.model,
            "messages": [message._asdict() for message in question.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if question.provider:
            body["provider"] = question.provider
        begun = time.monotonic()
        try:
            async with (
                asyncio.timeout(ANSWER_LIMIT),
                self._exchange(
                    "POST", "/chat/completions", headers, msgspec.json.encode(body), LIMITS
                ) as response,
            ):
                await self._receive(response, answer, tell, begun)
        except TimeoutError:
            raise GatewayFailed(
                "timeout", f"the answer was not complete after {ANSWER_LIMIT:g} s"
            ) from None
        finally:
            answer.total_ms = _since(begun)

    async def _receive(
        self, response: Response, answer: Answer, tell: Callable[[str], None], begun: float
    ) -> None:
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise self._stranger(response.status)
        reader = EventReader(_MAX_EVENT)
        while data := await response.chunk():
            for event in reader.feed(data):
                if event.data == DONE:
                    return
                text = _take_in(event.data, answer, response.headers)
                if answer.first_token_ms is None and (text or answer.reasoning):
                    answer.first_token_ms = _since(begun)
                if text:
                    tell(text)
        raise GatewayFailed("cut", "the gateway's stream ended before the answer did")

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
    ) -> AsyncIterator[Response]:
        """A request whose answer's status is 200; every failure becomes `GatewayFailed`."""
        proxy = proxies.of_environment(os.environ, self.url)
        way = outlets.Outlet(proxy=proxy.url if proxy else "")
        transport = outlets.transport(self._upstream, way)
        try:
            answered = await transport.send(method, self.url + path, headers, body, limits)
            async with answered as response:
                if response.status != 200:
                    raise self._refused(response, await response.body(_MAX_ERROR))
                yield response
        except TransportError as error:
            raise self._failed(error) from error
        except EventTooLong as error:
            raise GatewayFailed("cut", str(error)) from error
        finally:
            await transport.aclose()

    def _failed(self, error: TransportError) -> GatewayFailed:
        connecting = isinstance(error, TimedOut) and error.connecting
        if connecting or isinstance(error, ConnectFailed | TlsFailed):
            return GatewayFailed("no_gateway", f"No gateway answers at {self.url}. {self._cure}")
        if isinstance(error, TimedOut) and error.phase in {"write", "headers"}:
            return GatewayFailed(
                "timeout", f"{self.url} took longer than {error.seconds:g} s to begin an answer."
            )
        return GatewayFailed("cut", f"the connection to the gateway broke ({error})")

    def _refused(self, response: Response, body: bytes) -> GatewayFailed:
        status = response.status
        try:
            found = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            return self._stranger(status)
        failure = _failure(found, status, response.headers)
        return self._stranger(status) if failure is None else failure

    def _stranger(self, status: int) -> GatewayFailed:
        return GatewayFailed(
            "not_a_gateway",
            f"Something answers at {self.url} (HTTP {status}), but it is no Manyways gateway. "
            "See that the address and the port are right.",
            status=status,
        )


def _take_in(data: bytes, answer: Answer, headers: Mapping[str, str]) -> str:
    """Take one event's news into the answer; returns its piece of content."""
    try:
        event = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise GatewayFailed("cut", "the gateway sent an event that is not JSON") from error
    if not isinstance(event, dict):
        return ""
    failure = _failure(event, None, headers)
    if failure is not None:
        raise failure
    answer.model = _text(event.get("model")) or answer.model
    answer.provider = _text(event.get("provider")) or answer.provider
    answer.usage = _table(event.get("usage")) or answer.usage
    meant = _text(_table(event.get("_metadata")).get("original_model"))
    answer.instead_of = meant or answer.instead_of
    choices = event.get("choices")
    choice = _table(choices[0]) if isinstance(choices, list) and choices else {}
    answer.finish_reason = _text(choice.get("finish_reason")) or answer.finish_reason
    delta = _table(choice.get("delta"))
    answer.reasoning += _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
    text = _text(delta.get("content")) or _text(delta.get("refusal"))
    answer.content += text
    return text


def _failure(found: object, status: int | None, headers: Mapping[str, str]) -> GatewayFailed | None:
    """The error in an answer, in either of the gateway's formats; `None` where it has none."""
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, str):
        words = f"The gateway answers: {error}"
        return GatewayFailed(error, words, status=status, headers=headers)
    if not isinstance(error, dict):
        return None
    code = _text(error.get("code")) or _text(error.get("type")) or "error"
    message = _text(error.get("message")) or f"The gateway answers: {code}"
    return GatewayFailed(code, message, status=status, error=error, headers=headers)


def _attempts(history: object) -> Iterator[str]:
    """The rows of `error_history` in words: `gpt-4o (Capi): timeout, no content, 10004 ms`."""
    for row in history if isinstance(history, list) else ():
        one = _table(row)
        what = [_text(one.get("code")), " ".join(_text(one.get("message")).split())]
        if isinstance(took := one.get("latency_ms"), int):
            what.append(f"{took} ms")
        who = f"{_text(one.get('model'))} ({_text(one.get('provider'))})"
        yield f"  {who}: {', '.join(word for word in what if word)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
