"""What PostgreSQL's failures mean, and what to do about them.

Codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html. A connection
that could not be made has none: what is known of it are the words of libpq and of the server.
"""

import re
from typing import Final

from manyways.errors import StoreError
from manyways.store.engine import Conflict

SILENT: Final = "MW001"
"""Our own: the server did not answer in time."""

_LOGIN: Final = (
    "does not let this user in. Put the right user and password into database.url (in them, the "
    "letters @ : / ? # % are written %40 %3A %2F %3F %23 %25), or let this machine in: pg_hba.conf."
)
_MISSING: Final = "does not exist. Make it (createdb tells how), or name another in database.url."
_FORBIDDEN: Final = (
    "does not let this user do that: {words}. Make the user its owner: ALTER DATABASE ... OWNER "
    "TO ..."
)
_FULL_HOUSE: Final = (
    "has no connection left. Raise max_connections (or the limit of the user or the database), or "
    "let fewer processes share it."
)
_STANDBY: Final = (
    "is read-only: a standby, or default_transaction_read_only is on. Name the primary in "
    "database.url, or all hosts, with commas between: the primary is found."
)
_LOCKED: Final = (
    "is locked: another program holds what is asked for and did not let go of it in time. Try "
    "again; if it lasts, find out who does: SELECT * FROM pg_stat_activity."
)
_SLOW: Final = "did not answer in time. Look at its load, and for what waits: pg_stat_activity."
_STARTING: Final = "is starting or stopping. Try again in a moment."
_AWAY: Final = "cannot be reached: {words}. See that it runs, and that database.url names it."
_TLS: Final = "cannot be reached by TLS: {words}. See to sslmode and sslrootcert in database.url."
_OTHER: Final = "cannot do what was asked of it: {words}"

_BY_CODE: Final = {
    SILENT: "is silent, and was given up. See that it runs; if it lasts, restart it.",
    "25006": _STANDBY,
    "25P03": _SLOW,
    "28000": _LOGIN,
    "28P01": _LOGIN,
    "3D000": _MISSING,
    "42501": _FORBIDDEN,
    "53100": "cannot grow: its disk is full. Make room.",
    "53200": "has no memory left. Give its machine more, or let less run there.",
    "53300": _FULL_HOUSE,
    "55P03": _LOCKED,
    "57014": _SLOW,
    "57P01": _STARTING,
    "57P02": _STARTING,
    "57P03": _STARTING,
    "58030": "cannot be read or written: its disk fails. Look at its machine's log.",
    "XX001": "is damaged. Restore it from a backup.",
    "XX002": "is damaged: one of its indexes. REINDEX DATABASE mends that.",
}

# Others came between: https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
_CONFLICTS: Final = {
    "40001": "was changed by another program at the same moment. Try again.",
    "40P01": "was asked for the same by several programs that waited for each other. Try again.",
}

# Words by which a failed connection is known; of several hosts' failures, the first row here.
_BY_WORDS: Final = (
    (r"authentication failed|pg_hba\.conf|no password supplied", _LOGIN),
    (r'role ".*" (does not exist|is not permitted)', _LOGIN),
    (r'database ".*" does not exist', _MISSING),
    (r"permission denied", _FORBIDDEN),
    (r"too many (clients|connections)|connection slots", _FULL_HOUSE),
    (r"session is read-only|hot standby", _STANDBY),
    (r"starting up|shutting down|recovery mode", _STARTING),
    (r"\bssl\b|certificate", _TLS),
    (r"timeout expired", _AWAY.replace("{words}", "it does not answer")),
    (r"connect|resolve host", _AWAY),
)


def told(name: str, error: BaseException | None) -> StoreError:
    """A psycopg error in plain words about the database `name`."""
    code = getattr(error, "sqlstate", None)
    words = _words(error)
    if code in _CONFLICTS:
        return Conflict(f"The database {name} {_CONFLICTS[code]}")
    if code is not None:
        cure = _BY_CODE.get(code, _AWAY if code.startswith("08") else _OTHER)
    else:
        cure = _without_code(str(error).lower())
    return StoreError(f"The database {name} {cure.replace('{words}', words)}")


def _without_code(text: str) -> str:
    return next((cure for signs, cure in _BY_WORDS if re.search(signs, text)), _OTHER)


def _words(error: BaseException | None) -> str:
    """The server's own, in one line; the last reason only, where there are several."""
    diagnosis = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    if primary:
        return str(primary)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rpartition("failed: ")[2] if lines else "no reason is known"
    return reason.removeprefix("FATAL:").strip().rstrip(".")
