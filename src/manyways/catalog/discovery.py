"""What providers say about their own models, in whatever shape they say it.

`parse` reads the answer of a provider's list of models. The shapes it knows, by their fields:

- OpenAI, DeepSeek, Ollama: `{"data": [{"id", "created"}]}` (`data` is null where Ollama has
  none);
- Anthropic: `created_at`, `max_input_tokens`, `max_tokens`, `capabilities` as objects;
- Gemini: `{"models": [{"name": "models/...", "inputTokenLimit", "outputTokenLimit",
  "supportedGenerationMethods", "thinking"}]}`; its lookalike of OpenAI's list has names that
  begin so, too. It can be asked with or without `models/`, so ids are without;
- OpenRouter: `context_length`, `architecture`, `pricing`, `supported_parameters`,
  `top_provider`;
- Groq: `context_window`, `max_completion_tokens`, `active`;
- Mistral: `max_context_length`, `capabilities` as flags, `aliases`;
- Together: a bare list, `type`, `pricing` for a million tokens;
- Cohere: `{"models": [{"name", "endpoints", "context_length"}]}`;
- DeepInfra: `metadata` with `context_length`, `max_tokens`, `tags`, and `pricing` for a million
  tokens;
- GitHub Models: a bare list, `limits`, `supported_input_modalities`; in its former one, `id` is
  an address and `name` the model's;
- Cloudflare: `{"result": [{"name": "@cf/...", "task": {"name"}, "properties": [{"property_id",
  "value"}]}]}`;
- Pollinations: a bare list, of objects (`name`, `aliases`, `input_modalities`, flags) or, of
  pictures, also of names;
- Ollama's own: `{"models": [{"name", "model", "modified_at", "details": {"families"}}]}`;
- LM Studio: `loaded_context_length`, `type` (`llm`, `vlm`); New API: `supported_endpoint_types`;
- vLLM: `max_model_len`; llama.cpp: `meta.n_ctx`, `meta.n_ctx_train`;
- g4f: the flags `image`, `vision`, `audio`, `video`, and providers listed among the models;
- this gateway itself: `category`, `capabilities`, `modalities`, `max_output_tokens`.

Prices become USD as floats, under the names in `PRICES`: for a token where they speak of
tokens, for one piece otherwise. A price that is negative, which is how "it depends" is
written, or whose unit is not certain, is left out.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from manyways.catalog.claims import Discovered
from manyways.catalog.descriptions import (
    PRICES,
    capabilities,
    category,
    made_of,
    modalities,
    pricing,
    tables,
)
from manyways.catalog.readings import decoded, decoded_leniently, first_count, moment, name
from manyways.errors import ManywaysError

__all__ = ["MAX_MODELS", "PRICES", "BadModelList", "Discovered", "parse"]

MAX_MODELS: Final = 10_000
"""More than any provider has. A longer list is refused rather than held."""

_LISTS: Final = ("data", "models", "result")
_CONTEXT: Final = (
    "loaded_context_length",
    "context_window",
    "context_length",
    "max_context_length",
    "max_model_len",
    "max_input_tokens",
    "inputTokenLimit",
)
_OUTPUT: Final = (
    "max_output_tokens",
    "max_completion_tokens",
    "max_output_length",
    "outputTokenLimit",
)
_MOST_ALIASES: Final = 32

_PLAIN_TEXT: Final = re.compile(
    r"gpt-?[345o]|\bo[134]\b|claude|gemini|llama|mistral|qwen|deepseek|command|gemma|grok|phi-?\d"
    r"|openai|searchgpt"
)
_OPAQUE: Final = re.compile(r"azureml://|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


class BadModelList(ManywaysError):
    """What a provider sent is no list of models. `str()` says what it was instead."""


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
        return _models(decoded(text))
    except (ValueError, RecursionError) as error:
        # One letter or number that cannot be need not cost all the other models.
        models = _models(_anyhow(text))
        if not models:
            raise BadModelList(f"the answer is not JSON: {error}") from error
        return models


def _anyhow(text: bytes) -> Any:
    try:
        return decoded_leniently(text)
    except (ValueError, RecursionError) as error:
        raise BadModelList(f"the answer is not JSON: {error}") from error


def _models(answer: object) -> tuple[Discovered, ...]:
    entries = _entries(answer)
    found: dict[str, Discovered] = {}
    for model in _named(entries) or map(_model, entries):
        if model is not None:
            found.setdefault(model.id, model)
    return tuple(found.values())


def _entries(answer: object) -> list[Any]:
    listed = answer
    if isinstance(answer, dict):
        key = next((key for key in _LISTS if key in answer), None)
        if key is not None:
            listed = answer[key]
        elif "error" in answer:
            raise BadModelList("the answer is an error, not a list of models")
        if listed is None:
            return []
    if not isinstance(listed, list):
        raise BadModelList("the answer is JSON, but not a list of models")
    if len(listed) > MAX_MODELS:
        raise BadModelList(f"the answer lists {len(listed)} models; we take {MAX_MODELS}")
    return listed


def _named(entries: list[Any]) -> list[Discovered]:
    """Models of a list of bare names; none where it is another list.

    A list of picture models names some whose name says nothing (`turbo`): where names tell of
    one category, and none of a model of text, they are all of that category.
    """
    if not all(isinstance(entry, str) for entry in entries):
        return []
    models = [model for entry in entries if (model := _model(entry))]
    kinds = {model.category for model in models} - {"text"}
    if len(kinds) == 1 and not any(_PLAIN_TEXT.search(m.id.casefold()) for m in models):
        (kind,) = kinds
        models = [Discovered(id=m.id, upstream_id=m.upstream_id, category=kind) for m in models]
    return models


def _model(entry: object) -> Discovered | None:
    if isinstance(entry, str):
        entry = {"id": entry}
    if not isinstance(entry, dict) or entry.get("active") is False or entry.get("provider") is True:
        return None
    told_id = _name(entry)
    if told_id is None:
        return None
    model_id = told_id.removeprefix("models/") or told_id
    inputs, outputs = modalities(entry)
    kind = category(model_id, entry, inputs, outputs)
    if kind is None:
        return None
    facts = tables(entry)
    output = first_count(facts, _OUTPUT)
    if output is None and ("metadata" in entry or "max_input_tokens" in entry):
        output = first_count(facts, ("max_tokens",))
    has, lacks = capabilities(entry, facts, inputs, kind)
    return Discovered(
        id=model_id,
        upstream_id=None if told_id == model_id else told_id,
        aliases=_aliases(entry, told_id),
        created=_created(entry),
        category=kind,
        context_window=first_count(facts, _CONTEXT),
        max_output_tokens=output,
        capabilities=has or None,
        lacks=lacks,
        modalities=tuple(dict.fromkeys((*inputs, *outputs))) or made_of(entry),
        pricing=pricing(facts),
    )


def _name(entry: Mapping[str, Any]) -> str | None:
    """What it is asked for by. Names for people have blanks in them."""
    key = next((key for key in ("id", "model", "name") if key in entry), "id")
    found, other = name(entry.get(key)), name(entry.get("name"))
    readable = other is not None and " " not in other
    if found is None or (key == "name" and not readable):
        return None
    return other if readable and _OPAQUE.match(found) else found


def _aliases(entry: Mapping[str, Any], told_id: str) -> tuple[str, ...]:
    listed = entry.get("aliases")
    names = map(name, listed if isinstance(listed, list) else (listed,))
    return tuple(dict.fromkeys(n for n in names if n and n != told_id))[:_MOST_ALIASES]


def _created(entry: Mapping[str, Any]) -> int | None:
    return next(
        (at for key in ("created", "created_at", "modified_at") if (at := moment(entry.get(key)))),
        None,
    )
