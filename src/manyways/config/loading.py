"""From a file and the environment to `Settings`: find, parse, read, and judge the whole."""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from msgspec import inspect
from msgspec.structs import replace

from manyways.config import outlets, pending
from manyways.config.document import ConfigProblems, Document, Problem
from manyways.config.environment import override, resolve
from manyways.config.quantities import write_seconds
from manyways.config.reading import Reader
from manyways.config.rules import near
from manyways.config.settings import SECTIONS, Settings
from manyways.store.database_address import is_postgres
from manyways.types import Allowance, ModelEntry, Provider
from manyways.upstream import local_child
from manyways.usage.settings import MARGIN

LOCAL_MODELS: Final = (
    ModelEntry(
        id=local_child.MODEL,
        category="text",
        context_window=local_child.CONTEXT,
        capabilities=("streaming", "json_schema"),
    ),
)
"""What a provider of protocol `local` has, unless the file says otherwise."""

_SECTIONS: Final = tuple(
    field
    for field in cast("inspect.StructType", inspect.type_info(Settings)).fields
    if field.name in SECTIONS
)
_NAME: Final = "manyways.toml"
_RANDOM_PART: Final = 32
_POSITION: Final = re.compile(r" \(at line (\d+), column \d+\)$")
_END: Final = " (at end of document)"


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The effective configuration: `path`, else `MANYWAYS_CONFIG`, else `./manyways.toml`,
    else the built-in defaults; the environment's overrides over it.

    Raises `ConfigProblems`, which names everything that is wrong at once.
    """
    file = _chosen(path, environ)
    text = "" if file is None else _text(file)
    name = "built-in defaults" if file is None else str(file)
    document = Document(_parsed(text, name), text, name)
    override(document, _SECTIONS, environ)
    resolve(document, environ)
    for unknown in document.tree.keys() - set(SECTIONS):
        document.note((unknown,), f"is not a section{near(unknown, SECTIONS, ', '.join(SECTIONS))}")
    reader = Reader(document)
    built_in = Settings()
    settings = replace(
        built_in,
        file=None if file is None else name,
        **{
            field.name: reader.section(field.name, field.type, getattr(built_in, field.name))
            for field in _SECTIONS
        },
    )
    settings = replace(settings, providers=_providers(settings.providers, document))
    _judge(settings, document)
    outlets.judge(settings, document, environ)
    if document.problems:
        raise ConfigProblems(tuple(sorted(document.problems, key=_place)))
    settings = replace(settings, origins=reader.origins)
    return replace(settings, not_yet=pending.words(settings))


def _chosen(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path
    if named := environ.get("MANYWAYS_CONFIG"):
        return Path(named)
    here = Path(_NAME)
    # A link that leads nowhere was meant to lead somewhere: reading it will tell.
    return here if os.path.lexists(here) else None


def _text(file: Path) -> str:
    """The file's text, without the mark that some editors put before it."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        what = "is a link to a file that is not there" if file.is_symlink() else None
        raise _only(str(file), what or "there is no such file") from None
    except IsADirectoryError:
        raise _only(str(file), "is a folder; name the file in it") from None
    except OSError as error:
        raise _only(str(file), f"cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _only(f"{file}:{line}", "is not UTF-8; save the file as UTF-8 text") from error


def _parsed(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
        if position := _POSITION.search(what):
            line, what = int(position[1]), what[: position.start()]
        else:
            line, what = max(1, len(text.splitlines())), what.removesuffix(_END)
        raise _only(f"{name}:{line}", f"is not TOML: {what[:1].lower()}{what[1:]}") from error
    except RecursionError as error:
        raise _only(name, "has tables or lists nested too deeply") from error
    except ValueError as error:  # Python reads no whole number of more than 4300 digits
        raise _only(name, "has a number in it that is far too long") from error


def _place(problem: Problem) -> tuple[int, str]:
    """Variables first, then the file from top to bottom."""
    line = problem.where.rpartition(":")[2]
    return (int(line) if line.isdecimal() else 0, problem.where)


def _only(where: str, message: str) -> ConfigProblems:
    return ConfigProblems((Problem(where, "", message),))


def _providers(given: tuple[Provider, ...], document: Document) -> tuple[Provider, ...]:
    """The providers with what is understood filled in."""
    if not given and "providers" not in document.tree:
        given = (Provider(name="local", protocol="local"),)
    return tuple(
        replace(provider, models=LOCAL_MODELS)
        if provider.protocol == "local" and provider.models is None
        else provider
        for provider in given
    )


def _judge(settings: Settings, document: Document) -> None:
    """Note what single settings cannot know: how they stand to each other."""
    _judge_mounts(settings, document)
    _judge_company(settings, document)
    _judge_rests(settings, document)
    _judge_keys(settings, document)
    _judge_retention(settings, document)
    _judge_providers(settings.providers, document)


def _judge_mounts(settings: Settings, document: Document) -> None:
    seen: set[str] = set()
    for index, mount in enumerate(settings.server.mounts):
        if mount.path in seen:
            document.note(("server", "mounts", index), f"names {mount.path} a second time")
        seen.add(mount.path)


def _judge_company(settings: Settings, document: Document) -> None:
    """Processes that meet in Redis need a database that serves several."""
    url, given = settings.database.url, document.find(("database", "url"))
    refused = given is not None and given != url  # which is told already
    if settings.cluster.redis and not is_postgres(url) and not refused:
        document.note(
            ("cluster", "redis"),
            "is for several processes, and database.url names an SQLite file, which serves one."
            " Set database.url to postgresql://user:password@host/name, or leave cluster.redis out",
        )


def _judge_rests(settings: Settings, document: Document) -> None:
    routing = settings.routing
    if routing.rest_limit < routing.rest:
        first, longest = map(write_seconds, (routing.rest, routing.rest_limit))
        path = ("routing", "rest_limit")
        if document.find(path) is None:
            document.note(("routing", "rest"), f"is longer than rest_limit, which is {longest}")
        else:
            document.note(path, f"is shorter than the first rest, which is {first}")


def _judge_keys(settings: Settings, document: Document) -> None:
    keys = settings.keys
    if keys.length - len(keys.prefix) < _RANDOM_PART:
        document.note(
            ("keys", "length"),
            f"leaves {keys.length - len(keys.prefix)} letters after the prefix;"
            f" under {_RANDOM_PART} a key can be guessed",
        )
    bearers: dict[tuple[str, ...], Allowance] = {("accounts",): settings.accounts}
    for name, key_type in keys.types.items():
        bearers["keys", "types", name] = key_type
    for path, kind in bearers.items():
        for amount, window in (("requests", "window"), ("tokens", "tokens_window")):
            if getattr(kind, amount) is not None and getattr(kind, window) is None:
                document.note(path, f'has {amount} without {window}: say in how long, like "1m"')
    if not any(kind.admin for kind in keys.types.values()):
        document.note(("keys", "types"), "leaves no type with admin = true")


def _judge_retention(settings: Settings, document: Document) -> None:
    """Behind a restart, what a window has let in is counted from the records."""
    retention = settings.usage.retention
    bearers: dict[str, Allowance] = {"accounts": settings.accounts}
    bearers |= {f"keys.types.{name}": kind for name, kind in settings.keys.types.items()}
    name, longest = max(bearers.items(), key=lambda one: one[1].reach)
    if retention is not None and retention < longest.reach + MARGIN:
        document.note(
            ("usage", "retention"),
            f"is too short for the window of {write_seconds(longest.reach)} in {name}, which is"
            " counted from the records: they have to stay an hour longer than it. Say"
            f' "{write_seconds(math.ceil((longest.reach + MARGIN) / 3600) * 3600)}" or more,'
            " or give a shorter window, or a quota: quotas are counted from sums, which stay",
        )


def _judge_providers(providers: tuple[Provider, ...], document: Document) -> None:
    names: set[str] = set()
    local: str | None = None
    for index, provider in enumerate(providers):
        path = ("providers", index)
        if provider.name in names:
            document.note((*path, "name"), f'is "{provider.name}", as of another provider above')
        names.add(provider.name)
        if provider.protocol == "local":
            if local is not None:
                document.note((*path, "protocol"), f"is local, as {local}'s: there can be one")
            local = provider.name
            for key, value in (
                ("base_url", provider.base_url),
                ("api_key", provider.api_keys),
                ("drain", provider.drain),
                ("proxy", provider.proxy),
                ("ca_file", provider.ca_file),
                ("client_certificate", provider.client_certificate),
                ("client_key", provider.client_key),
            ):
                if value:
                    document.note((*path, key), "has no use with protocol local; leave it out")
        elif not provider.base_url:
            document.note(path, f'needs base_url: the address of "{provider.name}", up to /v1')
        if provider.api_keys:
            for header in provider.headers:
                if header.lower() == "authorization":
                    document.note((*path, "headers", header), "is already made from api_key")
        _judge_models(provider, path, document)


def _judge_models(provider: Provider, path: tuple[str, int], document: Document) -> None:
    ids: set[str] = set()
    for index, model in enumerate(provider.models or ()):
        if model.id in ids:
            document.note((*path, "models", index, "id"), f'names "{model.id}" a second time')
        ids.add(model.id)
