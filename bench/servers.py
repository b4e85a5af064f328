"""A PostgreSQL and a Valkey for the time of a run.

Run as `python -m bench.servers --databases N --folder F`. Their addresses come out as one line of
JSON; they end with it, on SIGTERM.
"""

import argparse
import signal
from contextlib import ExitStack
from pathlib import Path

import msgspec
from tests.support.postgres import PostgresProcess
from tests.support.valkey import running_valkey


class Servers(msgspec.Struct, frozen=True):
    """The URLs of empty databases, and of the Valkey."""

    databases: tuple[str, ...]
    redis: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--databases", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        server = stack.enter_context(PostgresProcess(synchronous_commit="off"))
        valkey = stack.enter_context(running_valkey(options.folder))
        databases = tuple(server.url(server.create_database()) for _ in range(options.databases))
        print(msgspec.json.encode(Servers(databases, valkey.url)).decode(), flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
