"""What `manyways doctor` looks at on this machine: each check is a function that returns
what it found. Nothing is changed by looking."""

import os
import platform
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from manyways import __version__
from manyways.cli import called
from manyways.config import ConfigProblems, Settings, doubts, load
from manyways.errors import ConfigError, ManywaysError

Status = Literal["ok", "warning", "error"]

LITTLE_ROOM: Final = 1024**3
NO_ROOM: Final = 100 * 1024**2


class Finding(Struct, frozen=True, kw_only=True):
    """One check's outcome: `detail` is what was found, `advice` what to do, empty if nothing."""

    name: str
    status: Status
    detail: str
    advice: str = ""


def program() -> Finding:
    """Which program this is, on what."""
    system = f"{platform.system()} {platform.machine()}"
    return Finding(
        name="program",
        status="ok",
        detail=f"Manyways {__version__}, Python {platform.python_version()}, {system}",
    )


def configuration(file: Path | None) -> tuple[Finding, Settings | None]:
    """Whether the configuration can be used, and the settings if it can."""
    try:
        settings = load(file)
    except ConfigProblems as wrong:
        finding = Finding(
            name="configuration",
            status="error",
            detail=str(wrong),
            advice="Mend it and look again. What depends on the configuration was not checked.",
        )
        return finding, None
    count = len(settings.providers)
    providers = f"{count} provider{'' if count == 1 else 's'}"
    lines = [f"{settings.file or 'no file, the built-in defaults apply'}: {providers}"]
    doubtful = doubts(settings)
    lines += [f"worth a look: {words}" for words in doubtful]
    if settings.not_yet:
        lines += ["without effect in this version:", *settings.not_yet]
        advice = "Leave these settings out, or don't rely on them."
    else:
        advice = "If it is meant so, leave it so." if doubtful else ""
    finding = Finding(
        name="configuration",
        status="warning" if doubtful or settings.not_yet else "ok",
        detail="\n".join(lines),
        advice=advice,
    )
    return finding, settings


def embedded_model(settings: Settings | None) -> Finding:
    """Whether the optional parts are installed; they must be where a provider needs them."""
    from manyways.upstream import local_child

    missing = local_child.missing()
    needed = settings is not None and any(one.protocol == "local" for one in settings.providers)
    if missing is None:
        file = local_child.model_file()
        size = file.stat().st_size / 1e6
        return Finding(
            name="embedded model", status="ok", detail=f"installed: {file.name}, {size:.0f} MB"
        )
    if needed:
        return Finding(name="embedded model", status="error", detail="not there", advice=missing)
    return Finding(
        name="embedded model", status="ok", detail="not installed, and no provider needs it"
    )


def database(settings: Settings) -> Finding:
    """Whether the database opens and is ours; one that is not there yet is not made."""
    from manyways.store.database_address import is_postgres, sqlite_path

    try:
        if is_postgres(settings.database.url):
            return _postgres(settings)
        path = sqlite_path(settings.database.url)
        trouble = _trouble_with(path)
        return trouble or _opened(f"{path}, {_size(_whole_size(path))}", settings)
    except ManywaysError as error:
        return Finding(name="database", status="error", detail=str(error))


def _whole_size(path: Path) -> int:
    """With what SQLite keeps beside the file until somebody moves it there."""
    beside = path.with_name(f"{path.name}-wal")
    size = path.stat().st_size
    with suppress(OSError):  # it goes with the last who has the database open
        size += beside.stat().st_size
    return size


def _trouble_with(path: Path) -> Finding | None:
    """What can be said of the file without opening it for good."""

    def found(status: Status, detail: str, advice: str = "") -> Finding:
        return Finding(name="database", status=status, detail=detail, advice=advice)

    if not path.exists():
        return _future_file(path)
    if not os.access(path, os.R_OK | os.W_OK):
        return found(
            "error",
            f"{path} may not be read and written by this user",
            "Run as the user that serves, or give this one the right to it.",
        )
    state = _schema(path)
    if state == "empty":
        return found("ok", f"{path} is empty; the first start fills it")
    if state == "older":
        return found(
            "warning",
            f"{path} was made by an older version; the next start brings it up to date",
            "Make a copy of the file first, if you may want to go back.",
        )
    return None


def _opened(where: str, settings: Settings) -> Finding:
    from manyways.operations import count_keys
    from manyways.store.database import open_database

    with closing(open_database(settings.database, busy_timeout=2.0)) as opened:
        keys = count_keys(opened, alive_at=time.time())
    if not keys:
        return Finding(
            name="database",
            status="warning",
            detail=f"{where}, holds no key that works",
            advice=f"Make one: {called.line('keys create --type full')}",
        )
    return Finding(
        name="database",
        status="ok",
        detail=f"{where}, {keys} key{'' if keys == 1 else 's'} in use",
    )


def _postgres(settings: Settings) -> Finding:
    """Whether the server answers and lets us in, and what it holds; nothing is migrated."""
    from manyways.store.database_address import postgres_address
    from manyways.store.migrations import HEAD, revision
    from manyways.store.postgres import PostgresServer

    with closing(PostgresServer(postgres_address(settings.database.url))) as server:
        version = server.version()
        began = time.perf_counter()
        with server.transaction(write=False) as connection:
            away = time.perf_counter() - began
            stands = revision(connection)
            may_make = connection.exec_driver_sql(
                "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            ).scalar_one()
    where = f"{server.name} (PostgreSQL {version}, {away * 1000:.1f} ms away)"
    if stands == "" or (stands is not None and stands >= HEAD):
        return _opened(where, settings)
    if not may_make:
        return Finding(
            name="database",
            status="error",
            detail=f"{where}: this user may not make tables there",
            advice="Make the user its owner: ALTER DATABASE ... OWNER TO ...",
        )
    if stands is None:
        return Finding(
            name="database", status="ok", detail=f"{where} is empty; the first start fills it"
        )
    return Finding(
        name="database",
        status="warning",
        detail=f"{where} was made by an older version; the next start brings it up to date",
        advice="Make a copy of it first (pg_dump), if you may want to go back.",
    )


def disk(settings: Settings) -> list[Finding]:
    """The room beside the database; nothing where there is no such folder."""
    folder = _database_folder(settings)
    return [] if folder is None else [_room(folder)]


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    if free >= LITTLE_ROOM:
        return Finding(name="disk", status="ok", detail=f"{_size(free)} free at {folder}")
    return Finding(
        name="disk",
        status="error" if free < NO_ROOM else "warning",
        detail=f"only {_size(free)} free at {folder}",
        advice="Make room: without it, nothing can be recorded.",
    )


def time_zone(settings: Settings) -> Finding:
    """Whether times of day in the configured zone can be known."""
    name = settings.catalog.timezone
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return Finding(
            name="time zone",
            status="warning",
            detail=f"{name} is not known: this machine has no time zone data",
            advice="Install the system's package tzdata, or: pip install tzdata",
        )
    return Finding(name="time zone", status="ok", detail=name)


def _schema(path: Path) -> Literal["empty", "older", "other"]:
    """How far the file's tables are, without touching it; `other` is left to `open_database`."""
    from manyways.store.migrations import HEAD

    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2.0)) as asked:
            if asked.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                return "empty"
            revision = asked.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    except (sqlite3.Error, TypeError):
        return "other"
    return "older" if isinstance(revision, str) and revision < HEAD else "other"


def _future_file(path: Path) -> Finding:
    folder = path.parent
    if not folder.is_dir():
        return Finding(
            name="database",
            status="error",
            detail=f"{path} cannot be made: there is no folder {folder}",
            advice="Make the folder, or choose another file in database.url.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            name="database",
            status="error",
            detail=f"{path} cannot be made: this user may not write to {folder}",
            advice="Give this user the right to, or choose another file in database.url.",
        )
    return Finding(
        name="database", status="ok", detail=f"{path} is not there yet; the first start makes it"
    )


def _database_folder(settings: Settings) -> Path | None:
    from manyways.store.database_address import sqlite_path

    try:
        folder = sqlite_path(settings.database.url).parent
    except ConfigError:
        return None
    return folder if folder.is_dir() else None


def _size(amount: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if amount >= size:
            return f"{amount / size:.{1 if amount < 10 * size else 0}f} {unit}"
    return f"{amount} bytes"
