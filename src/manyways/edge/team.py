"""The metrics of several workers behind one socket: whoever is asked tells those of all.

Each writes its own page into a shared folder every few seconds, and whenever it is asked, before
it answers. Each sample of the common page carries the number of its worker: so none of them ever
counts backwards, whoever is asked, and a worker that was replaced begins anew as any process does.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

INTERVAL: Final = 2.0
"""Seconds between two times that a page is written."""
STALE: Final = 10.0
"""Seconds after which a page says nothing any more: its worker is gone."""
_SUFFIX: Final = ".metrics"

log = structlog.get_logger("manyways")


class Team:
    """One worker's place among the others. `number` counts from 1; `name` is what those that
    one parent has started have in common, as others may use the same folder."""

    def __init__(self, folder: Path, number: int, name: str) -> None:
        self._folder = folder
        self._number = number
        self._name = name
        self._mine = folder / f"{name}-{number}{_SUFFIX}"
        self._turn = asyncio.Lock()  # an older page must not be written over a newer one
        self._trouble = False

    def __repr__(self) -> str:
        return f"<Team {self._name} in {self._folder}, as {self._number}>"

    async def follow(self, page: Callable[[], Awaitable[bytes]]) -> None:
        """Write our page again and again, until cancelled; then take it away. A disk that is
        full is tried again."""
        try:
            await asyncio.to_thread(_clear, self._folder)
            while True:
                await self.tell(page)
                await asyncio.sleep(INTERVAL)
        finally:
            with contextlib.suppress(OSError):
                self._mine.unlink()

    async def tell(self, page: Callable[[], Awaitable[bytes]]) -> bytes:
        """Our page as it is now. The others, when they are asked, will not tell less of us."""
        async with self._turn:
            written = await page()
            try:
                await asyncio.to_thread(_replace, self._mine, written)
                self._trouble = False
            except OSError as error:
                if not self._trouble:
                    log.warning("metrics are not told to other workers", reason=error.strerror)
                self._trouble = True
            return written

    def together(self, mine: bytes) -> bytes:
        """The common page: ours, as it is now, and the others' as they wrote it last."""
        from prometheus_client import generate_latest
        from prometheus_client.core import Metric
        from prometheus_client.parser import text_string_to_metric_families
        from prometheus_client.registry import Collector

        families: dict[str, Metric] = {}
        pages = {self._number: mine, **dict(self._others())}
        for number, page in sorted(pages.items()):
            for family in text_string_to_metric_families(page.decode()):
                common = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                common.samples += [
                    sample._replace(labels={**sample.labels, "worker": str(number)})
                    for sample in family.samples
                ]

        class All(Collector):
            def collect(self) -> Iterator[Metric]:
                yield from families.values()

        return generate_latest(All())

    def _others(self) -> Iterator[tuple[int, bytes]]:
        for file in self._folder.glob(f"{self._name}-*{_SUFFIX}"):
            number = int(file.stem.rpartition("-")[2])
            with contextlib.suppress(OSError):
                if number != self._number and _age(file) < STALE:
                    yield number, file.read_bytes()


def _replace(file: Path, content: bytes) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}{_SUFFIX}.new")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _clear(folder: Path) -> None:
    """What workers that were killed have left."""
    for file in (*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*{_SUFFIX}.new")):
        with contextlib.suppress(OSError):
            if _age(file) > STALE:
                file.unlink()


def _age(file: Path) -> float:
    return time.time() - file.stat().st_mtime
