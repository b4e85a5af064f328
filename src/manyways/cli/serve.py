"""`manyways serve`."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from manyways.cli import output
from manyways.cli.address import origin
from manyways.cli.options import ConfigFile

if TYPE_CHECKING:
    from manyways.config import Settings


def serve(
    config: ConfigFile = None,
    host: Annotated[
        str | None, typer.Option(help="Listen here instead of where the config says.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes. More than one is not served yet.")
    ] = 1,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Without a configuration: SQLite in this folder, the embedded model as the
    only provider, 127.0.0.1:8080.

    On the first start an admin key is made and shown once, with a
    [bold]curl[/bold] line to paste.

    On a stop, new requests are refused, and running streams have
    server.drain to finish; what is left then is cut, and says so.
    """
    import uvloop
    from msgspec.structs import replace

    from manyways import app, logs, operations
    from manyways.config import load
    from manyways.errors import ManywaysError
    from manyways.store.database import open_database

    if workers > 1:
        typer.echo("--workers: more than one process is not served yet; leave it out.", err=True)
        raise typer.Exit(2)
    try:
        settings = load(config)
        server = settings.server
        settings = replace(
            settings,
            server=replace(
                server,
                host=server.host if host is None else host,
                port=server.port if port is None else port,
            ),
        )
        logs.configure(settings.log)
        database = open_database(settings.database)
        try:
            database.lock_for_serving()

            def ready(url: str) -> None:
                database.announce(url)
                # Made when it can be shown, and not before: it is shown only once.
                first = operations.ensure_admin_key(
                    database,
                    settings.keys,
                    time.time(),
                    show=lambda made: output.write(_welcome(settings, url, made.key)),
                )
                if first is None:
                    output.write(_welcome(settings, url, None))

            uvloop.run(app.serve(settings, database, ready))
        finally:
            database.close()
    except ManywaysError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _welcome(settings: Settings, url: str, key: str | None) -> str:
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
            "More keys: manyways keys create --type full",
        ]
    return "\n".join(lines) + "\n"


def _text_model(settings: Settings) -> str:
    listed = (model for provider in settings.providers for model in provider.models or ())
    return next((model.id for model in listed if model.category in {None, "text"}), "auto")
