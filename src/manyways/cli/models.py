"""`manyways models`: which models the gateway offers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec
import typer

from manyways.cli import output
from manyways.cli.address import LOOPBACK, origin, running
from manyways.cli.options import AsJson, Commands, ConfigFile
from manyways.errors import ManywaysError
from manyways.types import Category

if TYPE_CHECKING:
    from manyways.config import Settings

app = Commands(no_args_is_help=True, help="Which models the gateway offers.")

TIMEOUT: Final = 5.0
"""Seconds that a gateway has for an answer. A running one needs milliseconds."""

_MAX_BODY: Final = 64 * 1024 * 1024
_COLUMNS: Final = ("Model", "Provider", "Category", "Context", "Latency", "Status")
_STYLES: Final = {"active": "green", "degraded": "yellow", "down": "red"}


class _Row(msgspec.Struct):
    """What is shown of a model; other fields are let be."""

    id: str
    provider: str = ""
    category: str = ""
    context_window: int | None = None
    latency_ms: float | None = None
    status: str = ""


class _Answer(msgspec.Struct):
    data: list[_Row]


class _NoGateway(Exception):
    """Nobody answers at the address; the message says how that showed."""


class _Told(Exception):
    """The gateway, or whoever is there, said something else; the message is what."""


@app.command(name="list")
def list_(
    *,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's models.")
    ] = None,
    category: Annotated[Category | None, typer.Option(help="Only models of this kind.")] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The gateway to ask, like https://llm.example.com; else the one that serves the"
            " configured database.",
        ),
    ] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the models that can be asked for now.

    The running gateway is asked. If none runs, what the configuration itself
    lists is shown instead, and it says so.

    On a terminal as a table, elsewhere as lines with tabs between the columns.
    """
    from manyways.config import load

    filters = {"provider": provider, "category": category}
    try:
        settings = load(config)
        address = _address(settings, url)
        try:
            body, source = _ask(address, filters), "gateway"
        except _NoGateway as reason:
            if url is not None:
                raise _Told(f"No gateway answers at {_origin(address)}: {reason}.") from None
            typer.echo(_instead(settings, address), err=True)
            body, source = _configured(settings, filters), "configuration"
        answer = _read(body, address)
    except (ManywaysError, _Told) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if json:
        _print_json(body, source)
    elif answer:
        _print_table(answer)
    else:
        filtered = provider is not None or category is not None
        typer.echo(
            "No model matches."
            if filtered
            else "There are no models yet. Which provider fails, and why: manyways doctor",
            err=True,
        )


def _address(settings: Settings, url: str | None) -> SplitResult:
    """Where the API hangs, mount included."""
    mount = settings.server.mounts[0].path
    if url is None:
        found = running(settings) or origin(settings.server.host, settings.server.port)
        return urlsplit(f"{found}{mount}")
    address = _parsed(url)
    if address is None:
        raise typer.BadParameter(
            "should be an address like http://127.0.0.1:8080, without user and password.",
            param_hint="--url",
        )
    return address if address.path else address._replace(path=mount)


def _parsed(url: str) -> SplitResult | None:
    try:
        address = urlsplit(url.rstrip("/"))
        _ = address.port
    except ValueError:
        return None
    spelt = url.isprintable() and " " not in url
    plain = address.hostname and "@" not in address.netloc
    usable = spelt and plain and address.scheme in {"http", "https"}
    return address if usable else None


def _origin(address: SplitResult) -> str:
    return f"{address.scheme}://{address.netloc}"


def _ask(address: SplitResult, filters: dict[str, Any]) -> bytes:
    """The gateway's list. Raises `_NoGateway`, or `_Told` with the gateway's own words."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    local = address.hostname in LOOPBACK
    opener = build_opener(*([ProxyHandler({})] if local else []))
    query = urlencode({name: value for name, value in filters.items() if value is not None})
    target = address._replace(path=f"{address.path}/models", query=query, fragment="")
    try:
        with opener.open(target.geturl(), timeout=TIMEOUT) as response:
            body: bytes = response.read(_MAX_BODY)
            return body
    except HTTPError as error:
        with error:
            said = _message(error.read(_MAX_BODY))
        raise _Told(said or f"{_origin(address)} answers {error.code}, not a list.") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise _NoGateway(words) from error


def _message(body: bytes) -> str | None:
    """The words in an error of ours, in either format."""
    try:
        error = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except (ValueError, RecursionError):
        return None
    said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) and said else None


def _instead(settings: Settings, address: SplitResult) -> str:
    lines = [
        f"No gateway runs at {_origin(address)} (start it with: manyways serve).",
        f"What {settings.file or 'the built-in configuration'} itself lists:",
    ]
    unknown = [one.name for one in settings.providers if one.models is None]
    if unknown:
        lines.insert(1, f"Only a running gateway knows the models of {', '.join(unknown)}.")
    return "\n".join(lines)


def _configured(settings: Settings, filters: dict[str, Any]) -> bytes:
    from manyways.catalog import listings
    from manyways.catalog.discovery import merge
    from manyways.catalog.snapshot import Snapshot

    now = time.time()
    snapshot = Snapshot(
        models=tuple(
            model
            for provider in settings.providers
            if provider.models is not None
            for model in merge(provider, (), now=now)
        ),
        provider_names=tuple(provider.name for provider in settings.providers),
        made_at=now,
    )
    return listings.models(snapshot, **filters).body


def _read(body: bytes, address: SplitResult) -> list[_Row]:
    try:
        return msgspec.json.decode(body, type=_Answer).data
    except (ValueError, RecursionError):
        raise _Told(
            f"Something answers at {_origin(address)}, but not with a list of models."
        ) from None


def _print_json(body: bytes, source: str) -> None:
    document = msgspec.json.decode(body, type=dict[str, Any])
    meta = document.get("meta")
    document["meta"] = {**(meta if isinstance(meta, dict) else {}), "source": source}
    output.document(document)


def _print_table(models: Sequence[_Row]) -> None:
    rows = [
        (
            model.id,
            model.provider,
            model.category,
            "" if model.context_window is None else f"{model.context_window:,}",
            "" if model.latency_ms is None else f"{model.latency_ms / 1000:.1f} s",
            model.status,
        )
        for model in models
    ]
    if not sys.stdout.isatty():
        for row in (tuple(name.lower() for name in _COLUMNS), *rows):
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in _COLUMNS:
        right = name in {"Context", "Latency"}
        # Ids are copied: rather broken over lines than cut.
        table.add_column(
            name,
            justify="right" if right else "left",
            overflow="fold" if name == "Model" else "ellipsis",
            no_wrap=name != "Model",
        )
    for *values, status in rows:
        table.add_row(*map(Text, values), Text(status, _STYLES.get(status, "")))
    Console().print(table)
