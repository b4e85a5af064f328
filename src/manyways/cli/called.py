"""Commands to copy: a line that is shown should work where it is pasted.

Whoever installed the program into a folder of its own has called it `.venv/bin/manyways`, and no
`manyways` is known to the shell.
"""

import os
import shlex
import shutil
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Final

_NAME: Final = "manyways"

config: ContextVar[Path | None] = ContextVar("config", default=None)
"""The configuration file that this command was given, which the next one wants as well."""


def line(words: str) -> str:
    """`manyways` with these words behind it, called as this process was, and with its file."""
    file = config.get()
    option = "" if file is None else f" --config {shlex.quote(str(file))}"
    return f"{program()} {words}{option}"


def program() -> str:
    """What to write for the program, as a shell wants it."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == _NAME:
        return f"{_shortest(Path(sys.executable))} -m {_NAME}"
    return _shortest(called) if called.name == _NAME else _NAME


def _shortest(program: Path) -> str:
    """Its name, where the shell finds this very one by that; else the shorter of its paths."""
    absolute = os.path.abspath(program)  # noqa: PTH100 - resolved, a venv's Python were another one
    found = shutil.which(program.name)
    if found is not None and os.path.abspath(found) == absolute:  # noqa: PTH100 - as above
        return program.name
    try:
        relative = os.path.relpath(absolute)
    except (OSError, ValueError):  # the folder is gone; another drive
        relative = absolute
    if os.sep not in relative:  # a shell looks a bare name up elsewhere
        relative = f"{os.curdir}{os.sep}{relative}"
    return shlex.quote(min(relative, absolute, key=len))
