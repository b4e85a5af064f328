"""What providers say about their own models, in whatever shape they say it.

`parse` reads the answer of a provider's `GET /models`. The shapes it knows, by their fields:

- OpenAI, DeepSeek, Ollama: `{"data": [{"id", "created"}]}` (`data` is null where Ollama has
  none);
- OpenRouter: `context_length`, `architecture`, `pricing`, `supported_parameters`,
  `top_provider`;
- Groq: `context_window`, `max_completion_tokens`, `active`;
- Mistral: `max_context_length`, `capabilities` as flags;
- Together: a bare list, `type`, `pricing` for a million tokens;
- vLLM: `max_model_len`; llama.cpp: `meta.n_ctx`, `meta.n_ctx_train`;
- g4f: the flags `image`, `vision`, `audio`, `video`, and providers listed among the models;
- this gateway itself: `category`, `capabilities`, `modalities`, `max_output_tokens`.

Prices become USD as floats, under the names in `PRICES`: for a token where they speak of
tokens, for one piece otherwise. A price that is negative, which is how "it depends" is
written, or whose unit is not certain, is left out.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from manyways.catalog import categories
from manyways.errors import ManywaysError
from manyways.types import Capability, Category, Model, Provider

PRICES: Final = (
    "prompt",
    "completion",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
    "request",
    "image",
    "web_search",
)
"""The keys of `pricing`: the first five for a token, the others for one piece."""

MAX_MODELS: Final = 10_000
"""More than any provider has. A longer list is refused rather than held."""

_CAPABILITIES: Final[tuple[str, ...]] = get_args(Capability)
_MAX_ID: Final = 256
_MAX_TOKENS: Final = 10**9
_MAX_MOMENT: Final = 253_402_300_799  # the last second of the year 9999
_MILLION: Final = 1_000_000
_EXPONENT: Final = 300

_CONTEXT: Final = ("context_window", "context_length", "max_context_length", "max_model_len")
_OUTPUT: Final = ("max_output_tokens", "max_completion_tokens", "max_output_length")
_PARAMETERS: Final[dict[str, Capability]] = {
    "tools": "tools",
    "function_calling": "tools",
    "structured_outputs": "json_schema",
    "json_schema": "json_schema",
    "reasoning": "reasoning",
    "include_reasoning": "reasoning",
    "vision": "vision",
    "web_search": "web_search",
    "web_search_options": "web_search",
    "streaming": "streaming",
    "prefill": "prefill",
}
"""Names of parameters, features and flags, and the capability each is evidence of."""

_MODALITIES: Final[dict[str, str]] = {
    "embeddings": "embedding",
    "speech": "audio",
    "transcription": "audio",
}


class BadModelList(ManywaysError):
    """What a provider sent is no list of models. `str()` says what it was instead."""


class Discovered(Struct, frozen=True, kw_only=True):
    """One model as its provider describes it. `None`: the provider does not say."""

    id: str
    created: int | None = None
    category: Category = "text"
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] | None = None
    modalities: tuple[str, ...] | None = None
    pricing: dict[str, float] | None = None


def parse(body: bytes) -> tuple[Discovered, ...]:
    """The models in the answer to a provider's `GET /models`, in its order, ids unique.

    Entries without a usable id are skipped, as are those that can be asked nothing that we
    serve (rerankers, models marked inactive). Values that make no sense count as not given.
    Raises `BadModelList`, and nothing else, where the answer as a whole is no list of models.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        raise BadModelList("the answer is empty")
    if text.startswith(b"<"):
        raise BadModelList("the answer is a web page, not a list of models")
    try:
        return _models(_DECODER.decode(text))
    except (ValueError, RecursionError) as error:
        # One letter or number that cannot be need not cost all the other models.
        models = _models(_decoded_leniently(text))
        if not models:
            raise BadModelList(f"the answer is not JSON: {error}") from error
        return models


def _models(answer: object) -> tuple[Discovered, ...]:
    found: dict[str, Discovered] = {}
    for entry in _entries(answer):
        model = _model({"id": entry} if isinstance(entry, str) else entry)
        if model is not None:
            found.setdefault(model.id, model)
    return tuple(found.values())


def merge(
    provider: Provider,
    discovered: Iterable[Discovered],
    *,
    now: float,
    known: Iterable[Model] = (),
) -> tuple[Model, ...]:
    """The provider's rows of the catalog.

    A list of models in the configuration is the whole list and its values win; `discovered`
    then only fills in what it leaves open. Without one, what was discovered is the list.
    `known` are the provider's rows so far: what has been measured is kept from them, and
    `created`, where the provider does not tell it, is when we first saw the model.
    """
    before = {model.id: model for model in known if model.provider == provider.name}
    details = {model.id: model for model in discovered}
    if provider.models is None:
        return tuple(
            _row(provider, model, msgspec.structs.asdict(model), before.get(model.id), now)
            for model in details.values()
        )
    rows: dict[str, Model] = {}
    for entry in provider.models:
        upstream_id = entry.upstream_id or entry.id
        detail = details.get(upstream_id) or Discovered(
            id=upstream_id, category=categories.of_id(upstream_id) or "text"
        )
        given = {
            field: value
            for field, value in msgspec.structs.asdict(entry).items()
            if value is not None
        }
        values = msgspec.structs.asdict(detail) | given
        rows.setdefault(entry.id, _row(provider, detail, values, before.get(entry.id), now))
    return tuple(rows.values())


def _row(
    provider: Provider,
    detail: Discovered,
    values: Mapping[str, Any],
    previous: Model | None,
    now: float,
) -> Model:
    created = detail.created
    if created is None:
        created = int(now) if previous is None else previous.created
    row = Model(
        id=values["id"],
        provider=provider.name,
        upstream_id=detail.id,
        created=created,
        category=values["category"],
        context_window=values["context_window"],
        max_output_tokens=values["max_output_tokens"],
        capabilities=_in_order(values["capabilities"] or ()),
        modalities=values["modalities"],
        pricing=values["pricing"],
    )
    if previous is None:
        return row
    return msgspec.structs.replace(
        row,
        status=previous.status,
        latency_ms=previous.latency_ms,
        quality_score=previous.quality_score,
        last_verified=previous.last_verified,
        uptime_24h=previous.uptime_24h,
    )


# Reading.  Everything below takes values of any type and gives only what makes sense.


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


_DECODER: Final = msgspec.json.Decoder(float_hook=_decimal)


def _decoded_leniently(text: bytes) -> Any:
    """JSON in which texts may hold surrogates, and numbers any count of digits."""
    try:
        return json.loads(
            text.decode(errors="surrogateescape"), parse_int=_decimal, parse_float=_decimal
        )
    except (ValueError, RecursionError) as error:
        raise BadModelList(f"the answer is not JSON: {error}") from error


def _entries(answer: object) -> list[Any]:
    listed = answer
    if isinstance(answer, dict):
        if "data" in answer:
            listed = answer["data"]
        elif "models" in answer:
            listed = answer["models"]
        elif "error" in answer:
            raise BadModelList("the answer is an error, not a list of models")
        if listed is None:
            return []
    if not isinstance(listed, list):
        raise BadModelList("the answer is JSON, but not a list of models")
    if len(listed) > MAX_MODELS:
        raise BadModelList(f"the answer lists {len(listed)} models; we take {MAX_MODELS}")
    return listed


def _model(entry: object) -> Discovered | None:
    if not isinstance(entry, dict):
        return None
    model_id = _id(entry.get("id", entry.get("model")))
    if model_id is None or entry.get("active") is False or entry.get("provider") is True:
        return None
    inputs, outputs = _modalities(entry)
    category = _category(model_id, entry, inputs, outputs)
    if category is None:
        return None
    top, meta = _table(entry, "top_provider"), _table(entry, "meta")
    context = _first_count(entry, _CONTEXT)
    if context is None:
        # What a server has room for bounds a request sooner than what the model learnt with.
        context = _count(meta.get("n_ctx")) or _count(meta.get("n_ctx_train"))
    return Discovered(
        id=model_id,
        created=_moment(entry.get("created")),
        category=category,
        context_window=context or _count(top.get("context_length")),
        max_output_tokens=_first_count(entry, _OUTPUT) or _first_count(top, _OUTPUT),
        capabilities=_capabilities(entry, inputs, category),
        modalities=tuple(dict.fromkeys((*inputs, *outputs))) or _stated_modalities(entry),
        pricing=_pricing(entry.get("pricing")),
    )


def _id(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    model_id = value.strip()
    return model_id if 0 < len(model_id) <= _MAX_ID and model_id.isprintable() else None


def _table(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _words(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (
            word.casefold() for word in value if isinstance(word, str) and word.isprintable()
        )


def _count(value: object) -> int | None:
    """A number of tokens, if it can be one."""
    number = _number(value)
    if number is None or not 1 <= number <= _MAX_TOKENS:
        return None
    return int(number)


def _first_count(entry: Mapping[str, Any], names: Iterable[str]) -> int | None:
    return next((n for name in names if (n := _count(entry.get(name))) is not None), None)


def _moment(value: object) -> int | None:
    """Unix seconds, if it can be a moment; 0 is how some say that they do not know."""
    number = _number(value)
    return int(number) if number is not None and 1 <= number <= _MAX_MOMENT else None


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    if isinstance(value, str) and len(value) > 64:
        return None
    number = _decimal(value) if isinstance(value, str) else Decimal(value)
    # Beyond these exponents lies no price and no size, but what arithmetic cannot hold.
    return number if number.is_finite() and abs(number.adjusted()) <= _EXPONENT else None


def _modalities(entry: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the model takes, and what it gives; empty where it does not say."""
    table = _table(entry, "architecture") or entry
    inputs, outputs = (
        tuple(_MODALITIES.get(word, word) for word in _words(table.get(f"{way}_modalities")))
        for way in ("input", "output")
    )
    arrow = table.get("modality")
    if inputs or outputs or not isinstance(arrow, str) or not arrow.isprintable():
        return inputs[:16], outputs[:16]
    if arrow.count("->") == 1:
        inputs, outputs = (
            tuple(word for word in side.casefold().split("+") if word) for side in arrow.split("->")
        )
    return inputs[:16], outputs[:16]


def _stated_modalities(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(_words(entry.get("modalities"))))[:16] or None


def _category(
    model_id: str, entry: Mapping[str, Any], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Category | None:
    """What it says, then what it gives, then what its id tells. `None`: nothing we serve."""
    for name in ("category", "type", "task"):
        word = entry.get(name)
        if isinstance(word, str) and word.casefold() in categories.TYPES:
            return categories.TYPES[word.casefold()]
    for flag in ("image", "audio", "video"):
        if entry.get(flag) is True:
            return categories.TYPES[flag]
    if inputs and "text" not in inputs and set(outputs) == {"text"} and "audio" in inputs:
        return "audio"
    if set(outputs) == {"text"}:
        return "text"
    if outputs and "text" not in outputs:
        return next((categories.TYPES[o] for o in outputs if o in categories.TYPES), None)
    guess = categories.of_id(model_id)
    flags = _table(entry, "capabilities")
    says_no = flags.get("completion_chat") is False and flags.get("completion_fim") is not True
    return None if guess == "text" and says_no else guess


def _capabilities(
    entry: Mapping[str, Any], inputs: tuple[str, ...], category: Category
) -> tuple[str, ...] | None:
    said: list[str] = []
    for name in ("supported_parameters", "supported_features", "capabilities"):
        said.extend(_words(entry.get(name)))
    flags = (*_table(entry, "capabilities").items(), *entry.items())
    said.extend(name for name, value in flags if value is True)
    found = {_PARAMETERS[word] for word in said if word in _PARAMETERS}
    if category == "text" and "image" in inputs:
        found.add("vision")
    return _in_order(found) or None


def _in_order(capabilities: Iterable[str]) -> tuple[str, ...]:
    given = set(capabilities)
    return tuple(name for name in _CAPABILITIES if name in given)


def _pricing(value: object) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    if "input" in value and "hourly" in value:
        prices = {
            "prompt": _price(value["input"], per=_MILLION),
            "completion": _price(value.get("output"), per=_MILLION),
        }
        if not any(prices.values()):
            return None  # zeros stand there for models that are not priced by the token
    else:
        prices = {name: _price(value.get(name)) for name in PRICES}
    return {name: price for name, price in prices.items() if price is not None} or None


def _price(value: object, per: int = 1) -> float | None:
    number = _number(value)
    if number is None or number < 0:
        return None
    price = float(number if per == 1 else number / per)
    return price if math.isfinite(price) else None
