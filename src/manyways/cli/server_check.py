"""Who answers at our address, and what the gateway there says of itself."""

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from manyways.cli import called
from manyways.cli.address import reachable
from manyways.cli.checks import Finding, Status
from manyways.config import Settings
from manyways.errors import ManywaysError
from manyways.store.serving import Serving

PROBE_LIMIT: Final = 3.0
"""Seconds for whoever has our port to say who it is."""
LATE: Final = 60.0
"""Seconds after which a record should long have been in the database."""

_Verdict = tuple[Status, str, str]


class _Account(Struct, frozen=True):
    """How the account of usage stands: records on their way, and since when the oldest is."""

    backlog: int = 0
    oldest_s: float = 0.0
    unwritten: int = 0


class _Ready(Struct, frozen=True):
    """What a gateway says of itself: `GET /readyz`."""

    models: int
    redis: str = ""
    usage: _Account = _Account()


class _Answered(NamedTuple):
    """Who is at our address, in which words; a gateway tells how it stands."""

    who: Literal["ours", "stranger", "nobody"]
    words: str = ""
    ready: _Ready = _Ready(0)


def look(settings: Settings) -> tuple[Finding, tuple[str, int] | None]:
    """Whether a gateway runs on this database, and whose the configured port is; and the host
    and the port at which that gateway answers."""
    from manyways.store.database_address import is_postgres

    host, port = settings.server.host, settings.server.port
    shared = is_postgres(settings.database.url)
    found = None if shared else _serving(settings)
    pid = None if found is None else found.pid
    where = urlsplit(found.address) if found else None
    if where is not None and where.hostname and where.port:
        host, port = where.hostname, where.port
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    verdict: _Verdict
    answers = _who_answers(reachable(host), port) if port else _Answered("nobody")
    if pid is not None or (shared and answers.who == "ours"):
        verdict = _running(pid, address, answers)
    elif answers.who == "ours":
        verdict = (
            "error",
            f"another Manyways, with another database, answers at {address}",
            "Stop it, or choose another port under [server] in the configuration.",
        )
    elif answers.who == "stranger":
        verdict = ("error", f"another program has {address} ({answers.words})", _move(port))
    else:
        verdict = _free(address, port, _trouble_listening(host, port))
    status, detail, advice = verdict
    finding = Finding(name="server", status=status, detail=detail, advice=advice)
    ours = (pid is not None or shared) and answers.who == "ours"
    return finding, (reachable(host), port) if ours else None


def _running(pid: str | None, address: str, answers: _Answered) -> _Verdict:
    who = "" if pid is None else f" (pid {pid})"
    if answers.who != "ours":
        return (
            "warning",
            f"a gateway{who} serves this database, but does not answer at {address}",
            "It is only just starting, or it hangs.",
        )
    count = answers.ready.models
    runs = f"runs at {address}{who}, {count} model{'' if count == 1 else 's'}"
    troubles = [*_troubles(answers.ready)]
    if not troubles:
        return ("ok", runs, "")
    wrong = any(status == "error" for status, _, _ in troubles)
    return (
        "error" if wrong else "warning",
        "\n".join([runs, *(words for _, words, _ in troubles)]),
        " ".join(advice for _, _, advice in troubles),
    )


def _troubles(ready: _Ready) -> Iterator[_Verdict]:
    """What a gateway that answers says is amiss with it."""
    usage = ready.usage
    if not ready.models:
        yield ("warning", "it has no models", "See below what is wrong with the providers.")
    if ready.redis == "away":
        yield (
            "error",
            "it says that Redis is away: keys with a quota get 503, other limits are shared out",
            "See above whether Redis can be reached from here, and its log for why it cannot.",
        )
    if usage.unwritten:
        yield (
            "error",
            f"{_records(usage.unwritten)} cannot be written to its journal",
            "See that the journal's folder (usage.journal) has room, and may be written to.",
        )
    if usage.oldest_s > LATE:
        yield (
            "warning",
            (
                f"{_records(usage.backlog)} wait for the database, the oldest for"
                f" {usage.oldest_s / 60:.0f} min"
            ),
            "Nothing is lost; its log says what the database refuses, or see above.",
        )


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'} of usage"


def _free(address: str, port: int, trouble: int | None) -> _Verdict:
    """Nobody answers there; `trouble` is the error number of trying to listen."""
    if trouble is None:
        return ("ok", f"does not run; {address} is free. Start it: {called.line('serve')}", "")
    if trouble == errno.EADDRINUSE:
        return ("error", f"another program has {address}", _move(port))
    if trouble == errno.EACCES:
        return (
            "error",
            f"this user may not listen on {address}",
            "Ports below 1024 are for root: choose a higher one.",
        )
    return (
        "error",
        f"{address} is not an address of this machine",
        "Choose 127.0.0.1 (only this machine) or 0.0.0.0 (everybody) as server.host.",
    )


def _move(port: int) -> str:
    return (
        "Choose another port under [server] in the configuration, or stop that program"
        f" (who it is: ss -ltnp 'sport = :{port}')."
    )


def _who_answers(host: str, port: int) -> _Answered:
    """Who is at our address."""
    with closing(HTTPConnection(host, port, timeout=PROBE_LIMIT)) as connection:
        try:
            connection.connect()
        except OSError:
            return _Answered("nobody")
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            body = response.read(64 * 1024)
        except TimeoutError:
            return _Answered("stranger", "it takes connections and says nothing")
        except (OSError, HTTPException):
            return _Answered("stranger", "it does not speak HTTP")
    if response.getheader("X-API-Version"):
        try:
            return _Answered("ours", ready=msgspec.json.decode(body, type=_Ready))
        except (msgspec.MsgspecError, RecursionError):
            pass
    return _Answered("stranger", f"it answers with HTTP {response.status}")


def _trouble_listening(host: str, port: int) -> int | None:
    """The error number of trying to listen there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return None


def _serving(settings: Settings) -> Serving | None:
    from manyways.store.database import serving, sqlite_path

    try:
        return serving(sqlite_path(settings.database.url))
    except ManywaysError:
        return None
