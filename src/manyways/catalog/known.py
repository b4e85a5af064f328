"""Well-known models: what their makers say of them, offline, as data of this package.

The table is `data/known_models.json`: its makers with the hosts of their APIs, and a line a
model. It is read when something is first looked up, in a few milliseconds. A model that is not
in it is not known: nothing is concluded from a name that is only alike.
"""

import re
from functools import cache
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from manyways.types import Capability, Category

Tokenizer = Literal["o200k_base", "cl100k_base"]


class Known(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One well-known model. `None`: the table does not say.

    `aliases` are further names of it, all names in lower case. `pricing` is USD at its maker,
    for a token or a piece as in `discovery.PRICES`, and was true on `as_of`, a date. The true
    model surely reaches `quality_floor`, from 0 to 10, on short tasks in English and Russian.
    """

    id: str
    maker: str
    aliases: tuple[str, ...] = ()
    category: Category = "text"
    context_window: int | None = None
    max_output_tokens: int | None = None
    modalities: tuple[str, ...] | None = None
    capabilities: tuple[Capability, ...] = ()
    pricing: dict[str, float] | None = None
    as_of: str | None = None
    quality_floor: float | None = None
    tokenizer: Tokenizer | None = None


class _Maker(Struct, frozen=True, forbid_unknown_fields=True):
    hosts: tuple[str, ...] = ()


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    makers: dict[str, _Maker]
    models: tuple[Known, ...]


_FILE: Final = Path(__file__).parent / "data" / "known_models.json"

# What may stand around a model's own name, in the order in which it is taken off.
_LONGEST: Final = 256
_FOLDERS: Final = re.compile(r"(?:[\w.@~-]+/)*")
_CLOUD: Final = re.compile(
    r"(?:(?:us|eu|apac|global|jp|au)\.)?"
    r"(?:anthropic|amazon|cohere|deepseek|google|meta|mistral|openai|qwen)\."
    r"(?P<name>[\w.-]+?)(?:-v\d{1,2}(?::\d{1,2})?)?",
    re.ASCII,
)
_TERMS: Final = re.compile(r":(?:free|beta|nitro|floor|online|exacto|thinking)$")
_SMALLER: Final = re.compile(
    r"(?:[-_.:](?:fp8|fp16|bf16|f16|int[48]|[48]bit|awq|gptq|gguf|mlx|nvfp4|mxfp4"
    r"|i?q[2-8](?:_[0-9klmsx]{1,3}){0,3}))+$",
    re.ASCII,
)
_DATED: Final = re.compile(
    r"[-@](?P<year>20[2-3]\d)(?P<dash>-?)(?P<month>0[1-9]|1[0-2])(?P=dash)"
    r"(?P<day>0[1-9]|[12]\d|3[01])$",
    re.ASCII,
)


def find(model_id: str) -> Known | None:
    """The well-known model of this name, however its provider dresses it up.

    Case does not count, nor do a path before the name (`openai/gpt-4o`), a cloud's prefix
    (`us.anthropic.`) and number (`-v1:0`), terms (`:free`), a whole date behind it
    (`-2024-08-06`, `@20240806`) and a mark of its quantization (`-awq`, `-q4_k_m`). Anything
    else is another name. The answer has no prices for a version that is younger than they are,
    and no floor of quality for a quantized one.
    """
    if len(model_id) > _LONGEST:
        return None
    name = model_id.strip().casefold()
    folders = _FOLDERS.match(name)
    name = name[folders.end() :] if folders else name
    if cloud := _CLOUD.fullmatch(name):
        name = cloud["name"]
    names = _names()
    if (exact := names.get(name)) is not None:
        return exact
    name = _TERMS.sub("", name).removesuffix(".gguf")
    smaller = None if name in names else _SMALLER.search(name)
    if smaller:
        name = name[: smaller.start()]
    date = None
    if (found := names.get(name)) is None:
        date = _DATED.search(name)
        found = names.get(name[: date.start()]) if date else None
    if found is None:
        return None
    if smaller:
        found = msgspec.structs.replace(found, quality_floor=None)
    if date and found.as_of and "-".join(date.group("year", "month", "day")) > found.as_of:
        found = msgspec.structs.replace(found, pricing=None, as_of=None)
    return found


def is_maker(model: Known, base_url: str) -> bool:
    """Whether the API at this address is that of the model's own maker, over TLS."""
    parts = urlsplit(base_url)
    maker = _table().makers.get(model.maker)
    return parts.scheme == "https" and maker is not None and parts.hostname in maker.hosts


def every() -> tuple[Known, ...]:
    """All models of the table."""
    return _table().models


@cache
def _table() -> _Table:
    return msgspec.json.decode(_FILE.read_bytes(), type=_Table)


@cache
def _names() -> dict[str, Known]:
    return {name: model for model in _table().models for name in (model.id, *model.aliases)}
