"""`GET /readyz`: 200 while requests can be served, whatever else is amiss."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from manyways.catalog.catalog import Catalog
from manyways.catalog.settings import Settings as CatalogSettings
from manyways.edge.readiness import ReadinessPage
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings
from manyways.store.shared import Shared
from manyways.types import ModelEntry, Provider
from manyways.usage.journal import Journal
from manyways.usage.ledger import Ledger
from manyways.usage.settings import Settings, WhenFull
from tests.edge.pages import Page, ask, edge
from tests.support.records import record
from tests.support.valkey import running_valkey


async def _nobody(provider: Provider) -> bytes:
    raise AssertionError(f"{provider.name} is not asked")


class Gateway:
    """What the page tells of."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        *,
        models: int,
        full: WhenFull,
        shared: Shared | None = None,
    ) -> None:
        entries = tuple(ModelEntry(id=f"m{number}") for number in range(models))
        listed = (Provider(name="Capi", protocol="openai", models=entries),) if models else ()
        self.journal = Journal(folder / "journal", Settings(when_full=full))
        self.page = ReadinessPage(
            Catalog(CatalogSettings(), listed, _nobody),
            journal=self.journal,
            ledger=Ledger(self.journal, database),
            shared=shared,
        )

    async def ask(self) -> Page:
        return await ask(edge({"/readyz": self.page.ready}), "/readyz")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/gate.db"))
    yield database
    database.close()


@contextmanager
def small_files() -> Iterator[None]:
    """No file can grow beyond a hundred bytes: to whoever writes, the disk is full. The file
    that catches the log is one, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with structlog.testing.capture_logs():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_all_is_well(tmp_path: Path, database: Database) -> None:
    page = await Gateway(tmp_path, database, models=2, full="refuse").ask()
    assert page.status == 200
    assert page.json() == {
        "status": "ready",
        "models": 2,
        "usage": {"backlog": 0, "oldest_s": 0.0, "unwritten": 0},
    }


async def test_without_models_it_is_not_ready(tmp_path: Path, database: Database) -> None:
    page = await Gateway(tmp_path, database, models=0, full="refuse").ask()
    assert (page.status, page.json()["status"]) == (503, "no models")
    assert page.headers["retry-after"] == "1"


async def test_a_backlog_is_told_and_no_reason_to_send_callers_elsewhere(
    tmp_path: Path, database: Database
) -> None:
    gateway = Gateway(tmp_path, database, models=1, full="refuse")
    gateway.journal.open()
    for _ in range(3):
        gateway.journal.write(record())
    page = await gateway.ask()
    gateway.journal.close()
    assert page.status == 200
    assert page.json()["usage"]["backlog"] in range(1, 6), "about three"


@pytest.mark.parametrize(
    ("full", "status", "words"),
    [("refuse", 503, "records cannot be written"), ("go-on", 200, "ready")],
)
async def test_records_that_cannot_be_written(
    tmp_path: Path, database: Database, full: WhenFull, status: int, words: str
) -> None:
    gateway = Gateway(tmp_path, database, models=1, full=full)
    gateway.journal.open()
    with small_files():
        gateway.journal.write(record())
        page = await gateway.ask()
    gateway.journal.close()
    assert (page.status, page.json()["status"]) == (status, words)
    assert page.json()["usage"]["unwritten"] == 1


@pytest.mark.process
@pytest.mark.parametrize("there", [True, False])
async def test_redis_away_is_told_and_it_is_ready_all_the_same(
    tmp_path: Path, database: Database, there: bool
) -> None:
    with running_valkey(tmp_path) as valkey:
        url = valkey.url
        if not there:
            valkey.kill()
        shared = await Shared.open(url)
        try:
            page = await Gateway(tmp_path, database, models=1, full="refuse", shared=shared).ask()
        finally:
            await shared.aclose()
    assert (page.status, page.json()["redis"]) == (200, "connected" if there else "away")
