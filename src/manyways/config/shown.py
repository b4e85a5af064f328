"""The effective configuration as TOML text that can be read again, without its secrets."""

import re
from typing import Final

import msgspec

from manyways.config import quantities
from manyways.config.document import bare, dotted, pattern_of, quoted
from manyways.config.positions import Path
from manyways.config.rules import LIFTABLE, SECONDS, SIZES
from manyways.config.settings import SECTIONS, Settings
from manyways.edge.settings import Mount
from manyways.types import Provider, Quota

MASK: Final = "***"
_HARMLESS_HEADERS: Final = frozenset(
    {"accept", "content-type", "http-referer", "referer", "user-agent", "x-title"}
)
_PASSWORD: Final = re.compile(r"(://[^/?#:@]*:).*@")
"""Up to the last @, whatever a password may hold."""
_QUERY_PASSWORD: Final = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&#]*", re.IGNORECASE)


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
                    header = ".".join(bare(str(part)) for part in (*here, key))
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
            shown = keys[0] if len(keys) == 1 else _list(keys)
            lines.append(f"api_key = {shown}{self._comment((*path, 'api_key'))}")
        if provider.headers:
            pairs = (
                f"{bare(name)} = {self._header(name, value, (*path, 'headers', name))}"
                for name, value in provider.headers.items()
            )
            comment = self._comment((*path, "headers"))
            lines.append(f"headers = {{ {', '.join(pairs)} }}{comment}")
        lines += [
            self.pair(name, value, (*path, name))
            for name in ("drain", "proxy", "ca_file", "client_certificate", "client_key")
            if (value := getattr(provider, name))
        ]
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
        comment = self._comment(path)
        if value is None and pattern_of(path) in LIFTABLE:
            return f'{bare(name)} = "none"{comment}'
        if value is None:
            return f"# {name} is not set{comment}"
        return f"{bare(name)} = {self._value(value, path)}{comment}"

    def _comment(self, path: Path) -> str:
        """Where a setting came from; of a table on one line, where what is in it did."""
        name = dotted(path)
        origin = self._origins.get(name)
        if origin is None:
            below = (said for key, said in self._origins.items() if key.startswith(f"{name}."))
            origin = ", ".join(dict.fromkeys(below))
        return f"  # {origin}" if origin else ""

    def _masked(self, path: Path) -> str:
        origin = self._origins.get(dotted(path), "")
        return quoted(origin if origin.startswith("env:") else MASK)

    def _header(self, name: str, value: str, path: Path) -> str:
        return quoted(value) if name.lower() in _HARMLESS_HEADERS else self._masked(path)

    def _value(self, value: object, path: Path) -> str:
        if isinstance(value, Mount):
            value = msgspec.to_builtins(value) if value.error_format else value.path
        elif isinstance(value, Quota):
            value = {k: v for k, v in msgspec.to_builtins(value).items() if v is not None}
        match value:
            case bool():
                return str(value).lower()
            case int() | float():
                return _number(value, pattern_of(path))
            case dict():
                pairs = (f"{bare(key)} = {self._value(item, path)}" for key, item in value.items())
                return f"{{ {', '.join(pairs)} }}"
            case tuple():
                return _list([self._value(item, path) for item in value])
            case _:
                return quoted(without_password(str(value)))


def _number(value: float, pattern: str) -> str:
    if pattern in SECONDS:
        return quoted(quantities.write_seconds(value))
    if pattern in SIZES:
        return quoted(quantities.write_size(int(value)))
    return repr(value)


def without_password(address: str) -> str:
    """`address` with its passwords masked, if it is an address and has any."""
    if "://" not in address:
        return address
    masked = _QUERY_PASSWORD.sub(rf"\1{MASK}", address)
    return _PASSWORD.sub(rf"\1{MASK}@", masked)


def _list(items: list[str]) -> str:
    return f"[{', '.join(items)}]"
