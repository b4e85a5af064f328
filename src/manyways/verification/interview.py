"""One model, asked one thing after the other, for as little as possible.

Models differ in what they take: what one refuses (`temperature`, `max_tokens`) is left out or
put otherwise from then on, and one that thinks before it speaks gets room for its thoughts. All
of it is paced, bounded in time and money, and counted.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from manyways import tokens
from manyways.catalog.verified import SHOWN
from manyways.dialects.openai_chat import usage as chat_usage
from manyways.dialects.sse import DONE, EventReader, EventTooLong
from manyways.errors import AttemptFailed, ManywaysError, Refusal, TimedOut
from manyways.types import NO_USAGE, Model, Usage
from manyways.usage.pricing import cost
from manyways.verification.asking import JSON, Answer, Asker
from manyways.verification.pacing import Pace, Places, Postponed, Purse

CHAT: Final = "/chat/completions"
LETTERS_A_TOKEN: Final = 3
"""Fewer than in any ordinary text: an estimate of a prompt that is rather too high."""
ROOM_TO_THINK: Final = 2048
"""Tokens beside the answer's own for a model that thinks first."""
TRIES: Final = 4
"""Of a request that the provider wants later."""
PATIENCE: Final = 120.0
"""The longest wait that a provider may ask for; who wants more is asked another day."""
FIRST_WAIT: Final = 5.0
"""Seconds where it does not say how long; twice that the next time, and so on."""

LARGEST: Final = 1024 * 1024
"""Bytes of an answer: far more than was asked for. What is larger is no answer."""
LARGEST_STREAM: Final = 4 * LARGEST
"""The same of a stream, whose every word has an envelope of its own."""
LARGEST_OF: Final = {"/images/generations": 32 * LARGEST, "/audio/speech": 9 * LARGEST}
"""Where pictures and sounds come from."""

_LOST_CAUSES: Final = frozenset({"credentials", "model_gone"})
"""Failures that asking again does not help."""
_OURS: Final = frozenset({"crowded", "out_of_sockets"})
"""Failures that say nothing about who was to be asked."""
_WORKED: Final = frozenset({"timeout", "reset", "cut", "garbled", "too_large"})
"""Failures of those that had the request: it may have to be paid for, whatever came of it."""
_NOT_THERE: Final = frozenset({400, 403, 404, 410})
"""What a server answers that has nothing at an address."""
_OPTIONAL: Final = ("temperature", "seed")
_BEGINNING: Final = 4 * SHOWN
"""Bytes that are as many letters as are kept, or more."""
_QUOTED: Final = 90
"""Letters of something foreign that a reason quotes."""

T = TypeVar("T")


class BadAnswer(ManywaysError):
    """What came back is not what such an answer looks like; the message says how."""


class Said(Struct, frozen=True, kw_only=True):
    """What a chat model has answered. `pieces` counts the events with content of a stream."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None
    annotations: tuple[Any, ...] = ()
    fields: dict[str, Any] = {}
    """The whole answer, decoded; of a stream its last event's fields."""
    usage: Usage = NO_USAGE
    pieces: int = 0


class Spent(Struct, kw_only=True):
    """What one step of an interview came to. Times are those of its last request."""

    requests: int = 0
    usage: Usage = NO_USAGE
    cost: float = 0.0
    ms: int | None = None
    first_token_ms: int | None = None
    tokens_per_second: float | None = None
    reported: str = ""


class Interview:
    """Asks `model` through `asker`. `chance` makes what cannot be known beforehand.

    Everything raises `Postponed`, `AttemptFailed`, `BadAnswer`, and `Refusal` where the provider
    says that the request is wrong.
    """

    def __init__(
        self,
        model: Model,
        asker: Asker,
        *,
        pace: Pace,
        places: Places,
        purse: Purse,
        timeout: float,
        chance: Random,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.chance = chance
        self.spent = Spent()
        self.asked = ""
        """What was said to it last."""
        self.answered = ""
        """What came of that, whatever it is."""
        self._asker = asker
        self._pace = pace
        self._places = places
        self._purse = purse
        self._timeout = timeout
        self._clock = clock
        self._left_out: set[str] = set()
        self._counts_completion = False  # it wants `max_completion_tokens`
        self._thinks = "reasoning" in model.capabilities

    def __repr__(self) -> str:
        return (
            f"<Interview with {self.model.provider}/{self.model.id}, {self.spent.requests} asked>"
        )

    def begin(self) -> None:
        """A new step: what is spent is counted from here on."""
        self.spent = Spent()
        self.asked = self.answered = ""

    async def say(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        limit: int = 64,
        stream: bool = False,
        **fields: Any,
    ) -> Said:
        """What it answers in at most `limit` tokens. `fields` are sent as they are."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        self.asked = _in_words(messages)
        on_trial: set[str] = set()
        while True:  # to an end: each change of what is sent is made once
            body = self._body(messages, limit, stream, fields)
            room = limit + ROOM_TO_THINK if self._thinks else limit
            try:
                said = await self._sent(body, room, stream=stream)
            except Refusal as refusal:
                # What was left out to no avail was not what the provider minded.
                self._left_out -= on_trial
                if on_trial or (wrong := self._minded(refusal, body)) is None:
                    raise
                on_trial = wrong
                self._left_out |= wrong
                continue
            if _is_lost_in_thought(said) and not self._thinks:
                self._thinks = True
                continue
            return said

    async def post(
        self, path: str, body: Mapping[str, Any] | bytes, *, content_type: str = JSON, price: float
    ) -> Answer:
        """What it answers at another path. `price` is what that costs at most, in USD."""
        if not isinstance(body, bytes):
            self.asked = str(body.get("prompt") or body.get("input") or "")
            body = msgspec.json.encode({"model": self.model.upstream_id, **body})
        sent = body

        async def ask() -> Answer:
            answer = await self._asker.whole(
                self.model,
                path,
                sent,
                content_type=content_type,
                limit=self._timeout,
                largest=LARGEST_OF.get(path, LARGEST),
            )
            self.answered = _beginning(answer.body)
            return answer

        return await self._paid(ask, price, lambda _: price)

    async def fetch(self, url: str) -> Answer:
        """What lies at an address that the model has named. It is somebody else's server: that
        nothing can be had from it says nothing about the model."""
        try:
            return await self._asker.fetch(self.model, url, limit=self._timeout)
        except AttemptFailed as failure:
            if failure.status in _NOT_THERE:
                raise
            words = _shown(failure.message)
            raise Postponed(f"nothing can be fetched: {words}", asked=True) from failure

    def _body(
        self,
        messages: Sequence[Mapping[str, Any]],
        limit: int,
        stream: bool,
        fields: Mapping[str, Any],
    ) -> dict[str, Any]:
        count = "max_completion_tokens" if self._counts_completion else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model.upstream_id,
            "messages": list(messages),
            count: limit + ROOM_TO_THINK if self._thinks else limit,
            "temperature": 0,
            "seed": 1,
            **fields,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _minded(self, refusal: Refusal, body: Mapping[str, Any]) -> set[str] | None:
        """Fields that the provider may take amiss, to be left out for a try; `None` where no
        other way of asking is left."""
        if refusal.code == "content_filter":
            return None
        words = f"{refusal.param or ''} {refusal.message}"
        if "max_completion_tokens" in words and not self._counts_completion:
            self._counts_completion = True
            return set()
        named = {name for name in ("stream_options", *_OPTIONAL) if name in words and name in body}
        if named:
            self._left_out |= named  # for good: it was told
            return set()
        # Who does not say what is wrong is asked with nothing that could be.
        return {name for name in _OPTIONAL if name in body} or None

    async def _sent(self, body: Mapping[str, Any], room: int, *, stream: bool) -> Said:
        data = msgspec.json.encode(body)
        most = Usage(prompt_tokens=len(data) // LETTERS_A_TOKEN, completion_tokens=room)
        bound = cost(self.model.pricing, most) or 0.0

        async def heard() -> Said:
            if stream:
                stream_of = self._asker.stream(
                    self.model, CHAT, data, limit=self._timeout, largest=LARGEST_STREAM
                )
                async with contextlib.aclosing(stream_of) as chunks:
                    return await self._listen(chunks)
            answer = await self._asker.whole(
                self.model, CHAT, data, limit=self._timeout, largest=LARGEST
            )
            self.answered = _beginning(answer.body)
            return _said(answer.body)

        async def ask() -> Said:
            said = await heard()
            return msgspec.structs.replace(said, usage=self._counted(said, data, room))

        def price(said: Said) -> float:
            # What it says it came to is believed as far as what was allowed.
            return min(cost(self.model.pricing, said.usage) or 0.0, bound)

        said = await self._paid(ask, bound, price)
        spent, usage = self.spent, said.usage
        spent.usage = Usage(
            prompt_tokens=spent.usage.prompt_tokens + usage.prompt_tokens,
            completion_tokens=spent.usage.completion_tokens + usage.completion_tokens,
            source=usage.source,
        )
        spent.reported = _shown(said.fields.get("model") or "")
        return said

    def _counted(self, said: Said, data: bytes, room: int) -> Usage:
        """What an answer of a model with prices came to: what its provider does not tell is
        estimated. Thoughts that nobody sees are as long as they might be."""
        told = said.usage
        calls = (str(call.get("function") or "") for call in said.tool_calls)
        produced = "\n".join(filter(None, (said.reasoning, said.text, *calls)))
        is_told = told.prompt_tokens and (told.completion_tokens or not produced)
        if is_told or cost(self.model.pricing, told) is None:
            return told
        unseen = self._thinks and not said.reasoning and "<think>" not in said.text
        completion = room if unseen else tokens.count(produced)
        return msgspec.structs.replace(
            told,
            prompt_tokens=told.prompt_tokens or chat_usage.prompt_tokens(_fields(data)),
            completion_tokens=told.completion_tokens or completion,
            source="estimated",
        )

    async def _paid(
        self, ask: Callable[[], Awaitable[T]], bound: float, price: Callable[[T], float]
    ) -> T:
        """One request, as often as it has to be asked again. It costs `bound` at most each time,
        and `price` where it is answered."""
        wait = FIRST_WAIT
        again = True
        before = self.spent.requests
        for left in reversed(range(TRIES)):
            try:
                answer = await self._once(ask, bound, price)
            except Postponed as postponed:
                postponed.asked = self.spent.requests > before
                raise
            except AttemptFailed as failure:
                if failure.code == "rate_limited":
                    wait = failure.retry_after or wait
                    # So long may be meant for this model alone: others are asked soon.
                    self._pace.limited(wait if wait <= PATIENCE else FIRST_WAIT)
                    if not left or wait > PATIENCE:
                        raise Postponed(
                            f"it wants fewer requests: {_shown(failure.message)}", asked=True
                        ) from failure
                    wait *= 2
                    continue
                if failure.code == "timeout":
                    self._pace.silent()
                if failure.code in _OURS and not again:
                    raise Postponed(failure.message, asked=False) from failure
                if failure.code in _LOST_CAUSES or not again:
                    raise
                again = False  # once may have been an accident
                continue
            self._pace.went_well()
            return answer
        raise Postponed("it wants fewer requests", asked=True)

    async def _once(
        self, ask: Callable[[], Awaitable[T]], bound: float, price: Callable[[T], float]
    ) -> T:
        provider = self.model.provider
        async with self._purse.hold(bound, provider) as fits:
            if not fits:
                raise Postponed(
                    f"it may cost {bound:.4f} USD, more than is left of the budget", asked=False
                )
            async with self._places.of(provider), self._pace.turn(self._places.all):
                self.spent.requests += 1
                self.answered = ""
                began = self._clock()
                try:
                    answer = await ask()
                except (BadAnswer, AttemptFailed) as failure:
                    # What it came to cannot be counted.
                    self._pay(bound if _may_be_billed(failure) else 0.0)
                    raise
                self.spent.ms = round((self._clock() - began) * 1000)
            self._pay(price(answer))
            return answer

    def _pay(self, price: float) -> None:
        self.spent.cost += price
        self._purse.pay(price, self.model.provider)

    async def _listen(self, chunks: AsyncIterator[bytes]) -> Said:
        heard = _Heard()
        try:
            return await self._put_together(chunks, heard)
        finally:
            self.answered = heard.said().text[:SHOWN] or _beginning(heard.begun)

    async def _put_together(self, chunks: AsyncIterator[bytes], heard: "_Heard") -> Said:
        reader = EventReader(limit=4 * 1024 * 1024)
        began = self._clock()
        first: float | None = None
        last = began
        over = False
        async for chunk in chunks:
            heard.begun += chunk[: max(0, _BEGINNING - len(heard.begun))]
            try:
                events = reader.feed(chunk)
            except EventTooLong as error:
                raise BadAnswer(f"its stream cannot be read: {error}") from error
            for event in events:
                if event.data == DONE:
                    over = True
                elif heard.take(event.data):
                    last = self._clock()
                    first = last if first is None else first
        for event in reader.end():
            over = over or event.data == DONE
            if event.data != DONE:
                heard.take(event.data)
        said = heard.said()
        if not over and said.finish_reason is None:
            raise BadAnswer("its stream ends without a finish")
        if first is not None:
            self.spent.first_token_ms = round((first - began) * 1000)
            produced = said.usage.completion_tokens or heard.pieces
            if last > first and produced > 1:
                self.spent.tokens_per_second = round((produced - 1) / (last - first), 1)
        return said


class _Heard:
    """A stream, as it is put together. `begun` are its first bytes."""

    def __init__(self) -> None:
        self.begun = b""
        self.pieces = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, list[str]]] = {}
        self._finish: str | None = None
        self._annotations: list[Any] = []
        self._fields: dict[str, Any] = {}
        self._usage = NO_USAGE

    def take(self, data: bytes) -> bool:
        """Whether the event brought something of the answer."""
        fields = _object(data)
        if fields.get("error"):
            raise BadAnswer(f"its stream ends with an error: {_shown(fields['error'])}")
        self._fields |= fields
        usage = fields.get("usage")
        if usage:
            self._usage = chat_usage.told(Raw(msgspec.json.encode(usage))) or self._usage
        told = spoken = False
        for choice in _list(fields.get("choices")):
            delta = _dict(choice.get("delta"))
            for name, pieces in (
                ("content", self._text),
                ("reasoning_content", self._reasoning),
                ("reasoning", self._reasoning),
            ):
                text = delta.get(name)
                if isinstance(text, str) and text:
                    pieces.append(text)
                    told = True
                    spoken = spoken or name == "content"
            for call in _list(delta.get("tool_calls")):
                index = call.get("index")
                index = index if isinstance(index, int) else 0
                known = self._calls.setdefault(index, {"name": [], "arguments": []})
                function = _dict(call.get("function"))
                for name in ("name", "arguments"):
                    if isinstance(function.get(name), str):
                        known[name].append(function[name])
                        told = True
            self._annotations += _list(delta.get("annotations"))
            finish = choice.get("finish_reason")
            self._finish = finish if isinstance(finish, str) else self._finish
        self.pieces += spoken
        return told

    def said(self) -> Said:
        return Said(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(
                {"function": {name: "".join(pieces) for name, pieces in call.items()}}
                for call in self._calls.values()
            ),
            finish_reason=self._finish,
            annotations=tuple(self._annotations),
            fields=self._fields,
            usage=self._usage,
            pieces=self.pieces,
        )


def _said(body: bytes) -> Said:
    fields = _object(body)
    if fields.get("error"):
        raise BadAnswer(f"it answers 200 with an error: {_shown(fields['error'])}")
    choices = _list(fields.get("choices"))
    if not choices:
        raise BadAnswer("its answer has no choices")
    message = _dict(choices[0].get("message"))
    text = message.get("content")
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in _list(text))
    usage = fields.get("usage")
    finish = choices[0].get("finish_reason")
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    return Said(
        text=text if isinstance(text, str) else "",
        reasoning=reasoning if isinstance(reasoning, str) else "",
        tool_calls=tuple(_list(message.get("tool_calls"))),
        finish_reason=finish if isinstance(finish, str) else None,
        annotations=tuple(_list(message.get("annotations"))),
        fields=fields,
        usage=(chat_usage.told(Raw(msgspec.json.encode(usage))) or NO_USAGE) if usage else NO_USAGE,
        pieces=1,
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadAnswer(f"its answer is not JSON of that kind: {_shown(data)}") from error


def _fields(data: bytes) -> dict[str, Raw]:
    """A body of ours, taken apart."""
    return msgspec.json.decode(data, type=dict[str, Raw])


def _may_be_billed(failure: BadAnswer | AttemptFailed) -> bool:
    """Whether somebody had the request and was at work on it, as far as is known."""
    if isinstance(failure, BadAnswer):
        return True
    cause = failure.__cause__
    sent = not (isinstance(cause, TimedOut) and cause.connecting)
    return failure.code in _WORKED and sent


def _list(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(value: object) -> str:
    """Something foreign, on one line, printable and not too long."""
    if isinstance(value, dict):
        value = value.get("message") or value
    text = _beginning(value) if isinstance(value, bytes) else str(value)
    return "".join(filter(str.isprintable, " ".join(text[:SHOWN].split())))[:_QUOTED]


def _beginning(body: bytes) -> str:
    """As much of it as is kept."""
    return body[:_BEGINNING].decode(errors="replace")[:SHOWN]


def _is_lost_in_thought(said: Said) -> bool:
    """Whether the limit came before it said anything but thoughts."""
    if said.finish_reason != "length" or said.tool_calls:
        return False
    return not said.text or ("<think>" in said.text and "</think>" not in said.text)


def _in_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """What is said to it last, and what it is to go on with, as far as it is text."""
    spoken = [one.get("content") for one in messages if one.get("role") == "user"]
    content = spoken[-1] if spoken else ""
    if isinstance(content, list):
        content = " ".join(str(part["text"]) for part in _list(content) if part.get("text"))
    begun = messages[-1] if messages and messages[-1].get("role") == "assistant" else None
    return str(content) if begun is None else f"{content} (the answer begins: {begun['content']})"
