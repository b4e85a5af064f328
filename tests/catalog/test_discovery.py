import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.discovery import MAX_MODELS, PRICES, BadModelList, Discovered, parse
from manyways.types import CATEGORIES, Capability

from .answers import SHAPES, answer


def found(shape: str) -> dict[str, Discovered]:
    return {model.id: model for model in parse(answer(shape))}


def one(**entry: Any) -> Discovered:
    (model,) = parse(msgspec.json.encode([{"id": "m", **entry}]))
    return model


# Shapes


def test_openai_tells_ids_and_dates_and_the_ids_tell_the_category() -> None:
    models = parse(answer("openai"))
    assert [(m.id, m.category) for m in models] == [
        ("gpt-4o", "text"),
        ("text-embedding-3-small", "embedding"),
        ("dall-e-3", "image"),
        ("gpt-4o-mini-tts", "audio"),
        ("sora-2", "video"),
    ]
    assert models[0] == Discovered(id="gpt-4o", created=1715367049)


def test_openrouter_tells_nearly_everything() -> None:
    models = found("openrouter")
    assert models["anthropic/claude-sonnet-4"] == Discovered(
        id="anthropic/claude-sonnet-4",
        created=1747930371,
        category="text",
        context_window=1000000,
        max_output_tokens=64000,
        capabilities=("tools", "vision", "json_schema", "reasoning"),
        modalities=("image", "text"),
        pricing={
            "prompt": 0.000003,
            "completion": 0.000015,
            "input_cache_read": 0.0000003,
            "request": 0.0,
            "image": 0.0048,
        },
    )


def test_a_price_that_depends_is_not_a_price() -> None:
    assert found("openrouter")["openrouter/auto"].pricing is None


def test_a_model_that_gives_pictures_beside_text_is_judged_by_its_name() -> None:
    models = found("openrouter")
    assert models["openrouter/auto"].category == "text"
    assert models["google/gemini-2.5-flash-image"].category == "image"


def test_groq_tells_windows_and_what_is_switched_off_is_left_out() -> None:
    models = found("groq")
    assert list(models) == ["llama-3.3-70b-versatile", "whisper-large-v3"]
    llama = models["llama-3.3-70b-versatile"]
    assert (llama.context_window, llama.max_output_tokens) == (131072, 32768)
    assert models["whisper-large-v3"].category == "audio"


def test_mistral_tells_capabilities_and_what_we_cannot_ask_is_left_out() -> None:
    models = found("mistral")
    assert list(models) == ["mistral-medium-2508", "mistral-embed"]
    assert models["mistral-medium-2508"].capabilities == ("tools", "vision")
    assert models["mistral-medium-2508"].context_window == 131072
    assert models["mistral-embed"].category == "embedding"


def test_together_sends_a_bare_list_with_prices_for_a_million_tokens() -> None:
    models = found("together")
    llama = models["meta-llama/Llama-3.3-70B-Instruct-Turbo"]
    assert llama.pricing == {"prompt": 8.8e-07, "completion": 8.8e-07}
    flux = models["black-forest-labs/FLUX.1-schnell"]
    assert (flux.category, flux.pricing, flux.created) == ("image", None, None)
    assert "Salesforce/Llama-Rank-V1" not in models


def test_vllm_and_llama_cpp_tell_what_they_have_room_for() -> None:
    assert found("vllm")["Qwen/Qwen3-8B"].context_window == 40960
    models = found("llama.cpp")
    assert models["small.gguf"].context_window == 8192
    assert models["shared.gguf"].context_window == 4096


def test_ollama_without_models_sends_null() -> None:
    assert [m.category for m in parse(answer("ollama"))] == ["text", "embedding"]
    assert parse(b'{"object":"list","data":null}') == ()


def test_deepseek_tells_only_names_and_nothing_is_made_up() -> None:
    assert parse(answer("deepseek"))[0] == Discovered(id="deepseek-chat")


def test_g4f_lists_providers_among_its_models_which_they_are_not() -> None:
    models = found("g4f")
    assert list(models) == ["gpt-4o", "midjourney-x"]
    assert models["gpt-4o"] == Discovered(id="gpt-4o", capabilities=("vision",))
    assert models["midjourney-x"].category == "image"


def test_anthropic_tells_dates_and_lately_sizes_and_abilities() -> None:
    models = found("anthropic")
    assert models["claude-sonnet-4-20250514"] == Discovered(
        id="claude-sonnet-4-20250514", created=1747180800
    )
    assert models["claude-future-9"] == Discovered(
        id="claude-future-9",
        created=1772361000,
        context_window=1000000,
        max_output_tokens=128000,
        capabilities=("vision", "reasoning"),
        lacks=("json_schema",),
    )


def test_gemini_is_asked_by_what_it_says_and_known_without_the_folder() -> None:
    models = found("gemini")
    assert models["gemini-2.5-flash"] == Discovered(
        id="gemini-2.5-flash",
        upstream_id="models/gemini-2.5-flash",
        context_window=1048576,
        max_output_tokens=65536,
        capabilities=("reasoning",),
    )
    assert {model.id: model.category for model in models.values()} == {
        "gemini-2.5-flash": "text",
        "gemini-embedding-001": "embedding",
        "imagen-4.0-generate-001": "image",
        "veo-9-future": "video",
    }
    lookalike = found("gemini as openai")
    assert lookalike["gemini-2.5-pro"].upstream_id == "models/gemini-2.5-pro"
    assert lookalike["text-embedding-004"].category == "embedding"


def test_cohere_tells_endpoints_and_what_only_sorts_is_left_out() -> None:
    models = found("cohere")
    assert [(m.id, m.category, m.context_window) for m in models.values()] == [
        ("command-r-plus-08-2024", "text", 132096),
        ("embed-v9.0", "embedding", 8192),
    ]


def test_deepinfra_tells_prices_for_a_million_tokens_beside_its_facts() -> None:
    models = found("deepinfra")
    assert models["Qwen/Qwen3-235B-A22B-Instruct-2507"] == Discovered(
        id="Qwen/Qwen3-235B-A22B-Instruct-2507",
        created=1753142400,
        context_window=262144,
        max_output_tokens=16384,
        capabilities=("reasoning",),
        pricing={"prompt": 1.3e-07, "completion": 6e-07, "input_cache_read": 5e-08},
    )
    assert models["BAAI/bge-m3"].category == "embedding"


def test_github_tells_limits_and_formerly_hid_the_name_behind_an_address() -> None:
    models = found("github")
    assert models["openai/gpt-4.1"] == Discovered(
        id="openai/gpt-4.1",
        context_window=1048576,
        max_output_tokens=32768,
        capabilities=("tools", "vision", "streaming"),
        modalities=("text", "image"),
    )
    assert models["openai/text-embedding-3-large"].category == "embedding"
    assert list(found("github, formerly")) == ["gpt-4o"]


def test_cloudflare_tells_properties_and_tasks_that_we_cannot_ask_are_left_out() -> None:
    models = found("cloudflare")
    assert list(models) == ["@cf/meta/llama-3.1-8b-instruct-fp8", "@cf/lykon/dreamshaper-8-lcm"]
    assert models["@cf/meta/llama-3.1-8b-instruct-fp8"] == Discovered(
        id="@cf/meta/llama-3.1-8b-instruct-fp8",
        context_window=32000,
        capabilities=("tools",),
        pricing={"prompt": 1.5e-07, "completion": 2.9e-07},
    )
    assert models["@cf/lykon/dreamshaper-8-lcm"].category == "image"


def test_pollinations_tells_flags_and_what_goes_in_and_comes_out() -> None:
    models = found("pollinations")
    assert models["openai-fast"] == Discovered(
        id="openai-fast",
        aliases=("gpt-5-nano",),
        capabilities=("tools", "vision"),
        modalities=("text", "image"),
    )
    assert models["listener"].category == "text"
    assert (models["speaker"].category, models["speaker"].aliases) == (
        "audio",
        ("gpt-4o-mini-audio-preview",),
    )
    assert models["thinker"].capabilities == ("reasoning",)
    assert models["thinker"].lacks == ("tools", "vision")


def test_bare_names_of_picture_models_are_of_picture_models_all_of_them() -> None:
    pictures = parse(answer("pollinations, pictures"))
    assert [(m.id, m.category) for m in pictures] == [
        ("flux", "image"),
        ("turbo", "image"),
        ("gptimage", "image"),
    ]
    mixed = parse(b'["gpt-4o", "flux", "turbo"]')
    assert [m.category for m in mixed] == ["text", "image", "text"]
    assert [m.category for m in parse(b'["alpha", "beta"]')] == ["text", "text"]


def test_prices_in_a_money_of_their_own_are_no_prices() -> None:
    (model,) = parse(answer("pollinations, pictures with prices"))
    assert (model.category, model.pricing, model.aliases) == ("image", None, ("z-image",))


def test_ollamas_own_list_tells_families() -> None:
    models = found("ollama's own")
    assert models["llama3.1:8b"] == Discovered(id="llama3.1:8b", created=1756973472)
    assert models["snowflake-arctic:latest"].category == "embedding"
    assert models["looker:7b"].capabilities == ("vision",)


def test_lm_studio_has_room_for_what_it_has_loaded() -> None:
    models = found("lm studio")
    assert models["somebody-7b"] == Discovered(
        id="somebody-7b", context_window=4096, capabilities=("tools", "vision")
    )
    assert models["another"].category == "embedding"


def test_new_api_tells_what_each_model_can_be_asked() -> None:
    assert {model.id: model.category for model in parse(answer("new api"))} == {
        "painter-2": "image",
        "vectors-2": "embedding",
        "talker-2": "text",
        "director-2": "video",
    }


def test_a_parameter_that_is_not_named_among_the_others_is_lacking() -> None:
    model = one(supported_parameters=["max_tokens", "reasoning"])
    assert (model.capabilities, model.lacks) == (("reasoning",), ("tools", "json_schema"))
    assert one(supported_parameters=[]).lacks == ()


def test_a_category_that_nobody_tells_is_that_of_the_well_known_model() -> None:
    assert one(id="somebody/nano-banana").category == "image"
    assert one(id="suno/bark").category == "audio"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2025-05-14T00:00:00Z", 1747180800),
        ("2025-05-14T02:00:00.123456789+02:00", 1747180800),
        ("1970-01-01T00:00:00Z", None),  # how some say that they do not know
        ("2025-05-14", None),
        ("2025-13-14T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("soon", None),
    ],
)
def test_dates_are_moments_where_they_are_exact(written: str, seconds: int | None) -> None:
    assert one(created_at=written).created == seconds


def test_our_own_list_is_understood() -> None:
    assert parse(answer("manyways")) == (
        Discovered(
            id="someone/whatever",
            created=1731654208,
            category="audio",
            context_window=128000,
            max_output_tokens=16384,
            capabilities=("tools", "vision"),
            modalities=("text", "image"),
            pricing={"prompt": 2.5e-06, "completion": 1e-05},
        ),
    )


@pytest.mark.parametrize(
    ("entry", "category"),
    [
        ({"id": "flux-reviewer", "type": "chat"}, "text"),
        ({"id": "m", "type": "base"}, "text"),
        ({"id": "m", "type": "Embedding"}, "embedding"),
        ({"id": "m", "task": "text-to-image"}, "image"),
        ({"id": "m", "output_modalities": ["embeddings"]}, "embedding"),
        ({"id": "m", "output_modalities": ["video"]}, "video"),
        ({"id": "m", "architecture": {"modality": "text->image"}}, "image"),
        ({"id": "m", "input_modalities": ["audio"], "output_modalities": ["text"]}, "audio"),
        ({"id": "m", "input_modalities": ["text", "audio"], "output_modalities": ["text"]}, "text"),
        ({"id": "m", "video": True}, "video"),
    ],
)
def test_what_a_provider_says_goes_before_what_the_name_suggests(
    entry: dict[str, Any], category: str
) -> None:
    (model,) = parse(msgspec.json.encode([entry]))
    assert model.category == category


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ('"0.000000075"', 7.5e-08),
        ("0.000000075", 7.5e-08),
        ("7.5e-8", 7.5e-08),
        ('"0"', 0.0),
        ("0", 0.0),
        ('"-1"', None),
        ("null", None),
        ("true", None),
        ('"free"', None),
        ('"NaN"', None),
        ("1e999", None),
        ('"1e999999999999999999999"', None),
    ],
)
def test_prices_are_the_nearest_float_to_what_was_written(
    written: str, exact: float | None
) -> None:
    (model,) = parse(f'[{{"id":"m","pricing":{{"prompt":{written}}}}}]'.encode())
    assert model.pricing == (None if exact is None else {"prompt": exact})


def test_a_price_whose_unit_is_not_certain_is_left_out() -> None:
    assert one(pricing={"input": 0.5, "output": 1.5}).pricing is None


@pytest.mark.parametrize(
    "size", [0, -1, True, 0.5, "many", None, [], 10**12, 1e300, "9" * 100, "١"]
)
def test_a_size_that_cannot_be_counts_as_not_given(size: object) -> None:
    expected = 1 if size == "١" else None
    model = one(context_length=size, created=size if size != "١" else 0)
    assert model.context_window == expected
    assert one(max_completion_tokens=size).max_output_tokens == expected


# Garbage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"<!DOCTYPE html><title>Just a moment...</title>",
        b"upstream connect error",
        b"\xff\xfe",
        b'["\xff"]',
        b'["\\ud800"]',
        b'{"data":[',
        b"null",
        b"42",
        b'"gpt-4o"',
        b"{}",
        b'{"data":{"id":"gpt-4o"}}',
        b'{"error":{"message":"no"}}',
        b"[" * 100_000,
        b"[1" + b"0" * 6000 + b"]",
        b"[" + b'"m",' * MAX_MODELS + b'"m"]',
    ],
)
def test_what_is_no_list_of_models_is_one_kind_of_error(body: bytes) -> None:
    with pytest.raises(BadModelList) as error:
        parse(body)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"id": None},
        {"id": 7},
        {"id": ""},
        {"id": " \t"},
        {"id": "two\nlines"},
        {"id": "x" * 257},
        {"name": "A Human's Name"},
        [],
        None,
        1.5,
        {"id": "bge-reranker-v2-m3"},
    ],
)
def test_an_entry_without_a_usable_id_is_skipped_and_its_neighbours_are_not(entry: object) -> None:
    models = parse(msgspec.json.encode({"data": [{"id": "a"}, entry, {"id": "b"}]}))
    assert [model.id for model in models] == ["a", "b"]


def test_of_two_with_one_id_the_first_stays() -> None:
    models = parse(b'[{"id":"a","created":1},{"id":"b"},{"id":"a","created":2}]')
    assert [(model.id, model.created) for model in models] == [("a", 1), ("b", None)]


def test_a_byte_order_mark_does_no_harm() -> None:
    assert [m.id for m in parse(b'\xef\xbb\xbf ["a"]')] == ["a"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
listed = [
    entry
    for shape in SHAPES.values()
    for entry in (
        next(shape[key] for key in ("data", "models", "result") if key in shape)
        if isinstance(shape, dict)
        else shape
    )
]
fields = st.sampled_from(
    sorted({name for entry in listed if isinstance(entry, dict) for name in entry})
)
entries = st.dictionaries(fields, json_values) | json_values
answers = (
    st.lists(entries, max_size=6)
    | st.sampled_from(["data", "models", "result"]).flatmap(
        lambda key: st.fixed_dictionaries({key: st.lists(entries, max_size=6)})
    )
    | json_values
)


def check(models: tuple[Discovered, ...]) -> None:
    assert len({model.id for model in models}) == len(models)
    for model in models:
        assert model.id
        assert model.id == model.id.strip()
        assert model.category in CATEGORIES
        assert model.created is None or model.created > 0
        assert set(model.capabilities or ()) <= set(get_args(Capability))
        assert not set(model.capabilities or ()) & set(model.lacks)
        assert model.upstream_id != model.id
        assert len(set(model.names)) == len(model.names)
        assert set(model.pricing or {}) <= set(PRICES)
        assert all(price >= 0 and math.isfinite(price) for price in (model.pricing or {}).values())
        for size in (model.context_window, model.max_output_tokens):
            assert size is None or size > 0
        msgspec.json.encode(model)


@given(answers)
def test_any_json_gives_models_that_make_sense_or_the_one_error(value: object) -> None:
    try:
        models = parse(msgspec.json.encode(value))
    except BadModelList:
        return
    check(models)


digits = st.text("0123456789", min_size=1, max_size=8)
numbers = st.builds(
    "".join,
    st.tuples(st.sampled_from(["", "-"]), digits, st.sampled_from([".", "e", "e-"]), digits),
)


@given(numbers, st.sampled_from(["input", "output", "prompt", "image"]), st.booleans())
def test_any_number_as_it_is_written_gives_sense_or_the_one_error(
    number: str, price: str, hourly: bool
) -> None:
    written = f'"{price}":{number}' + (',"input":1,"hourly":0' if hourly else "")
    body = f'[{{"id":"a","created":{number},"context_length":{number},"pricing":{{{written}}}}}]'
    try:
        check(parse(body.encode()))
    except BadModelList:
        return


@pytest.mark.parametrize("number", ["1e9999999", "1e-9999999", "1e" + "9" * 30, "9" * 5000])
def test_a_number_beyond_all_sense_counts_as_not_given(number: str) -> None:
    pricing = f'{{"input":{number},"output":1,"hourly":0}}'
    body = f'[{{"id":"a"}},{{"id":"b","context_length":{number},"pricing":{pricing}}}]'
    first, second = parse(body.encode())
    assert (first.id, second.id, second.context_window) == ("a", "b", None)
    assert second.pricing == {"completion": 1e-6}


@pytest.mark.parametrize("letter", [b"\\ud800", b"\xff"])
def test_an_id_that_is_no_text_costs_its_own_entry_only(letter: bytes) -> None:
    models = parse(
        b'{"data":[{"id":"a","modalities":["%b","text"]},{"id":"%b"}]}' % (letter, letter)
    )
    assert [(model.id, model.modalities) for model in models] == [("a", ("text",))]


@given(st.binary(max_size=200), st.sampled_from(sorted(SHAPES)), st.integers(0, 2000))
def test_any_bytes_in_an_answer_give_sense_or_the_one_error(
    noise: bytes, shape: str, place: int
) -> None:
    good = answer(shape)
    for body in (noise, good[:place] + noise + good[place:], good[:place]):
        try:
            check(parse(body))
        except BadModelList:
            continue
