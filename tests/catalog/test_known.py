"""A well-known model is known however it is dressed up, and nothing else is taken for it."""

import datetime as dt
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyways.catalog import known
from manyways.catalog.discovery import PRICES
from manyways.catalog.known import Known, find
from manyways.types import CATEGORIES

EVERY = known.every()
NAMES = {name: model for model in EVERY for name in (model.id, *model.aliases)}
names = st.sampled_from(sorted(NAMES))


def found(model_id: str) -> str | None:
    model = find(model_id)
    return None if model is None else model.id


# The table


def test_it_knows_what_is_asked_for_most() -> None:
    assert len(EVERY) >= 100
    assert {model.category for model in EVERY} == set(CATEGORIES)
    for name in (
        "gpt-4o",
        "claude-3-5-sonnet",
        "gemini-2.5-pro",
        "mistral-large-2411",
        "llama-3.3-70b-instruct",
        "qwen2.5-72b-instruct",
        "deepseek-chat",
        "grok-4",
        "command-r-plus",
        "text-embedding-3-small",
        "whisper-1",
        "tts-1",
        "dall-e-3",
        "gpt-image-1",
        "flux-1-schnell",
    ):
        assert name in NAMES


def test_every_name_means_one_model_and_is_written_as_it_is_looked_up() -> None:
    listed = [name for model in EVERY for name in (model.id, *model.aliases)]
    assert len(listed) == len(set(listed))
    assert all(name == name.casefold().strip() and "/" not in name for name in listed)
    assert {name: found(name) for name in listed} == {n: m.id for n, m in NAMES.items()}


@pytest.mark.parametrize("model", EVERY, ids=lambda model: model.id)
def test_every_line_of_it_makes_sense(model: Known) -> None:
    window, output = model.context_window, model.max_output_tokens
    assert window is None or 256 <= window <= 20_000_000
    assert output is None or (window is not None and 1 <= output <= window)
    # Dearer than a thousand dollars a million tokens is a slip of the point.
    prices = dict(model.pricing or {})
    assert set(prices) <= set(PRICES)
    assert 0 < prices.pop("image", 0.01) < 1
    assert all(0 < price < 1e-3 for price in prices.values())
    assert prices.get("input_cache_read", 0) <= prices.get("prompt", 0)
    assert (model.pricing is None) == (model.as_of is None)
    if model.as_of is not None:
        assert dt.date(2024, 1, 1) < dt.date.fromisoformat(model.as_of)
    assert model.quality_floor is None or (
        model.category == "text" and 3 <= model.quality_floor <= 8
    )
    assert "prefill" not in model.capabilities  # that is the provider's to say
    if "vision" in model.capabilities:
        assert "image" in (model.modalities or ())
    if model.category in {"embedding", "image", "video"}:
        assert model.capabilities == ()


def test_a_million_tokens_cost_what_the_maker_wrote() -> None:
    gpt = NAMES["gpt-4o"].pricing
    assert gpt == {"prompt": 2.5e-06, "completion": 1e-05, "input_cache_read": 1.25e-06}


# Matching


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("GPT-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("openai/gpt-oss-20b:free", "gpt-oss-20b"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("claude-3-5-sonnet@20241022", "claude-3-5-sonnet"),
        ("anthropic/claude-3.7-sonnet:thinking", "claude-3-7-sonnet"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("amazon.nova-lite-v1:0", "nova-lite"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", "llama-3.1-8b-instruct"),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama-3.1-8b-instruct"),
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "llama-3.1-8b-instruct"),
        ("@cf/meta/llama-3.1-8b-instruct-awq", "llama-3.1-8b-instruct"),
        ("llama3.1:8b", "llama-3.1-8b-instruct"),
        ("llama3.1:8b-q8_0", "llama-3.1-8b-instruct"),
        (" gpt-4 ", "gpt-4"),
    ],
)
def test_what_providers_write_around_a_name_does_not_hide_it(name: str, model: str) -> None:
    assert found(name) == model


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "openai/",
        ":free",
        "gpt",
        "gpt-4o-mini-super",
        "gpt-4p",
        "my-gpt-4o",
        "gpt-4o-2024",
        "gpt-4o-2024-13-06",
        "gpt-4o-2024-08-06-2024-08-06",
        "gpt-4o/mini",
        "llama-3.1-80b",
        "llama-3.1-8",
        "llama-3-1-8b",
        "Hermes-3-Llama-3.1-8B",
        "Llama-3.3-70B-Instruct-abliterated",
        "deepseek-r1:8b",
        "deepseek-r1-zero",
        "o1-super",
        "o11",
        "x" * 10_000,
        "a/" * 10_000,
        "-q4" * 80,
    ],
)
def test_a_name_that_is_only_alike_is_not_known(name: str) -> None:
    assert found(name) is None


def test_relatives_are_told_apart() -> None:
    for name in ("gpt-4", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4-turbo"):
        assert found(f"openai/{name}") == name
    assert found("llama3:8b") != found("llama3.1:8b") != found("llama3.1:70b")


letters = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)


folders = st.lists(letters, max_size=3).map(lambda parts: "".join(f"{part}/" for part in parts))
dated = st.builds(
    str.format,
    st.sampled_from(["", "-{:%Y-%m-%d}", "-{:%Y%m%d}", "@{:%Y%m%d}"]),
    st.dates(dt.date(2020, 1, 1), dt.date(2039, 12, 31)),
)
terms = st.sampled_from(["", ":free", ":beta", ":online"])


@given(names, folders, dated, terms, st.booleans())
def test_folders_dates_terms_and_case_change_nothing(
    name: str, before: str, date: str, behind: str, loud: bool
) -> None:
    written = before + name + date + behind
    expected = NAMES.get(name + date) or NAMES[name]
    assert found(written.upper() if loud else written) == expected.id


ENDS = re.compile(
    r"(?:[-_.:](?:i?q[2-8](?:_[0-9klmsx]{1,3}){0,3}|fp8|fp16|bf16|f16|int[48]|[48]bit|awq|gptq|gguf"
    r"|mlx|nvfp4|mxfp4)|:(?:free|beta|nitro|floor|online|exacto|thinking)|[-@]20[23]\d(?:\d{4}|-\d\d-\d\d))+$"
)


def meant(name: str) -> str | None:
    """The model that has this very name, or has it without an end that is no part of names."""
    model = NAMES.get(name) or NAMES.get(ENDS.sub("", name))
    return None if model is None else model.id


@given(names, letters, st.sampled_from(["", "-", ".", "_", ":", "@"]))
@example("gpt-4", "o", "")
@example("gpt-4o", "mini", "-")
@example("llama-3.1-8b", "0", "")
@example("llama-3.1-8b", "q4", "-")
def test_a_name_that_goes_on_is_another_name(name: str, more: str, joint: str) -> None:
    assert found(name + joint + more) == meant(name + joint + more)


@given(names, st.integers(0, 200), st.sampled_from("0123456789abcdefghijklmnopqrstuvwxyz.-"))
def test_a_name_with_one_letter_changed_is_another_name(name: str, place: int, letter: str) -> None:
    place %= len(name)
    other = name[:place] + letter + name[place + 1 :]
    assert found(other) == meant(other)


@given(names, letters)
def test_a_name_behind_other_letters_is_another_name(name: str, before: str) -> None:
    other = before + name
    assert found(other) == (NAMES[other].id if other in NAMES else None)


# What is known of versions


def test_a_version_younger_than_the_prices_has_none() -> None:
    as_of = NAMES["gpt-5"].as_of
    assert as_of is not None
    younger = find(f"gpt-5-{int(as_of[:4]) + 1}-01-01")
    assert younger is not None
    assert (younger.pricing, younger.as_of) == (None, None)
    assert younger.context_window == NAMES["gpt-5"].context_window
    older = find("gpt-5-2025-08-07")
    assert older == NAMES["gpt-5"]


def test_a_quantized_model_is_held_to_no_floor() -> None:
    full, smaller = find("llama-3.3-70b-instruct"), find("llama-3.3-70b-instruct-awq")
    assert full is not None
    assert full.quality_floor is not None
    assert smaller is not None
    assert smaller.quality_floor is None


def test_a_maker_is_its_host_over_tls() -> None:
    model = NAMES["claude-3-haiku"]
    assert known.is_maker(model, "https://api.anthropic.com/v1")
    assert not known.is_maker(model, "https://api.openai.com/v1")
    assert not known.is_maker(NAMES["llama-3.1-8b"], "https://api.openai.com/v1")
    assert not known.is_maker(model, "")
