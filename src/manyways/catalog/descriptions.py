"""What an entry of a provider's list says of its model: its category, its capabilities, its
modalities and prices. Which shapes there are stands in `discovery`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from manyways.catalog import categories
from manyways.catalog.claims import guess, in_order
from manyways.catalog.readings import MILLION, count, flag, price, table, word, words
from manyways.types import Capability, Category

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

_MOST_MODALITIES: Final = 16

_ABILITIES: Final[dict[str, Capability]] = {
    **dict.fromkeys(
        (
            "tools",
            "tool_use",
            "tool-use",
            "tool-calling",
            "tool_calling",
            "function_calling",
            "function-calling",
        ),
        "tools",
    ),
    **dict.fromkeys(("structured_outputs", "json_schema"), "json_schema"),
    **dict.fromkeys(("reasoning", "include_reasoning", "thinking"), "reasoning"),
    **dict.fromkeys(("vision", "image_input"), "vision"),
    **dict.fromkeys(("web_search", "web_search_options", "search"), "web_search"),
    "streaming": "streaming",
    "prefill": "prefill",
}
"""Names of parameters, features, tags and flags, and the capability each is evidence of."""

_OF_PARAMETERS: Final = frozenset({"tools", "json_schema", "reasoning"})
"""What a model lacks that does not name it among the parameters it takes."""

_MODALITIES: Final[dict[str, str]] = {
    "embeddings": "embedding",
    "speech": "audio",
    "transcription": "audio",
}

_USES: Final[tuple[tuple[frozenset[str], Category | Literal["unserved"] | None], ...]] = (
    (frozenset({"image-generation"}), "image"),
    (frozenset({"openai-video", "predictlongrunning"}), "video"),
    (
        frozenset(
            {"chat", "generate", "openai", "openai-response", "anthropic", "gemini"}
            | {"generatecontent", "generatemessage", "generatetext", "predict"}
        ),
        None,
    ),
    (frozenset({"embed", "embeddings", "embedcontent", "embedtext"}), "embedding"),
    (frozenset({"transcribe", "transcriptions"}), "audio"),
    (
        frozenset({"rerank", "jina-rerank", "classify", "bidigeneratecontent", "generateanswer"}),
        "unserved",
    ),
)
"""The endpoints and methods that providers list, in the order in which they decide. Pictures and
speech come through `chat`, `generateContent` and `predict` as well: there, the id tells more."""


def tables(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Where its facts stand, the nearest first."""
    listed = entry.get("properties")
    properties = {
        key: one.get("value")
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and isinstance(key := one.get("property_id"), str)
    }
    room: dict[str, Any] = {}
    if meta := table(entry, "meta"):
        # What a server has room for bounds a request sooner than what the model learnt with.
        room["context_length"] = count(meta.get("n_ctx")) or count(meta.get("n_ctx_train"))
    limits, metadata, top = (table(entry, k) for k in ("limits", "metadata", "top_provider"))
    return (entry, *(one for one in (limits, metadata, properties, room, top) if one))


def modalities(entry: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the model takes, and what it gives; empty where it does not say."""
    said = table(entry, "architecture") or entry
    inputs, outputs = (
        tuple(
            _MODALITIES.get(one, one)
            for key in (f"{way}_modalities", f"supported_{way}_modalities")
            for one in words(said.get(key))
        )
        for way in ("input", "output")
    )
    arrow = said.get("modality")
    if inputs or outputs or not isinstance(arrow, str) or not arrow.isprintable():
        return inputs[:_MOST_MODALITIES], outputs[:_MOST_MODALITIES]
    if arrow.count("->") == 1:
        inputs, outputs = (
            tuple(one for one in side.casefold().split("+") if one) for side in arrow.split("->")
        )
    return inputs[:_MOST_MODALITIES], outputs[:_MOST_MODALITIES]


def made_of(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The modalities of those who do not tell what is taken from what is given."""
    return tuple(dict.fromkeys(words(entry.get("modalities"))))[:_MOST_MODALITIES] or None


_Kind = Category | Literal["unserved"] | None
"""What something tells of a model's category. `None`: nothing."""


def category(
    model_id: str, entry: Mapping[str, Any], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Category | None:
    """What it says, then what it gives, then what its id tells. `None`: nothing we serve."""
    for told in (
        _by_type(entry),
        _by_output(inputs, outputs),
        _by_flag(entry),
        _by_use(entry),
        _by_id(model_id, entry),
    ):
        if told is not None:
            return None if told == "unserved" else told
    return None


def _by_type(entry: Mapping[str, Any]) -> _Kind:
    task = table(entry, "task").get("name") or entry.get("task")
    for said in map(word, (entry.get("category"), entry.get("type"), task)):
        if said in categories.TYPES:
            return categories.TYPES[said] or "unserved"
    return None


def _by_output(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> _Kind:
    if set(outputs) == {"text"}:
        return "audio" if "audio" in inputs and "text" not in inputs else "text"
    if outputs and "text" not in outputs:
        return next((categories.TYPES[o] for o in outputs if o in categories.TYPES), "unserved")
    return None


def _by_flag(entry: Mapping[str, Any]) -> _Kind:
    kinds: tuple[Category, ...] = ("image", "audio", "video")
    return next((kind for kind in kinds if entry.get(kind) is True), None)


def _by_use(entry: Mapping[str, Any]) -> _Kind:
    if any("bert" in family for family in words(table(entry, "details").get("families"))):
        return "embedding"
    listed = {
        use
        for key in ("endpoints", "supportedGenerationMethods", "supported_endpoint_types")
        for use in words(entry.get(key))
    }
    return next((kind for uses, kind in _USES if listed & uses), None)


def _by_id(model_id: str, entry: Mapping[str, Any]) -> _Kind:
    guessed = guess(model_id)
    flags = table(entry, "capabilities")
    says_no = flags.get("completion_chat") is False and flags.get("completion_fim") is not True
    return "unserved" if guessed == "text" and says_no else guessed


def capabilities(
    entry: Mapping[str, Any],
    facts: Iterable[Mapping[str, Any]],
    inputs: tuple[str, ...],
    category: Category,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the model is said to be capable of, and what it is said not to be capable of."""
    has: set[str] = set()
    lacks: set[str] = set()
    for key in ("supported_parameters", "supported_features"):
        if parameters := set(words(entry.get(key))):
            has |= {_ABILITIES[one] for one in parameters if one in _ABILITIES}
            lacks |= _OF_PARAMETERS
    has |= {_ABILITIES[one] for one in words(entry.get("capabilities")) if one in _ABILITIES}
    has |= {
        _ABILITIES[one] for one in words(table(entry, "metadata").get("tags")) if one in _ABILITIES
    }
    for flags in (table(entry, "capabilities"), *facts):
        for one in flags.keys() & _ABILITIES.keys():
            match flag(flags[one]):
                case True:
                    has.add(_ABILITIES[one])
                case False:
                    lacks.add(_ABILITIES[one])
    if {"clip", "mllama"} & {*words(table(entry, "details").get("families"))}:
        has.add("vision")
    if category == "text" and ("image" in inputs or word(entry.get("type")) == "vlm"):
        has.add("vision")
    elif inputs:
        lacks.add("vision")
    return in_order(has), in_order(lacks - has)


def pricing(facts: tuple[Mapping[str, Any], ...]) -> dict[str, float] | None:
    """USD, by `PRICES`."""
    given: dict[str, Any] | None = next(
        (p for one in facts if isinstance(p := one.get("pricing"), dict)), None
    )
    prices: dict[str, float | None]
    if given is None:
        listed: list[Any] = next((p for t in facts if isinstance(p := t.get("price"), list)), [])
        prices = _priced_by_unit(listed)
    elif word(given.get("currency", "usd")) != "usd":
        return None  # some have a money of their own
    elif "input" in given and "hourly" in given:
        prices = {
            "prompt": price(given["input"], per=MILLION),
            "completion": price(given.get("output"), per=MILLION),
        }
        if not any(prices.values()):
            return None  # zeros stand there for models that are not priced by the token
    elif "input_tokens" in given:
        prices = {
            "prompt": price(given.get("input_tokens"), per=MILLION),
            "completion": price(given.get("output_tokens"), per=MILLION),
            "input_cache_read": price(given.get("cache_read_tokens"), per=MILLION),
        }
    else:
        prices = {key: price(given.get(key)) for key in PRICES}
    return {key: usd for key, usd in prices.items() if usd is not None} or None


_UNITS: Final = {
    "per-m-input-tokens": "prompt",
    "per-m-output-tokens": "completion",
    "per-m-cached-input-tokens": "input_cache_read",
}


def _priced_by_unit(listed: list[Any]) -> dict[str, float | None]:
    return {
        _UNITS[unit]: price(one.get("price"), per=MILLION)
        for one in listed
        if isinstance(one, dict)
        and (unit := word(one.get("unit"))) in _UNITS
        and word(one.get("currency")) == "usd"
    }
