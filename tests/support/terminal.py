"""A command on a terminal of its own, typed at and read as a person would.

with Terminal(folder, "chat", "--model", "m") as terminal:
    terminal.expect("›")
    terminal.keys("Hello\r")
    assert terminal.wait() == 0
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

INTERRUPT = "\x03"
END = "\x04"

# A process must make the terminal its own for Ctrl-C to reach it.
_PROGRAM = (
    "import fcntl, runpy, sys, termios;"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "runpy.run_module('manyways', run_name='__main__', alter_sys=True)"
)
_ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\))")


class Terminal:
    """`manyways ...` on a pseudo-terminal, 80 columns wide. What is still to be expected is
    what came after the text that was expected last."""

    def __init__(
        self, directory: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        kept = {name: value for name, value in os.environ.items() if "MANYWAYS" not in name}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=directory,
            env={**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.raw = b""
        self._seen = 0

    def __repr__(self) -> str:
        return f"<Terminal {self.process.args!r}>"

    @property
    def text(self) -> str:
        """All that has been shown, without colours and movements."""
        return _ESCAPES.sub(b"", self.raw).decode(errors="replace")

    def keys(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def expect(self, text: str, seconds: float = 20.0) -> str:
        """Read until `text` is shown; returns what came before it. Raises `AssertionError`."""
        until = time.monotonic() + seconds
        while (found := self.text.find(text, self._seen)) < 0:
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"{text!r} is not in {self.text[self._seen :]!r}")
        before = self.text[self._seen : found]
        self._seen = found + len(text)
        return before

    def insist(self, keys: str, text: str) -> None:
        """Press until `text` is shown: between showing a prompt and listening, Python's line
        editing is deaf to Ctrl-C. Raises `AssertionError` after ten times."""
        for _ in range(9):
            self.keys(keys)
            try:
                self.expect(text, 2.0)
            except AssertionError:
                continue
            return
        self.keys(keys)
        self.expect(text, 2.0)

    def wait(self, seconds: float = 20.0) -> int:
        """Read to the end; returns the exit status."""
        until = time.monotonic() + seconds
        while self._read(until - time.monotonic()):
            pass
        return self.process.wait(max(0.1, until - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """Whether anything more came."""
        if not select.select([self._ours], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # how Linux says that nobody has the terminal any more
            return False
        self.raw += data
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
