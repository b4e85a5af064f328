import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.discovery import (
    MAX_MODELS,
    PRICES,
    BadModelList,
    Discovered,
    merge,
    parse,
)
from manyways.types import CATEGORIES, Capability, Model, ModelEntry, Provider

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
    for entry in (shape["data"] if isinstance(shape, dict) else shape)
]
fields = st.sampled_from(sorted({name for entry in listed for name in entry}))
entries = st.dictionaries(fields, json_values) | json_values
answers = (
    st.lists(entries, max_size=6)
    | st.fixed_dictionaries({"data": st.lists(entries, max_size=6)})
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


# Merging


def provider(*models: ModelEntry, discovered: bool = False) -> Provider:
    return Provider(name="Capi", protocol="openai", models=None if discovered else models)


def test_without_a_configured_list_the_discovered_one_is_it() -> None:
    rows = merge(provider(discovered=True), parse(answer("groq")), now=1000.9)
    assert rows[0] == Model(
        id="llama-3.3-70b-versatile",
        provider="Capi",
        upstream_id="llama-3.3-70b-versatile",
        created=1733447754,
        context_window=131072,
        max_output_tokens=32768,
    )


def test_a_configured_list_is_the_whole_list_and_its_values_win() -> None:
    entry = ModelEntry(
        id="claude",
        upstream_id="anthropic/claude-sonnet-4",
        context_window=200000,
        capabilities=("streaming", "tools"),
    )
    (row,) = merge(provider(entry), parse(answer("openrouter")), now=1000)
    assert (row.id, row.upstream_id) == ("claude", "anthropic/claude-sonnet-4")
    assert row.context_window == 200000
    assert row.capabilities == ("tools", "streaming")
    assert row.max_output_tokens == 64000
    assert row.created == 1747930371


def test_a_configured_model_that_was_not_discovered_is_there_all_the_same() -> None:
    (row,) = merge(provider(ModelEntry(id="my", upstream_id="whisper-1")), (), now=1000)
    assert row == Model(
        id="my", provider="Capi", upstream_id="whisper-1", created=1000, category="audio"
    )


def test_created_is_the_providers_word_or_else_when_it_first_appeared() -> None:
    capi = provider(discovered=True)
    first = merge(capi, [Discovered(id="a"), Discovered(id="b", created=5)], now=1000)
    again = merge(
        capi, [Discovered(id="a"), Discovered(id="b"), Discovered(id="c")], now=2000, known=first
    )
    assert [(row.id, row.created) for row in again] == [("a", 1000), ("b", 5), ("c", 2000)]
    later = merge(capi, [Discovered(id="a", created=900)], now=3000, known=again)
    assert [row.created for row in later] == [900]


def test_what_was_measured_is_kept_and_only_of_the_same_provider() -> None:
    measured = Model(
        id="a",
        provider="Capi",
        upstream_id="a",
        created=1,
        status="down",
        latency_ms=1500,
        quality_score=8.5,
        last_verified="2025-11-15 08:23:28",
        uptime_24h=99.5,
    )
    stranger = msgspec.structs.replace(measured, id="b", provider="Other")
    rows = merge(
        provider(discovered=True),
        [Discovered(id="a", context_window=8192), Discovered(id="b")],
        now=2,
        known=[measured, stranger],
    )
    assert rows[0] == msgspec.structs.replace(measured, context_window=8192)
    assert (rows[1].status, rows[1].latency_ms, rows[1].created) == ("active", None, 2)


ids = st.sampled_from(["a", "b", "c", "d"])
windows = st.none() | st.integers(1, 10)


@given(
    st.lists(st.builds(ModelEntry, id=ids, upstream_id=st.none() | ids, context_window=windows)),
    st.lists(st.builds(Discovered, id=ids, context_window=windows), unique_by=lambda m: m.id),
)
def test_merging_keeps_the_configs_order_its_values_and_unique_ids(
    given_models: list[ModelEntry], discovered: list[Discovered]
) -> None:
    rows = merge(provider(*given_models), discovered, now=1)
    assert [row.id for row in rows] == list(dict.fromkeys(entry.id for entry in given_models))
    known = {model.id: model.context_window for model in discovered}
    first = {entry.id: entry for entry in reversed(given_models)}
    for row in rows:
        entry = first[row.id]
        assert row.upstream_id == (entry.upstream_id or entry.id)
        assert row.context_window == (entry.context_window or known.get(row.upstream_id))


@given(st.lists(st.builds(Discovered, id=ids), unique_by=lambda m: m.id))
def test_merging_what_was_discovered_keeps_its_order(discovered: list[Discovered]) -> None:
    rows = merge(provider(discovered=True), discovered, now=1)
    assert [row.id for row in rows] == [model.id for model in discovered]
    assert {row.upstream_id for row in rows} == {model.id for model in discovered}
