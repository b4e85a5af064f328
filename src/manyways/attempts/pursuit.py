"""Carries out a plan for one request, until the caller has an answer or there will be none.

Commands come from the plan, and what becomes of them goes back to it. Usually that is one
attempt after the other, in the request's own task. Only a race runs in tasks of its own.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import structlog
from msgspec import Raw, Struct

from manyways.attempts.assembled import AssembledReply
from manyways.attempts.reply import PatientReply, Reply
from manyways.attempts.streamed import StreamedAttempt
from manyways.attempts.tally import Tally
from manyways.attempts.whole import whole
from manyways.dialects import json_text
from manyways.dialects.openai_chat import (
    AnswerLabel,
    ChatStream,
    ResumedStream,
    Said,
    extra_messages,
    methods,
)
from manyways.dialects.openai_chat import usage as chat_usage
from manyways.dialects.openai_chat.request import ChatRequest
from manyways.errors import AttemptFailed, ManywaysError, Refusal, TransportError
from manyways.routing.commands import Cancel, Commands, GiveUp, Start, Wait
from manyways.routing.continuation import Method
from manyways.routing.plan import Plan
from manyways.routing.settings import Settings
from manyways.types import Model, Usage
from manyways.upstream.drain import Drains
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits, Response

KEEP_ALIVE_INTERVAL = 10.0
"""Seconds of silence after which a caller of a stream gets a comment."""
_REASON = 300
"""Letters of a failure's reason in the log: some providers repeat the whole prompt."""
ENDS_WITHIN = 5.0
"""Seconds in which a cancelled attempt has closed its connection."""

log = structlog.get_logger("manyways.attempts")


class Unanswered(ManywaysError):
    """Nobody gave the caller an answer; the plan knows who was asked."""

    def __init__(self, end: GiveUp) -> None:
        super().__init__(end.reason)
        self.end = end


class CallersReply(Reply, Protocol):
    """What a pursuit needs of a request besides the stream it may become."""

    id: str

    def answered_by(self, model: Model, attempts: int) -> None:
        """For the answer's headers and the log: who is asked for it."""
        ...

    async def answer(self, body: bytes) -> None:
        """A whole answer. Raises `CallerLeft`."""
        ...


class Means(Struct, frozen=True):
    """What every pursuit works with. `send_timeout` is how long a caller may not read, in
    seconds."""

    providers: Mapping[str, OpenAIProvider]
    settings: Settings
    send_timeout: float
    tally: Tally
    drains: Drains


class Pursuit:
    """One request on its way to an answer."""

    __slots__ = (
        "_deadline", "_events", "_joints", "_means", "_patient", "_plan", "_reply", "_request",
        "_said", "_streamed", "_target", "_tasks",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        request: ChatRequest,
        reply: CallersReply,
        means: Means,
        deadline: float,
    ) -> None:
        """`deadline` is a moment of `time.monotonic`."""
        self._plan = plan
        self._request = request
        self._reply = reply
        self._means = means
        self._deadline = deadline
        self._streamed = request.stream or means.settings.assemble
        assembled = self._streamed and not request.stream
        self._target: Reply = AssembledReply(reply) if assembled else reply
        self._patient: PatientReply | None = None
        self._events: ChatStream | ResumedStream | None = None  # the answer's, once it began
        self._said: Said | None = None  # what the caller has of a broken answer
        self._joints: list[dict[str, Any]] = []
        self._tasks: dict[asyncio.Task[Commands], int] = {}

    def __repr__(self) -> str:
        return f"<Pursuit {self._plan!r}>"

    async def run(self) -> None:
        """Returns behind a complete answer. Raises `Unanswered`, `CallerLeft`."""
        try:
            if self._streamed:
                interval = KEEP_ALIVE_INTERVAL if self._request.stream else math.inf
                first = self._means.settings.first_token_timeout
                send_timeout = self._means.send_timeout
                with PatientReply(self._target, interval, send_timeout, first) as patient:
                    self._patient = patient
                    await self._follow(self._plan.begin(time.monotonic()))
            else:
                await self._follow(self._plan.begin(time.monotonic()))
        finally:
            if not self._plan.over:
                self._plan.left(time.monotonic())
                self._means.tally.left += 1

    async def _follow(self, commands: Commands) -> None:
        """Do what the plan says, until it says nothing more."""
        while commands:
            command = commands[0]
            if len(commands) > 1:
                commands = await self._race(commands)
            elif isinstance(command, Start):
                commands = await self._attempt(command)
            elif isinstance(command, Wait):
                await asyncio.sleep(max(0.0, command.until - time.monotonic()))
                commands = self._plan.rang(time.monotonic())
            elif isinstance(command, GiveUp):
                if self._said is not None:
                    self._means.tally.cut += 1
                raise Unanswered(command)
            else:
                raise RuntimeError(f"nothing runs that {command} could end")

    async def _race(self, commands: Commands) -> Commands:
        """Several things at once: attempts, and the moment at which to look again."""
        ring_at: float | None = None
        try:
            while True:
                for command in commands:
                    if isinstance(command, Wait):
                        ring_at = command.until
                    elif isinstance(command, GiveUp):
                        return (command,)
                    else:
                        self._enter(command)
                if not self._tasks:
                    return () if ring_at is None or self._plan.over else (Wait(ring_at),)
                heard = await self._hear(ring_at)
                if heard is None:
                    ring_at = None
                    heard = self._plan.rang(time.monotonic())
                commands = heard
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=ENDS_WITHIN)
                self._tasks.clear()

    def _enter(self, command: Start | Cancel) -> None:
        if isinstance(command, Start):
            if self._tasks:
                self._means.tally.hedges += 1
            self._tasks[asyncio.create_task(self._attempt(command))] = command.attempt
        else:
            self._cancel(command)

    async def _hear(self, ring_at: float | None) -> Commands | None:
        """What follows from the attempts that have ended; `None` when the time was up first."""
        wait = None if ring_at is None else max(0.0, ring_at - time.monotonic())
        done, _ = await asyncio.wait(self._tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        commands: Commands = ()
        for task in done:
            del self._tasks[task]
            if not task.cancelled():
                commands += task.result()
        return commands

    def _cancel(self, command: Cancel) -> None:
        for task, attempt in self._tasks.items():
            if attempt == command.attempt:
                task.cancel()

    async def _attempt(self, start: Start) -> Commands:
        """One attempt, and what the plan makes of it."""
        plan = self._plan
        self._reply.answered_by(start.model, len(plan.attempts))
        provider = self._means.providers[start.model.provider]
        try:
            if self._streamed:
                await self._stream(start, provider)
            else:
                body = self._request.encode_for(start.model.upstream_id)
                answer, usage = await whole(
                    partial(self._ask, start, provider, body),
                    self._label(start),
                    connect_timeout=self._means.settings.connect_timeout,
                    seconds=start.limit,
                )
                if self._tasks:  # others are under way
                    self._won(start, plan.came)
                plan.attempts[start.attempt].usage = self._usage(start, usage, answer)
                self._reply.answered_by(start.model, len(plan.attempts))
                await self._reply.answer(answer)
        except AttemptFailed as failure:
            return self._lost(start, provider, failure)
        except Refusal as refusal:
            if self._streamed and not self._request.stream and _is_about_streams(refusal):
                unfit = AttemptFailed("unsuitable", refusal.message, status=refusal.status)
                return self._lost(start, provider, unfit)
            return plan.refused(start.attempt, refusal, time.monotonic())
        return plan.succeeded(start.attempt, time.monotonic())

    def _usage(self, start: Start, told: Raw | None, answer: bytes) -> Usage:
        """What a whole answer came to."""
        usage = chat_usage.told(told)
        if usage is not None and usage.completion_tokens:
            return usage
        model = start.model.id
        completion = chat_usage.answer_tokens(answer, model)
        if usage is not None and not completion:
            return usage
        return Usage(
            prompt_tokens=chat_usage.prompt_tokens(self._request.fields, model)
            if usage is None
            else usage.prompt_tokens,
            completion_tokens=completion,
            source="estimated",
        )

    async def _stream(self, start: Start, provider: OpenAIProvider) -> None:
        # Where the caller has a word to say about it, a refusal may be about that.
        ours = self._request.stream and "stream_options" not in self._request.fields
        try:
            await self._speak(start, provider, ask_usage=not ours or provider.tells_usage)
        except Refusal as refusal:
            if not (ours and provider.tells_usage and _is_about_usage(refusal)):
                raise
            # It was us who asked for it, and not the caller. Whether that was it, shows now.
            await self._speak(start, provider, ask_usage=False)
            provider.refused_usage()

    async def _speak(self, start: Start, provider: OpenAIProvider, *, ask_usage: bool) -> None:
        if self._patient is None:
            raise RuntimeError("a stream needs a reply that is kept alive")
        request, said = self._request, self._said
        asked = None if request.stream else True
        events: ChatStream | ResumedStream
        if start.method is None or said is None:
            events = ChatStream(
                self._label(start), request.choices, wants_usage=request.wants_usage
            )
            body = request.encode_for(
                start.model.upstream_id, stream=asked, include_usage=ask_usage
            )
        else:
            events = ResumedStream(
                self._label(start), said, start.method, wants_usage=request.wants_usage
            )
            more = extra_messages(said, start.method)
            body = request.encode_for(
                start.model.upstream_id, stream=asked, include_usage=ask_usage, add_messages=more
            )
        record = self._plan.attempts[start.attempt]
        record.speech = events
        now = asyncio.get_running_loop().time()
        attempt = StreamedAttempt(
            events,
            self._means.settings,
            first=max(0.001, start.limit - (time.monotonic() - record.began)),
            deadline=now + self._deadline - time.monotonic(),
            send_timeout=self._means.send_timeout,
            spoke=lambda: self._spoke(start, events),
        )
        await attempt.run(partial(self._ask, start, provider, body), self._patient, self._target)

    def _ask(
        self, start: Start, provider: OpenAIProvider, body: bytes, limits: Limits
    ) -> Awaitable[AbstractAsyncContextManager[Response]]:
        sending = provider.chat(body, limits, stream=self._streamed, credential=start.credential)
        if provider.drain:
            attempt = self._plan.attempts[start.attempt]
            hears = None if attempt.speech is None else attempt.speech.feed
            patience = self._means.settings.deadline
            return self._means.drains.ask(sending, patience, attempt, hears=hears)
        return sending

    def _spoke(self, start: Start, events: ChatStream | ResumedStream) -> None:
        """An attempt has something for the caller: the answer is its own from now on."""
        self._won(start, self._plan.spoke)
        self._events = events
        if start.method is not None:
            self._joints.append(self._joint(start))
            self._means.tally.continuations[start.method] += 1
        self._reply.answered_by(start.model, len(self._plan.attempts))

    def _won(self, start: Start, tell: Callable[[int, float], Commands]) -> None:
        """Tell the plan whose answer it is, and end all others."""
        if self._plan.attempts[start.attempt].outcome is not None:
            raise asyncio.CancelledError  # the plan has cancelled it, and its task is to hear it
        for command in tell(start.attempt, time.monotonic()):
            if isinstance(command, Cancel):
                self._cancel(command)
                if command.attempt < start.attempt:
                    self._means.tally.hedges_won += 1

    def _lost(self, start: Start, provider: OpenAIProvider, failure: AttemptFailed) -> Commands:
        """A failure, before or after the answer had begun."""
        failure.message = provider.redact(failure.message)
        now = time.monotonic()
        attempt = self._plan.attempts[start.attempt]
        if isinstance(failure.__cause__, TransportError | TimeoutError):
            provider.failing(failure.code, failure.__cause__)
        tell = log.error if failure.code == "credentials" else log.warning
        tell(
            "attempt failed",
            id=self._reply.id,
            model=start.model.id,
            provider=start.model.provider,
            key=provider.label(start.credential) if failure.code == "credentials" else None,
            code=failure.code,
            status=failure.status,
            reason=(failure.words or provider.redact(str(failure.__cause__ or failure)))[:_REASON],
            ms=round((now - attempt.began) * 1000),
        )
        if self._events is None or attempt.spoke_at is None:
            return self._plan.failed(start.attempt, failure, now)
        self._said = self._events.said()
        ways: tuple[Method, ...] = ()
        wanted = self._means.settings.continuation
        if wanted and failure.code != "too_large":  # nobody's would be smaller
            ways = methods(
                self._said,
                prefill=not self._request.ends_with_answer,  # two in a row would be odd
                best_effort=wanted == "best-effort" and not self._request.ends_with_answer,
                structured=self._request.structured,
            )
        return self._plan.broke(start.attempt, failure, ways, now)

    # What is written on the answer

    def _label(self, start: Start) -> AnswerLabel:
        model = start.model
        return AnswerLabel(
            model=model.id,
            provider=model.provider,
            id=f"chatcmpl-{self._reply.id.replace('-', '')}",
            created=int(time.time()),
            metadata=self._metadata(start),
        )

    def _metadata(self, start: Start) -> Raw | None:
        """What an answer tells of its making, where that was more than asking whom was meant."""
        original = self._plan.original
        here = start.model
        if start.method is None and _same(here, original):
            return None
        made = self._plan.attempts[: start.attempt + 1]
        metadata: dict[str, Any] = {
            "original_model": original.id,
            "original_provider": original.provider,
            "fallback_attempts": sum(not _same(one.model, original) for one in made),
        }
        if start.method is not None:
            metadata["continuations"] = [*self._joints, self._joint(start)]
        return json_text.raw(metadata)

    def _joint(self, start: Start) -> dict[str, Any]:
        return {
            "model": start.model.id,
            "provider": start.model.provider,
            "method": start.method,
        }


def _is_about_streams(refusal: Refusal) -> bool:
    """Whether a provider dislikes what nobody but us has asked for."""
    return refusal.param == "stream" or "stream_options" in f"{refusal.param} {refusal.message}"


def _is_about_usage(refusal: Refusal) -> bool:
    return "stream_options" in f"{refusal.param} {refusal.message}"


def _same(one: Model, other: Model) -> bool:
    return one.id == other.id and one.provider == other.provider
