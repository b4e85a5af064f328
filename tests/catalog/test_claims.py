"""The configuration is believed before the provider, and both before the table."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.claims import Discovered, completed, merge
from manyways.catalog.discovery import parse
from manyways.types import Category, Model, ModelEntry, Provider

from .answers import answer

OPENAI = "https://api.openai.com/v1"


def provider(*models: ModelEntry, discovered: bool = False, base_url: str = "") -> Provider:
    return Provider(
        name="Capi",
        protocol="openai",
        base_url=base_url,
        models=None if discovered else models,
    )


def claimed(*models: ModelEntry, base_url: str = "", told: tuple[Discovered, ...] = ()) -> Model:
    (row,) = merge(provider(*models, base_url=base_url), told, now=1)
    return row


def test_without_a_configured_list_the_discovered_one_is_it() -> None:
    body = b'{"data": [{"id": "our-own", "created": 7, "context_length": 4096}]}'
    rows = merge(provider(discovered=True), parse(body), now=1000.9)
    assert rows == (
        Model(id="our-own", provider="Capi", upstream_id="our-own", created=7, context_window=4096),
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
    assert claimed(ModelEntry(id="my", upstream_id="my-whisper")) == Model(
        id="my", provider="Capi", upstream_id="my-whisper", created=1, category="audio"
    )


def test_a_configured_model_is_known_by_any_name_its_provider_gives_it() -> None:
    told = parse(answer("mistral")) + parse(answer("gemini as openai"))
    rows = merge(
        provider(ModelEntry(id="mistral-medium-latest"), ModelEntry(id="gemini-2.5-pro")),
        told,
        now=1,
    )
    assert [(row.id, row.upstream_id, row.context_window) for row in rows] == [
        ("mistral-medium-latest", "mistral-medium-latest", 131072),
        ("gemini-2.5-pro", "gemini-2.5-pro", 1048576),
    ]


def test_a_models_own_name_goes_before_anothers_alias() -> None:
    told = (
        Discovered(id="large", aliases=("small",), context_window=1),
        Discovered(id="small", context_window=2),
        Discovered(id="medium", aliases=("small",), context_window=3),
    )
    for order in (told, told[::-1]):
        assert claimed(ModelEntry(id="small"), told=order).context_window == 2


def test_what_a_provider_calls_it_is_what_it_is_asked_for() -> None:
    (row, _) = merge(provider(discovered=True), parse(answer("gemini as openai")), now=1)
    assert (row.id, row.upstream_id) == ("gemini-2.5-pro", "models/gemini-2.5-pro")


def test_created_is_the_providers_word_or_else_when_it_first_appeared() -> None:
    capi = provider(discovered=True)
    first = merge(capi, [Discovered(id="a"), Discovered(id="b", created=5)], now=1000)
    again = merge(
        capi, [Discovered(id="a"), Discovered(id="b"), Discovered(id="c")], now=2000, known=first
    )
    assert [(row.id, row.created) for row in again] == [("a", 1000), ("b", 5), ("c", 2000)]
    later = merge(capi, [Discovered(id="a", created=900)], now=3000, known=again)
    assert [row.created for row in later] == [900]


def test_of_earlier_rows_only_the_first_moment_is_kept_and_only_of_the_same_provider() -> None:
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
        asked_last=True,
    )
    stranger = msgspec.structs.replace(measured, id="b", provider="Other")
    rows = merge(
        provider(discovered=True),
        [Discovered(id="a"), Discovered(id="b")],
        now=2,
        known=[measured, stranger],
    )
    assert rows == (
        Model(id="a", provider="Capi", upstream_id="a", created=1),
        Model(id="b", provider="Capi", upstream_id="b", created=2),
    )


# The table of well-known models


def test_the_table_fills_in_what_the_provider_leaves_open() -> None:
    (row,) = merge(
        provider(discovered=True), [Discovered(id="gpt-4o-2024-08-06", context_window=64000)], now=1
    )
    assert row.context_window == 64000
    assert row.max_output_tokens == 16384
    assert row.capabilities == ("tools", "vision", "json_schema", "streaming")
    assert row.modalities == ("text", "image")


def test_what_a_provider_says_a_model_lacks_is_not_filled_in() -> None:
    told = Discovered(id="gpt-4o", capabilities=("streaming",), lacks=("tools", "vision"))
    (row,) = merge(provider(discovered=True), [told], now=1)
    assert row.capabilities == ("json_schema", "streaming")


@pytest.mark.parametrize(
    ("told", "base_url", "capabilities"),
    [
        # Whoever serves an open model decides about tools and schemas: nobody said anything.
        (Discovered(id="llama-3.3-70b"), "https://api.example.com", ()),
        (Discovered(id="llama-3.3-70b", lacks=("tools",)), "", ("streaming",)),
        (
            Discovered(id="llama-3.3-70b", capabilities=("tools", "json_schema")),
            "",
            ("tools", "json_schema", "streaming"),
        ),
        # A maker's own API is as its maker says, and a model that has both has them anywhere.
        (Discovered(id="gpt-4"), "https://api.example.com", ()),
        (Discovered(id="gpt-4"), OPENAI, ("tools", "streaming")),
        (Discovered(id="gpt-4.1"), "", ("tools", "vision", "json_schema", "streaming")),
        # Half of what an unknown model is capable of would be taken for all of it.
        (Discovered(id="our-own", capabilities=("vision",)), "", ()),
        (Discovered(id="our-own", capabilities=("vision",), lacks=("tools",)), "", ("vision",)),
        (Discovered(id="our-own", capabilities=("tools",)), "", ("tools",)),
        (Discovered(id="a", category="audio", capabilities=("streaming",)), "", ("streaming",)),
    ],
)
def test_capabilities_are_all_or_left_open(
    told: Discovered, base_url: str, capabilities: tuple[str, ...]
) -> None:
    (row,) = merge(provider(discovered=True, base_url=base_url), [told], now=1)
    assert row.capabilities == capabilities


def test_an_answer_is_not_longer_than_the_room_that_is_there() -> None:
    told = Discovered(id="gpt-4o", context_window=4096)
    assert completed(told, provider=provider()).max_output_tokens == 4096


def test_what_the_configuration_leaves_open_is_filled_in_and_nothing_else() -> None:
    row = claimed(ModelEntry(id="gpt-4o", context_window=32000, capabilities=(), modalities=()))
    assert (row.context_window, row.capabilities, row.modalities) == (32000, (), ())
    assert row.max_output_tokens == 16384


@pytest.mark.parametrize(
    ("entry", "category", "window"),
    [
        (ModelEntry(id="gpt-4o", upstream_id="deployment-7"), "text", 128000),
        (ModelEntry(id="gpt-4o", upstream_id="gpt-4"), "text", 8192),
        (ModelEntry(id="vectors", upstream_id="text-embedding-3-small"), "embedding", 8191),
        (ModelEntry(id="nano-banana"), "image", 32768),
        (ModelEntry(id="nano-banana", category="text"), "text", 32768),
    ],
)
def test_a_configured_model_is_looked_up_by_what_its_provider_calls_it_and_then_by_its_id(
    entry: ModelEntry, category: Category, window: int
) -> None:
    row = claimed(entry)
    assert (row.category, row.context_window) == (category, window)


@pytest.mark.parametrize(
    ("base_url", "priced"),
    [
        (OPENAI, True),
        ("https://API.OpenAI.com:443/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.example.net/v1", False),
        ("https://openrouter.ai/api/v1", False),
        ("http://127.0.0.1:11434/v1", False),
        ("", False),
    ],
)
def test_prices_of_the_table_are_taken_from_its_maker_only(base_url: str, priced: bool) -> None:
    row = claimed(ModelEntry(id="gpt-4o"), base_url=base_url)
    assert (row.pricing is not None) is priced


def test_prices_of_the_table_come_last() -> None:
    told = (Discovered(id="gpt-4o", pricing={"prompt": 7e-6}),)
    assert claimed(ModelEntry(id="gpt-4o"), base_url=OPENAI, told=told).pricing == {"prompt": 7e-6}
    entry = ModelEntry(id="gpt-4o", pricing={"prompt": 0.0})
    assert claimed(entry, base_url=OPENAI, told=told).pricing == {"prompt": 0.0}
    other = claimed(ModelEntry(id="claude-3-haiku"), base_url=OPENAI)
    assert other.pricing is None


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
