"""A clock that a test sets, in a process that it has started.

clock = Clock(tmp_path / "clock")
with running_gateway(tmp_path, config, env=clock.env) as gateway:
    clock.forward(3600)         # an hour later, for `time.time()` there
"""

import struct
from pathlib import Path


class Clock:
    """Runs ahead of the real one by some seconds, kept in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ahead = 0.0
        file.write_bytes(struct.pack("d", 0.0))

    def __repr__(self) -> str:
        return f"<Clock {self._ahead:g} s ahead>"

    @property
    def env(self) -> dict[str, str]:
        """With which a Python process runs by this clock."""
        return {"PYTHONPATH": str(Path(__file__).parent), "CLOCK_AHEAD": str(self._file)}

    def forward(self, seconds: float) -> None:
        """So much later, at once."""
        self._ahead += seconds
        with self._file.open("r+b") as file:  # in place: it is mapped into memory
            file.write(struct.pack("d", self._ahead))
