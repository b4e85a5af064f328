from collections.abc import Iterator

import pytest

from tests.app.life import World
from tests.support.databases import database, database_url
from tests.support.virtual_time import virtual_time

__all__ = ["database", "database_url"]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Nobody lives there yet."""
    with virtual_time() as run:
        world = World(database_url, run)
        yield world
        world.close()
