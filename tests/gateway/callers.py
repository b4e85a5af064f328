"""Callers of every kind, who go on whatever happens to the gateway, and keep what they heard."""

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple

import aiohttp

from tests.support.chat_wall import JSON_TYPE, WORDS, ChatWall, Speech
from tests.support.wall import Close, Pause, Request, Script, whole

PATIENCE: Final = 30.0
"""Seconds after which an answer that does not end is a failure of the gateway."""
LARGE: Final = 300_000
"""Letters of a large answer: it leaves in several parts."""
_SPEECHES: Final = [Speech(words=tuple(WORDS[:count])) for count in range(len(WORDS) + 1)]
_GONE: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)

Body = dict[str, Any]


class Answered(NamedTuple):
    """An answer whose last byte came. `name` is the caller's own id for it; `tokens` are those
    of the prompt and of the answer, where it is known how many they were; `seconds` is what it
    took."""

    id: str
    name: str
    kind: str
    status: int
    attempts: int | None
    tokens: tuple[int, int] | None
    seconds: float


def _chat(model: str, count: int = 1, **more: object) -> Body:
    alone = {"allow_fallbacks": False}
    message = {"role": "user", "content": f"{count} words"}
    return {"model": model, "messages": [message], "provider": alone, **more}


@dataclass(frozen=True)
class Kind:
    """Of a request: what is sent for an answer of so many words, and what may be heard.
    `leaves` after so many pieces of the answer. What is `rare` comes a hundredth as often: only so
    many wrong requests of a key have rows of their own."""

    make: Callable[[int], Body | bytes]
    statuses: frozenset[int] = frozenset({200})
    told: bool = False
    leaves: int | None = None
    limited: bool = False
    rare: bool = False


_USAGE: Final = {"stream_options": {"include_usage": True}}
KINDS: Final[Mapping[str, Kind]] = {
    "whole": Kind(lambda n: _chat("m", n), told=True),
    "large": Kind(lambda n: _chat("large", n), told=True),
    "stream": Kind(lambda n: _chat("m", n, stream=True), told=True),
    "stream that tells": Kind(lambda n: _chat("m", n, stream=True, **_USAGE), told=True),
    "fallback": Kind(
        lambda n: {**_chat("busy", n), "models": ["busy", "m"], "provider": {}}, told=True
    ),
    "cut": Kind(lambda n: _chat("cut", n, stream=True)),
    "busy": Kind(lambda n: _chat("busy", n), statuses=frozenset({503})),
    "wrong": Kind(lambda n: _chat("wrong", n), statuses=frozenset({400})),
    "no JSON": Kind(lambda _: b'{"model": "m"', statuses=frozenset({400}), rare=True),
    "nobody's": Kind(lambda n: _chat("unheard-of", n), statuses=frozenset({404}), rare=True),
    "limited": Kind(lambda n: _chat("m", n), statuses=frozenset({200, 429}), limited=True),
    "leaves at once": Kind(lambda n: _chat("slow", n), leaves=0),
    "leaves a stream": Kind(lambda n: _chat("slow", n, stream=True), leaves=2),
}
_BEFORE_THE_KEY: Final = (b'"shutting_down"', b'"server_error"')
"""503s while nobody knows whose key it is: the gateway stops, or cannot look it up in time."""
_WEIGHTS: Final = [1 if kind.rare else 100 for kind in KINDS.values()]
MODELS: Final = ("m", "large", "busy", "cut", "wrong", "slow")


def set_up(wall: ChatWall) -> None:
    """Have a wall answer all of them."""
    wall.models.update(
        {
            "m": lambda request: _speech(request)(request),
            "large": _large,
            "busy": whole(b'{"error": {"message": "busy"}}', 503, JSON_TYPE),
            "wrong": whole(b'{"error": {"message": "no"}}', 400, JSON_TYPE),
            "cut": lambda request: _speech(request).begun(_count(request), Close()),
            "slow": _slow,
        }
    )


def _count(request: Request) -> int:
    return int(json.loads(request.body)["messages"][0]["content"].split()[0])


def _speech(request: Request) -> Speech:
    return _SPEECHES[_count(request)]


def _large(request: Request) -> Script:
    said = json.loads(_speech(request).whole)
    said["choices"][0]["message"]["content"] = "x" * LARGE
    return whole(json.dumps(said).encode(), 200, JSON_TYPE)


def _slow(request: Request) -> Script:
    first, *rest = _speech(request)(request)
    paused = ((Pause(0.05), step) for step in rest)
    return (Pause(0.1), first, *itertools.chain.from_iterable(paused))


class Callers:
    """`count` of them, each with one request at a time, in a thread of their own."""

    def __init__(self, count: int, chance: Random) -> None:
        self.answered: list[Answered] = []
        self.sent: set[str] = set()
        """The callers' own ids of all requests that were sent, or nearly."""
        self.failures: list[str] = []
        """What no caller should have heard."""
        self._count = count
        self._chance = chance
        self._url = ""
        self._keys = ("", "")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: asyncio.Event | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<Callers {len(self.sent)} sent, {len(self.answered)} answered>"

    def begin(self, url: str, key: str, limited: str) -> None:
        """Ask there from now on, with a key and one that is limited."""
        self._url, self._keys = url, (key, limited)
        self._tell(True)

    def stop(self) -> None:
        """Begin nothing more."""
        self._tell(False)

    def _tell(self, go: bool) -> None:
        assert self._loop is not None
        assert self._asked is not None
        self._loop.call_soon_threadsafe(self._asked.set if go else self._asked.clear)

    async def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        ready.set()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._count):
                group.create_task(self._call(session, number))

    async def _call(self, session: aiohttp.ClientSession, number: int) -> None:
        assert self._asked is not None
        for turn in itertools.count():
            await self._asked.wait()
            if self._over:
                return
            (kind,) = self._chance.choices(list(KINDS), _WEIGHTS)
            try:
                await self._ask(session, f"{number}-{turn}", kind)
            except TimeoutError:
                self.failures.append(f"{kind}: no end within {PATIENCE:g} s")
            except _GONE:
                await asyncio.sleep(0.01)

    async def _ask(self, session: aiohttp.ClientSession, name: str, what: str) -> None:
        kind, count = KINDS[what], self._chance.randint(1, len(WORDS))
        body = kind.make(count)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Authorization": f"Bearer {self._keys[kind.limited]}",
            "X-Client-Request-Id": name,
        }
        self.sent.add(name)
        url = f"{self._url}/v1/chat/completions"
        began = time.monotonic()
        if kind.leaves == 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.0, 0.1)):
                    async with session.post(url, data=data, headers=headers):
                        pass
            return
        async with session.post(url, data=data, headers=headers) as answer:
            heard = b""
            pieces = 0
            streamed = answer.content_type == "text/event-stream"
            with contextlib.suppress(*_GONE) if streamed else contextlib.nullcontext():
                async for piece in answer.content.iter_any():
                    heard += piece
                    pieces += 1
                    if pieces == kind.leaves:
                        answer.close()
                        return
            if streamed and not _ended(heard):
                return
        if answer.status == 503 and any(code in heard for code in _BEFORE_THE_KEY):
            return
        if answer.status not in kind.statuses:
            self.failures.append(f"{what}: {answer.status} {heard[-300:]!r}")
        told = _told(heard, streamed=streamed)
        tokens = (3, count) if answer.status == 200 and (kind.told or kind.limited) else None
        if told is not None and told != tokens:
            self.failures.append(f"{what}: told {told}, not {tokens}")
        attempts = answer.headers.get("X-Manyways-Attempts")
        self.answered.append(
            Answered(
                id=answer.headers["X-Request-Id"],
                name=name,
                kind=what,
                status=answer.status,
                attempts=None if attempts is None else int(attempts),
                tokens=tokens,
                seconds=time.monotonic() - began,
            )
        )


def _events(heard: bytes) -> Sequence[bytes]:
    return [line[6:] for line in heard.split(b"\n") if line.startswith(b"data: ")]


def _ended(heard: bytes) -> bool:
    """Whether a stream came to its end, its `[DONE]` or an error."""
    last = _events(heard)[-1:]
    return heard.endswith(b"\n\n") and (
        last == [b"[DONE]"] or any(event.startswith(b'{"error"') for event in last)
    )


def _told(heard: bytes, *, streamed: bool) -> tuple[int, int] | None:
    """The usage that an answer tells."""
    if not streamed:
        answer = json.loads(heard)
        usage = answer.get("usage")
    else:
        chunks = [json.loads(event) for event in _events(heard) if event != b"[DONE]"]
        usage = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
    return None if usage is None else (usage["prompt_tokens"], usage["completion_tokens"])


@contextlib.contextmanager
def calling(count: int, chance: Random) -> Iterator[Callers]:
    """They wait until they are told to `begin`."""
    callers = Callers(count, chance)
    ready = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(callers._run(ready),), name="callers")
    thread.start()
    ready.wait()
    try:
        yield callers
    finally:
        callers._over = True
        callers._tell(True)
        thread.join()
