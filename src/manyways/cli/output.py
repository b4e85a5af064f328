"""Standard output, which can be full, closed, or a pipe that nobody reads any more."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal

import msgspec
import typer

from manyways.errors import ManywaysError

_UNWRITABLE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF}
)


class OutputFailed(ManywaysError):
    """What was to be shown has not been: standard output is missing or fails."""


def write(text: str) -> None:
    """Write all of it, now. Raises `OutputFailed`."""
    if sys.stdout is None:  # the shell's >&- leaves us none
        raise OutputFailed("Standard output is closed; there is nowhere to show anything.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise OutputFailed(_words(error)) from error


def document(content: object) -> None:
    """Print `content` as one JSON document."""
    typer.echo(json(content), nl=False)


def json(content: object) -> str:
    """`content` as it is printed: indented, ending with a line's end."""
    return msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"


def quiet_log(level: Literal["warning", "error"] = "warning") -> None:
    """For commands that do a gateway's work: what is worth a warning (an error) is told beside
    standard output, the rest is not."""
    from manyways import logs

    logs.configure(logs.Settings(level=level), sys.stderr)


@contextmanager
def guarded() -> Iterator[None]:
    """Around a whole command: output that fails ends it with a plain line and status 1, and a
    letter that the terminal's encoding lacks does not end it at all.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except OutputFailed as error:
        _end(str(error))
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        _end(_words(error))
    finally:
        if _unwritten():  # and not to be tried again at exit
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1)
                os.close(nowhere)


def _end(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    raise SystemExit(1) from None


def _unwritten() -> bool:
    """Whether something waits to be written, and cannot be."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False


def _words(error: OSError | ValueError) -> str:
    return f"Standard output cannot be written: {getattr(error, 'strerror', None) or error}."
