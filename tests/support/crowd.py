"""Many callers at the same moment, over sockets.

answers = crowd(company.urls, 1000, body, key)

with waiting_crowd(company.urls, 1000, body, key) as waiting:
    ...  # some are let in, and wait; `waiting.heard` are those who were refused
answers = waiting.heard
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

LIMIT = 60.0
"""Seconds that one request may take."""


class Heard(NamedTuple):
    """One answer of a crowd's. Names of headers are in lower case; `at` is when it was there,
    by the monotonic clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float = 0.0

    @property
    def code(self) -> str:
        """Of the error; empty for an answer."""
        if self.status == 200:
            return ""
        return str(json.loads(self.body)["error"]["code"])

    @property
    def retry_after(self) -> int:
        return int(self.headers["retry-after"])


class Crowd:
    """`count` chat requests, spread over gateways and keys. `heard` grows as they are answered."""

    def __init__(
        self, urls: Sequence[str], count: int, body: Mapping[str, Any], keys: Sequence[str]
    ) -> None:
        self.count = count
        self.heard: list[Heard] = []
        self._urls = urls
        self._body = body
        self._keys = keys

    def __repr__(self) -> str:
        return f"<Crowd of {self.count}, {len(self.heard)} answered>"

    async def ask(self) -> None:
        """Returns once all have heard. Raises `aiohttp.ClientError` where one is cut off."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=LIMIT)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self.count):
                group.create_task(self._one(session, number))

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        round_, place = divmod(number, len(self._urls))
        key = self._keys[round_ % len(self._keys)]
        self.heard.append(await chat(session, self._urls[place], key, self._body))


async def chat(
    session: aiohttp.ClientSession, url: str, key: str, body: Mapping[str, Any]
) -> Heard:
    """One chat request to the gateway at `url`, heard to the end."""
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        content = await answer.read()
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Heard(answer.status, told, content, time.monotonic())


def crowd(
    urls: Sequence[str], count: int, body: Mapping[str, Any], key: str | Sequence[str]
) -> list[Heard]:
    """What `count` chat requests heard that came at the same moment."""
    some = Crowd(urls, count, body, [key] if isinstance(key, str) else key)
    asyncio.run(some.ask())
    return some.heard


@contextlib.contextmanager
def waiting_crowd(
    urls: Sequence[str], count: int, body: Mapping[str, Any], key: str | Sequence[str]
) -> Iterator[Crowd]:
    """A crowd in a thread of its own. At the end of the `with`, all must hear their answers."""
    some = Crowd(urls, count, body, [key] if isinstance(key, str) else key)
    thread = threading.Thread(target=asyncio.run, args=(some.ask(),), name="crowd")
    thread.start()
    try:
        yield some
    finally:
        thread.join()
