"""The effective configuration as TOML text that can be read again, without its secrets."""

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from manyways.config import quantities
from manyways.config.positions import Path
from manyways.config.reading import dotted, pattern_of
from manyways.config.rules import SECONDS, SIZES
from manyways.config.settings import SECTIONS, Settings
from manyways.edge.settings import Mount
from manyways.types import Provider

MASK: Final = "***"
_HARMLESS_HEADERS: Final = frozenset(
    {"accept", "content-type", "http-referer", "referer", "user-agent", "x-title"}
)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def show(settings: Settings) -> str:
    """TOML of every setting in effect; a comment tells where a given one came from.

    Keys, passwords in addresses and values of headers are masked, or named by their variable.
    """
    lines = [f"# {settings.file or 'built-in defaults'}"]
    writer = _Writer(settings.origins)
    for section in SECTIONS:
        value = getattr(settings, section)
        if section == "providers":
            for index, provider in enumerate(value):
                lines += writer.provider(provider, (section, index))
        else:
            lines += ["", f"[{section}]", *writer.fields(value, (section,))]
    return "\n".join(lines) + "\n"


class _Writer:
    def __init__(self, origins: dict[str, str]) -> None:
        self._origins = origins

    def fields(self, struct: msgspec.Struct, path: Path) -> list[str]:
        """The plain fields of a table, then the tables below it."""
        lines, below = [], []
        for name in struct.__struct_fields__:
            value = getattr(struct, name)
            here = (*path, name)
            if isinstance(value, dict):
                for key, entry in value.items():
                    header = ".".join(_key(str(part)) for part in (*here, key))
                    below += ["", f"[{header}]", *self.fields(entry, (*here, key))]
            else:
                lines.append(self.pair(name, value, here))
        return lines + below

    def provider(self, provider: Provider, path: Path) -> list[str]:
        lines = ["", "[[providers]]"]
        lines.append(self.pair("name", provider.name, (*path, "name")))
        lines.append(self.pair("protocol", provider.protocol, (*path, "protocol")))
        if provider.base_url:
            lines.append(self.pair("base_url", provider.base_url, (*path, "base_url")))
        if provider.api_keys:
            keys = [
                self._masked((*path, "api_key", index)) for index in range(len(provider.api_keys))
            ]
            lines.append(f"api_key = {keys[0] if len(keys) == 1 else _list(keys)}")
        if provider.headers:
            pairs = (
                f"{_key(name)} = {self._header(name, value, (*path, 'headers', name))}"
                for name, value in provider.headers.items()
            )
            lines.append(f"headers = {{ {', '.join(pairs)} }}")
        for index, model in enumerate(provider.models or ()):
            here = (*path, "models", index)
            lines += ["", "[[providers.models]]"]
            lines += [
                self.pair(name, value, (*here, name))
                for name in model.__struct_fields__
                if (value := getattr(model, name)) is not None
            ]
        return lines

    def pair(self, name: str, value: object, path: Path) -> str:
        origin = self._origins.get(dotted(path))
        comment = f"  # {origin}" if origin else ""
        if value is None:
            return f"# {name} is not set{comment}"
        return f"{_key(name)} = {self._value(value, path)}{comment}"

    def _masked(self, path: Path) -> str:
        origin = self._origins.get(dotted(path), "")
        return _text(origin if origin.startswith("env:") else MASK)

    def _header(self, name: str, value: str, path: Path) -> str:
        return _text(value) if name.lower() in _HARMLESS_HEADERS else self._masked(path)

    def _value(self, value: object, path: Path) -> str:
        match value:
            case bool():
                return str(value).lower()
            case int() | float():
                return _number(value, pattern_of(path))
            case str():
                return _text(without_password(value))
            case dict():
                pairs = (f"{_key(key)} = {self._value(item, path)}" for key, item in value.items())
                return f"{{ {', '.join(pairs)} }}"
            case tuple():
                return _list([self._value(item, path) for item in value])
            case Mount(error_format=None):
                return _text(value.path)
            case _:
                return self._value(msgspec.structs.asdict(cast("Mount", value)), path)


def _number(value: float, pattern: str) -> str:
    if pattern in SECONDS:
        return _text(quantities.write_seconds(value))
    if pattern in SIZES:
        return _text(quantities.write_size(int(value)))
    return repr(value)


def without_password(address: str) -> str:
    """`address` with its password masked, if it is an address and has one."""
    if "@" not in address or "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return MASK
    if parts.password is None:
        return address
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:{MASK}@{host}").geturl()


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    """A TOML string: JSON's escapes, and one for the only other character TOML forbids."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _list(items: list[str]) -> str:
    return f"[{', '.join(items)}]"
