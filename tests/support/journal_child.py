"""A process that keeps a journal, to be killed:

    python -m tests.support.journal_child write FOLDER DATABASE_URL [--ledger]
    python -m tests.support.journal_child move FOLDER DATABASE_URL

`write` tells the id of each record on standard output once it is written; `move` moves what it
finds, after a line on standard input, and ends.
"""

import asyncio
import itertools
import os
import sys
import time
from pathlib import Path

import structlog

from manyways.store.database import Database, Settings, open_database
from manyways.store.ids import new_id
from manyways.usage.journal import Journal
from manyways.usage.ledger import Ledger
from manyways.usage.settings import Settings as UsageSettings
from tests.support.records import record


async def write(journal: Journal, ledger: Ledger | None) -> None:
    """For ever, as fast as the reader of the ids takes them."""
    moving = asyncio.create_task(ledger.run()) if ledger else None
    for number in itertools.count():
        made = record(id=new_id(), created_at=time.time(), api_key_id=f"k{number % 3}")
        journal.write(made)
        os.write(1, made.id.encode() + b"\n")
        if not number % 20:
            await asyncio.sleep(0)
    if moving is not None:
        await moving


def main(command: str, folder: str, url: str, *options: str) -> None:
    # Among the ids nobody looks for warnings, as of a line that a killed process has torn.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    database: Database = open_database(Settings(url=url), busy_timeout=20.0)
    journal = Journal(Path(folder), UsageSettings())
    journal.open()
    ledger = Ledger(journal, database)
    if command == "write":
        asyncio.run(write(journal, ledger if "--ledger" in options else None))
    os.write(1, b"ready\n")
    sys.stdin.readline()
    moved = asyncio.run(ledger.drain(60.0))
    journal.close()
    database.close()
    sys.exit(0 if moved else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
