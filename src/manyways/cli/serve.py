"""`manyways serve`."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import time
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from manyways.cli import called, output
from manyways.cli.address import origin
from manyways.cli.options import ConfigFile

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.store.database import Database


def serve(
    *,
    config: ConfigFile = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Listen here instead of where the config says."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Instead of the config's; 0 takes a free one.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Processes. More than one needs cluster.redis and PostgreSQL.",
        ),
    ] = 1,
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
    worker: Annotated[int, typer.Option(hidden=True)] = 1,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Without a configuration: SQLite in this folder, the embedded model as the
    only provider, 127.0.0.1:8080.

    On the first start an admin key is made and shown once, with a
    [bold]curl[/bold] line to paste.

    On a stop, new requests are refused, and running streams have
    server.drain to finish; what is left then is cut, and says so.
    """
    from manyways import logs
    from manyways.config import load
    from manyways.errors import ManywaysError
    from manyways.store.database import open_database

    try:
        settings = _effective(load(config), host, port)
        _check_company(settings, workers)
        logs.configure(settings.log, worker=None if listener is None else worker)
        database = open_database(settings.database)
        try:
            database.lock_for_serving(together=bool(settings.cluster.redis))
            if listener is not None:
                _work(settings, database, listener, (worker, workers))
            elif workers > 1:
                _lead(settings, database, workers)
            else:
                _serve(settings, database)
        finally:
            database.close()
    except ManywaysError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _effective(settings: Settings, host: str | None, port: int | None) -> Settings:
    """The settings with what the command line says otherwise."""
    from msgspec.structs import replace

    server = settings.server
    return replace(
        settings,
        server=replace(
            server,
            host=server.host if host is None else host,
            port=server.port if port is None else port,
        ),
    )


def _check_company(settings: Settings, workers: int) -> None:
    """Several processes need a place to meet. Raises `ConfigError`."""
    from manyways.errors import ConfigError

    if workers > 1 and not settings.cluster.redis:
        raise ConfigError(
            "--workers: several processes share their limits in Redis and their keys and records"
            " in PostgreSQL. Set cluster.redis (redis://host:6379/0) and database.url"
            " (postgresql://user:password@host/name), or leave --workers out."
        )


def _serve(settings: Settings, database: Database) -> None:
    import uvloop

    from manyways import app

    def ready(url: str) -> None:
        database.announce(url)
        _welcome(settings, database, url)

    uvloop.run(app.serve(settings, database, ready))


def _work(settings: Settings, database: Database, listener: int, worker: tuple[int, int]) -> None:
    """Be one of several workers."""
    import uvloop

    from manyways import app
    from manyways.cli import workers

    workers.follow_parent()
    uvloop.run(
        app.serve(
            settings,
            database,
            lambda _url: output.write(workers.READY.decode()),
            socket.socket(fileno=listener),
            app.Worker(*worker),
        )
    )


def _lead(settings: Settings, database: Database, count: int) -> None:
    """Have several workers serve, and see to it that they do."""
    import asyncio

    from manyways import app
    from manyways.cli.workers import Workers

    # So that a port that is taken is told: sockets that share one join whoever has it.
    alone = app.listen(settings)
    port = alone.getsockname()[1]
    alone.close()
    listeners = [app.listen(settings, port, shared=True) for _ in range(count)]
    url = app.url_of(listeners[0])
    command = [sys.executable, "-m", "manyways", *sys.argv[1:]]
    team = Workers(command, listeners, settings.server.drain)
    try:
        asyncio.run(team.run(lambda: _welcome(settings, database, url)))
    finally:
        for listener in listeners:
            listener.close()


def _welcome(settings: Settings, database: Database, url: str) -> None:
    """Say where we listen, and log which proxies the environment has us use. The first admin key
    is made now that it can be shown and used: it is shown only once."""
    import structlog

    from manyways import operations
    from manyways.upstream.outlets import inherited

    for proxy, variable, names in inherited(settings.providers, settings.upstream):
        structlog.get_logger("manyways").info(
            "proxy of the environment", proxy=str(proxy), variable=variable, providers=names
        )
    first = operations.ensure_admin_key(
        database,
        settings.keys,
        time.time(),
        show=lambda made: output.write(_welcome_words(settings, url, made.key)),
    )
    if first is None:
        output.write(_welcome_words(settings, url, None))


def _welcome_words(settings: Settings, url: str, key: str | None) -> str:
    """Plain text, unboxed: the line is there to be pasted."""
    where = urlsplit(url)
    base_url = origin(where.hostname or "", where.port or 80) + settings.server.mounts[0].path
    lines = [f"Manyways is listening on {base_url}"]
    if key:
        question = {"role": "user", "content": "Tell me the capital of France."}
        body = json.dumps({"model": _text_model(settings), "messages": [question]})
        lines += [
            "",
            "Your admin key, shown this once:",
            "",
            key,
            "",
            "Try it:",
            "",
            f"curl {base_url}/chat/completions \\",
            f"  -H 'Authorization: Bearer {key}' \\",
            "  -H 'Content-Type: application/json' \\",
            f"  -d {shlex.quote(body)}",
            "",
            f"More keys: {called.line('keys create --type full')}",
        ]
    return "\n".join(lines) + "\n"


def _text_model(settings: Settings) -> str:
    listed = (model for provider in settings.providers for model in provider.models or ())
    return next((model.id for model in listed if model.category in {None, "text"}), "auto")
