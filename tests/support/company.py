"""Several gateways that share a PostgreSQL and a Valkey, as on several machines.

with company(tmp_path, provider(wall.url), nodes=2) as nodes:
    nodes[0].chat({...})
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.gateway import Gateway, running_gateway
from tests.support.postgres import PostgresProcess, shared_server
from tests.support.valkey import Valkey, running_valkey


class Company(NamedTuple):
    """The gateways and what they share."""

    nodes: Sequence[Gateway]
    postgres: PostgresProcess
    database: str
    valkey: Valkey

    @property
    def urls(self) -> list[str]:
        return [node.root for node in self.nodes]

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What the database answers."""
        return self.postgres.execute(query, database=self.database)


@contextlib.contextmanager
def company(
    directory: Path,
    config: str,
    *,
    nodes: int = 2,
    workers: int = 1,
    postgres: PostgresProcess | None = None,
) -> Iterator[Company]:
    """So many nodes of so many workers each. Without a `postgres` of its own, the common one."""
    server = postgres or shared_server()
    database = server.create_database()
    with contextlib.ExitStack() as stack:
        stack.callback(server.drop_database, database)
        valkey = stack.enter_context(running_valkey(directory / "valkey"))
        settings = (
            f'[database]\nurl = "{server.url(database)}"\n[cluster]\nredis = "{valkey.url}"\n'
        )
        running: list[Gateway] = []
        for number in range(nodes):
            home = directory / f"node-{number + 1}"
            home.mkdir()
            count = ("--workers", str(workers)) if workers > 1 else ()
            key = running[0].key if running else ""
            running.append(
                stack.enter_context(running_gateway(home, settings + config, *count, key=key))
            )
        yield Company(running, server, database, valkey)
