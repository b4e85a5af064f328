"""Names under which providers say that they have answered, as providers write them."""

import pytest

from manyways.catalog import known
from manyways.verification.reported import Likeness, bare, is_telling, likeness


@pytest.mark.parametrize(
    ("asked", "said", "found"),
    [
        ("gpt-4o", "GPT-4o", "same"),
        ("gpt-4o", "openai/gpt-4o", "same"),
        ("deepseek-r1", "deepseek/deepseek-r1:free", "same"),
        ("mistral-large-latest", "mistral-large", "same"),
        ("llama-v3p1-8b", "accounts/fireworks/models/llama-v3p1-8b", "same"),
    ],
)
def test_dress_makes_no_other_name(asked: str, said: str, found: Likeness) -> None:
    assert likeness(asked, said) == found
    assert bare(asked) == bare(said)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o", "chatgpt-4o-latest"),
        ("gpt-4o", "azure/gpt-4o-prod-eu-2"),
        ("gpt-4", "gpt-4-turbo-2024-04-09"),
        ("gpt-4-turbo", "gpt-4-1106-preview"),
        ("gpt-3.5-turbo", "gpt-35-turbo"),
        ("gpt-3.5-turbo-16k", "gpt-35-turbo-16k-eu"),
        ("claude-3.5-sonnet", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("claude-opus-4-1", "us.anthropic.claude-opus-4-1-20250805-v1:0"),
        ("gemini-pro", "gemini-1.5-pro-002"),
        ("gemini-2.5-flash", "gemini-2.5-flash-preview-09-2025"),
        ("llama-3.1-70b-instruct", "meta-llama/Llama-3.1-70B-Instruct-Turbo"),
        ("llama-3.1-70b", "accounts/fireworks/models/llama-v3p1-70b-instruct"),
        ("llama3.1:8b", "llama3.1:8b-instruct-q4_K_M"),
        ("llama-3.1-8b-instant", "llama-3.1-8b"),
        ("llama-3-70b", "meta-llama-3.1-70b"),
        ("mixtral-8x7b-32768", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("mistral-tiny", "open-mistral-7b"),
        ("mistral-small", "mistralai/mistral-small-3.1-24b-instruct:free"),
        ("qwen2.5-72b", "Qwen/Qwen2.5-72B-Instruct-AWQ"),
        ("deepseek-chat", "deepseek-ai/DeepSeek-V3-0324"),
        ("deepseek-r1-distill-llama-70b", "llama-70b-r1"),
        ("hermes-3-405b", "llama-3.1-405b"),
        ("sonar", "llama-3.3-70b"),
        ("grok-2", "grok-2-1212"),
        ("command-r-plus", "cohere/command-r-plus-04-2024"),
        ("phi-3", "phi-3-mini-4k-instruct"),
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
        ("openai", "gpt-4.1-nano-2025-04-14"),  # names that tell nothing
        ("auto", "llama-3-8b"),
        ("gpt-4o", "default"),
    ],
)
def test_what_may_be_the_same_model_contradicts_nothing(one: str, other: str) -> None:
    assert likeness(one, other) == "alike"
    assert likeness(other, one) == "alike"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o", "gpt-3.5-turbo-0125"),
        ("gpt-4.1", "gpt-4.1-nano-2025-04-14"),
        ("gpt-5", "gpt-4o"),
        ("gpt-4", "gpt-oss-20b"),
        ("o1", "o1-mini"),
        ("o3", "gpt-4o"),
        ("grok-3", "grok-3-mini"),
        ("claude-3-opus", "claude-3-haiku-20240307"),
        ("claude-3-5-sonnet", "gpt-4o"),
        ("gemini-1.5-pro", "gemini-1.5-flash"),
        ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
        ("gemini-pro", "gemma-2-9b-it"),
        ("llama-3.1-70b-instruct", "Meta-Llama-3.1-8B-Instruct"),
        ("llama-3.1-70b", "llama-3.3-70b"),
        ("mixtral-8x22b", "mixtral-8x7b"),
        ("mistral-large", "mistral-small-2503"),
        ("qwen3-32b", "qwen2.5-32b"),
        ("deepseek-r1", "gpt-4o-mini"),
        ("deepseek-v3", "deepseek-v2"),
        ("smollm2-1.7b", "smollm2-135m"),
        ("command-r-plus", "llama-3-8b"),
    ],
)
def test_another_family_size_version_or_tier_is_another_model(asked: str, said: str) -> None:
    assert likeness(asked, said) == "other"


def test_no_well_known_model_contradicts_another_name_of_its_own() -> None:
    pairs = [(model.id, alias) for model in known.every() for alias in model.aliases]

    assert len(pairs) > 50
    assert [pair for pair in pairs if "other" in (likeness(*pair), likeness(*pair[::-1]))] == []


def test_names_of_ones_own_tell_nothing() -> None:
    assert is_telling("llama-3-8b")
    assert not is_telling("prod-1")
    assert not is_telling("openai")
