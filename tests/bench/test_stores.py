"""The keys that a measured gateway is asked with are keys that it takes."""

import time
from pathlib import Path

import pytest
from bench.stores import make_keys, opened, secret, sqlite, write_secrets

from manyways.access.keys import KeyRing, Settings, well_formed
from manyways.errors import Refusal


async def test_keys_that_were_made_in_bulk_work_and_others_do_not(tmp_path: Path) -> None:
    settings = Settings()
    with opened(sqlite(tmp_path)) as database:
        make_keys(database, "admin", range(3))
        ring = KeyRing(database, settings)
        for number in range(3):
            caller = await ring.authenticate(secret(number), time.time())
            assert caller.admin
            assert caller.last4 == secret(number)[-4:]
        with pytest.raises(Refusal, match="not known"):
            await ring.authenticate(secret(3), time.time())


def test_a_file_of_keys_has_one_a_line_from_the_first_on(tmp_path: Path) -> None:
    lines = write_secrets(tmp_path / "secrets", 20).read_text().splitlines()
    assert lines == [secret(number) for number in range(20)]
    assert all(well_formed(line, Settings()) for line in lines)
