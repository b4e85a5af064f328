"""The gateway as its users run it: a process of its own, on a free port, asked over sockets.

with running_gateway(tmp_path, provider(wall.url)) as gateway:
    answer = gateway.chat({"model": "test-model", "messages": [...]})
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_LIMIT = 30.0
COUNTS = "[keys.types.counted]\nquota = 1_000_000_000\n"
"""A configuration with which the tokenizer is loaded at the start, and not when it is needed
first: that stops everybody for a third of a second, which tests of time limits would notice."""
UNASKED = "\n[catalog]\nprobe = false\n"
TRANSPORT = os.environ.get("TRANSPORT", "")
"""What gateways reach their providers over, where a test leaves it open: `TRANSPORT=native`."""
STOP_LIMIT = 20.0


def provider(url: str, *models: str, name: str = "Test", extra: str = "") -> str:
    """A `[[providers]]` table for an OpenAI-speaking server at `url` (without `/v1`)."""
    listed = "".join(f'[[providers.models]]\nid = "{model}"\n' for model in models or ("m",))
    return (
        f'[[providers]]\nname = "{name}"\nprotocol = "openai"\nbase_url = "{url}/v1"\n'
        f'api_key = "provider-secret"\n{extra}\n{listed}'
    )


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The payloads of a stream's events, JSON decoded but for `[DONE]`."""
        found: list[Any] = []
        for line in self.body.decode().splitlines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
        return found

    def chunks(self) -> list[Any]:
        """The events of a stream that are chunks of an answer: no error, no `[DONE]`."""
        return [event for event in self.events() if event != "[DONE]" and "error" not in event]

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def text(self) -> str:
        """What the first choice says, streamed or whole; `""` where this is an error."""
        if self.status != 200:
            return ""
        if not self.streamed:
            return str(self.json()["choices"][0]["message"]["content"])
        return "".join(
            choice["delta"].get("content") or ""
            for chunk in self.chunks()
            for choice in chunk["choices"]
            if choice.get("index", 0) == 0
        )

    @property
    def error(self) -> Any:
        """The error: of the answer, or the one that ended a stream; `None` without one."""
        if not self.streamed:
            return self.json().get("error") if self.status != 200 else None
        errors = [event["error"] for event in self.events() if "error" in event]
        return errors[-1] if errors else None

    @property
    def metadata(self) -> Any:
        """`_metadata` of a whole answer or of a stream's last chunk, `{}` without one."""
        last = self.chunks()[-1] if self.streamed else self.json()
        return last.get("_metadata") or {}


@dataclass
class Gateway:
    """A running gateway. `key` is its admin key, `log` what it wrote on stderr so far."""

    process: subprocess.Popen[str]
    directory: Path
    base_url: str = ""
    key: str = ""
    welcome: str = ""
    log: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        """The address without the mount."""
        return self.base_url.removesuffix("/v1")

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        key: str | None = "",
        timeout: float = 30.0,
    ) -> Answer:
        """Ask `path` below the root. `body` is JSON, or bytes as they are; `key=None`: none."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        out = dict(headers or {})
        if data is not None:
            out.setdefault("Content-Type", "application/json")
        if key is not None:
            out.setdefault("Authorization", f"Bearer {key or self.key}")
        request = urllib.request.Request(  # noqa: S310  (loopback)
            self.root + path, data=data, headers=out, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
                return Answer(response.status, _headers(response), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _headers(error), error.read())

    def chat(self, body: Any, **how: Any) -> Answer:
        """`POST /v1/chat/completions`."""
        return self.ask("/v1/chat/completions", body, **how)

    def begin(self, body: Any) -> socket.socket:
        """A chat request on a connection of its own, sent but not read: to leave, or to dawdle."""
        host, port = self.root.removeprefix("http://").split(":")
        data = json.dumps(body).encode()
        request = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        caller = socket.create_connection((host, int(port)), timeout=20)
        caller.sendall(request.encode() + data)
        return caller

    def logged(self, *parts: str, since: int = 0, limit: float = 5.0) -> str:
        """The first line of the log, behind the first `since`, that has all of these parts.

        Raises `AssertionError` when there is none within `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            for line in self.log[since:]:
                if all(part in line for part in parts):
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line of the log has {parts}: {self.log[since:]}")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `manyways` command beside the server, with the same configuration."""
        return run_command(self.directory, *arguments)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT)


def run_command(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `manyways ...` in `directory` to its end, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "manyways", *arguments],
        cwd=directory,
        env=_environment(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def running_gateway(
    directory: Path,
    config: str = "",
    *arguments: str,
    env: Mapping[str, str] | None = None,
    key: str = "",
) -> Iterator[Gateway]:
    """`manyways serve` in `directory`, with `config` as its `manyways.toml`; stopped at the end.

    Models are not verified unasked, unless `config` has a section `[catalog]`. `key` is an admin
    key that is known already: a second gateway on a database shows none.
    Raises `RuntimeError` with its log when it does not start.
    """
    if "[catalog]" not in config:
        config += UNASKED
    if TRANSPORT and "[upstream]" not in config:
        config += f'\n[upstream]\ntransport = "{TRANSPORT}"\n'
    (directory / "manyways.toml").write_text(config)
    if key:
        (directory / "key").write_text(key)
    process = subprocess.Popen(
        [sys.executable, "-m", "manyways", "serve", "--port", "0", *arguments],
        cwd=directory,
        env=_environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    gateway = Gateway(process, directory)
    assert process.stdout is not None
    assert process.stderr is not None
    listening = threading.Event()

    def read_log() -> None:
        assert process.stderr is not None
        for line in _each(process.stderr):
            gateway.log.append(line)

    def read_output() -> None:
        assert process.stdout is not None
        for line in _each(process.stdout):
            gateway.welcome += line
            words = line.split()
            if line.startswith("Manyways is listening on "):
                gateway.base_url = words[-1]
            if line.startswith("rvf_"):
                gateway.key = words[0]
            if gateway.base_url and (gateway.key or (directory / "key").exists()):
                listening.set()
        listening.set()

    readers = [threading.Thread(target=read) for read in (read_log, read_output)]
    for reader in readers:
        reader.start()
    try:
        if not listening.wait(START_LIMIT) or not gateway.base_url:
            raise RuntimeError("the gateway did not start:\n" + "".join(gateway.log))
        remembered = directory / "key"
        if gateway.key:
            remembered.write_text(gateway.key)
        else:
            gateway.key = remembered.read_text()
        yield gateway
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            for reader in readers:
                reader.join()
            process.stdout.close()
            process.stderr.close()


def _headers(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _each(pipe: Any) -> Iterator[str]:
    yield from iter(pipe.readline, "")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MANYWAYS")}
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}
