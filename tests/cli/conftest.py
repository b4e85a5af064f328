from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.listing import Gateway, listing_gateway, unused_port


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with listing_gateway() as server:
        yield server


@pytest.fixture
def closed_port() -> Iterator[int]:
    with unused_port() as port:
        yield port


@pytest.fixture
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current one: no configuration but the test's own, and a proxy that nothing local may
    go through."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MANYWAYS_CONFIG", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path
