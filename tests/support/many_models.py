"""Many providers with many models each, in a process of their own: they can do all that
verification asks of chat models, and write down what they were asked.

    with many_models(providers=8, each=15, latency=0.02) as many:
        many.config(pause=0.02)    # tables of a configuration
        many.account()             # what was asked so far

Run as `python -m tests.support.many_models --latency S`, it prints its port. Each provider is a
path on it. It speaks HTTP/1.1 with keep-alive, and as much of it as the gateway does.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from manyways.verification.quality import TASKS
from tests.support.asked import chat, chunks
from tests.support.honest import honest_chat
from tests.verification.quality.right import RIGHT

CAPABILITIES: Final = ("streaming", "tools", "json_schema", "prefill")
CHECKS: Final = ("answers", *CAPABILITIES, *(f"task:{task.id}" for task in TASKS))
"""What each of the models is asked, a request each."""
_ROOT: Final = Path(__file__).parents[2]
_START_LIMIT: Final = 30.0
_TASKS: Final = {task.prompt: task.id for task in TASKS}
_JSON: Final = b"application/json"
_EVENTS: Final = b"text/event-stream"


class Asked(msgspec.Struct, array_like=True):
    """One request: when it came, in seconds of the system's monotonic clock, whom it was for, which
    check it is of, what distinguishes it from others, and whether its answer was sent."""

    at: float
    provider: str
    model: str
    check: str
    digest: str
    answered: bool = False

    @property
    def name(self) -> tuple[str, str, str]:
        return self.provider, self.model, self.check


class ManyModels(NamedTuple):
    """Where they are, and how many."""

    url: str
    providers: int
    each: int
    pid: int

    @property
    def names(self) -> list[tuple[str, str]]:
        """All models, as (provider, id)."""
        return [(f"P{p}", f"m{m}") for p in range(self.providers) for m in range(self.each)]

    def config(self, *, pause: float, concurrency: int = 16, more: str = "") -> str:
        """A configuration with all of them, to be verified on demand; `more` of `[catalog]`."""
        capabilities = json.dumps(CAPABILITIES)
        catalog = (
            f"[catalog]\nprobe = false\nprobe_pause = {pause}\n"
            f"probe_concurrency = {concurrency}\n{more}\n"
        )
        tables = [catalog]
        for provider in range(self.providers):
            tables.append(
                f'[[providers]]\nname = "P{provider}"\nprotocol = "openai"\n'
                f'base_url = "{self.url}/P{provider}/v1"\napi_key = "k"\n'
            )
            tables += [
                f'[[providers.models]]\nid = "m{one}"\ncategory = "text"\n'
                f"capabilities = {capabilities}\n"
                for one in range(self.each)
            ]
        return "\n".join(tables)

    def account(self) -> list[Asked]:
        """All requests so far, in their order."""
        return msgspec.json.decode(self._get("/account"), type=list[Asked])

    def requests(self) -> int:
        """How many there were so far."""
        return int(self._get("/count"))

    def has_asked(self, count: int) -> bool:
        """Whether there were so many."""
        return self.requests() >= count

    def settled(self, pause: float = 0.3) -> list[Asked]:
        """The account, once nobody asks any more."""
        before = -1
        while before != (now := self.requests()):
            before = now
            time.sleep(pause)
        return self.account()

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30.0) as answer:  # noqa: S310
            return cast("bytes", answer.read())


@contextlib.contextmanager
def many_models(*, providers: int, each: int, latency: float) -> Iterator[ManyModels]:
    """They run until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.many_models", "--latency", str(latency)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield ManyModels(f"http://127.0.0.1:{port}", providers, each, process.pid)
        finally:
            process.terminate()
            process.wait(_START_LIMIT)


def check_of(fields: dict[str, Any]) -> str:
    """Which check a request is of."""
    *_, last = fields["messages"]
    prompt = last["content"]
    if isinstance(prompt, str) and prompt in _TASKS:
        return f"task:{_TASKS[prompt]}"
    if last["role"] == "assistant":
        return "prefill"
    for field, check in (("tools", "tools"), ("response_format", "json_schema")):
        if field in fields:
            return check
    return "streaming" if fields.get("stream") else "answers"


def answer(fields: dict[str, Any], check: str) -> tuple[bytes, bytes]:
    """The body of the right answer, and its type."""
    kind, _, task = check.partition(":")
    message = {"content": RIGHT[task][0]} if kind == "task" else honest_chat(fields)
    if fields.get("stream"):
        pieces = (f"{word}, " for word in message["content"].split(", "))
        return b"".join(chunks(*pieces)), _EVENTS
    return chat(message.pop("content"), **message), _JSON


class _Connection(asyncio.Protocol):
    """Requests of one connection, one at a time."""

    def __init__(self, account: list[Asked], latency: float) -> None:
        self._account = account
        self._latency = latency
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = self._received[:end].lower()
        _, _, length = head.partition(b"content-length:")
        whole = end + int(length.split(b"\r\n", 1)[0] or 0)
        if len(self._received) < whole:
            return
        body = self._received[end:whole]
        method, path, *_ = self._received[:end].split(b" ", 2)
        self._received = self._received[whole:]
        if method == b"GET":
            self._send(self._looked_up(path.decode()), _JSON)
        else:
            self._chat(path.decode(), body)

    def _looked_up(self, path: str) -> bytes:
        match path:
            case "/account":
                return msgspec.json.encode(self._account)
            case "/count":
                return b"%d" % len(self._account)
        return b'{"object": "list", "data": []}'

    def _chat(self, path: str, body: bytes) -> None:
        fields = json.loads(body)
        check = check_of(fields)
        asked = Asked(
            time.monotonic(),
            path.split("/")[1],
            fields["model"],
            check,
            hashlib.sha256(body).hexdigest()[:16],
        )
        self._account.append(asked)

        def say() -> None:
            if not self._transport.is_closing():
                asked.answered = True
                self._send(*answer(fields, check))

        asyncio.get_running_loop().call_later(self._latency, say)

    def _send(self, body: bytes, kind: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (kind, len(body)) + body)


async def _serve(latency: float) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    account: list[Asked] = []
    server = await loop.create_server(
        lambda: _Connection(account, latency), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--latency", type=float, required=True)
    asyncio.run(_serve(parser.parse_args().latency))


if __name__ == "__main__":
    main()
