"""Where the command line's list of models comes from: the running gateway, or the configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec
import typer

from manyways.cli import called
from manyways.cli.address import LOOPBACK, origin, running
from manyways.errors import ManywaysError

if TYPE_CHECKING:
    from manyways.config import Settings

TIMEOUT: Final = 5.0
"""Seconds that a gateway has for an answer. A running one needs milliseconds."""

_MAX_BODY: Final = 64 * 1024 * 1024

Filters = Mapping[str, str | None]
"""Parameters of `GET /v1/models`; `None` is left out."""


class NoList(ManywaysError):
    """There is no list to be had; the message is what a person is told."""


class ModelRow(msgspec.Struct):
    """What the command line shows of a model; other fields are let be."""

    id: str
    provider: str = ""
    category: str = ""
    context_window: int | None = None
    latency_ms: float | None = None
    quality_score: float | None = None
    last_verified: str | None = None
    status: str = ""


class Listed(NamedTuple):
    """A document as `GET /v1/models` has it, its rows, and where it comes from: `gateway` or
    `configuration`. Row and document belong together one by one."""

    document: dict[str, Any]
    rows: list[ModelRow]
    source: str


class _NoGateway(Exception):
    """Nobody answers at the address; the message says how that showed."""


class _Rows(msgspec.Struct):
    data: list[ModelRow]


def listed(settings: Settings, url: str | None, filters: Filters) -> Listed:
    """The list of the gateway at `url`, or else of the one that serves the configured database.

    Where none runs, and none is named, what the configuration itself lists; that it does is told
    on standard error. Raises `NoList`, `Refusal`.
    """
    address = _address(settings, url)
    try:
        body, source = _asked(address, filters), "gateway"
    except _NoGateway as reason:
        if url is not None:
            raise NoList(f"No gateway answers at {_origin(address)}: {reason}.") from None
        typer.echo(_instead(settings, address), err=True)
        body, source = _configured(settings, filters), "configuration"
    return _read(body, source, address)


def served(settings: Settings) -> Listed | None:
    """All models of the gateway that runs here, those that are down too; `None` where none runs.
    Raises `NoList`."""
    address = _address(settings, None)
    try:
        return _read(_asked(address, {"status": "all"}), "gateway", address)
    except _NoGateway:
        return None


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


def _asked(address: SplitResult, filters: Filters) -> bytes:
    """The gateway's list. Raises `_NoGateway`, or `NoList` with the gateway's own words."""
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
        raise NoList(said or f"{_origin(address)} answers {error.code}, not a list.") from None
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
        f"No gateway runs at {_origin(address)} (start it with: {called.line('serve')}).",
        f"What {settings.file or 'the built-in configuration'} itself lists:",
    ]
    unknown = [one.name for one in settings.providers if one.models is None]
    if unknown:
        lines.insert(1, f"Only a running gateway knows the models of {', '.join(unknown)}.")
    return "\n".join(lines)


def _configured(settings: Settings, filters: Filters) -> bytes:
    from manyways.catalog import listings
    from manyways.catalog.claims import merge
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


def _read(body: bytes, source: str, address: SplitResult) -> Listed:
    try:
        rows = msgspec.json.decode(body, type=_Rows).data
        return Listed(msgspec.json.decode(body, type=dict[str, Any]), rows, source)
    except (ValueError, RecursionError):
        raise NoList(
            f"Something answers at {_origin(address)}, but not with a list of models."
        ) from None
