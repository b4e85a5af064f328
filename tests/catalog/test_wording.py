import re
from typing import Any

import msgspec
import pytest

from manyways.catalog import listings
from manyways.catalog.language import Language
from manyways.catalog.snapshot import Snapshot
from manyways.errors import Refusal
from manyways.types import Category, Model


def row(
    provider: str,
    model_id: str,
    category: Category = "text",
    latency_ms: int | None = None,
    **more: Any,
) -> Model:
    return Model(
        id=model_id,
        provider=provider,
        upstream_id=model_id,
        created=1,
        category=category,
        latency_ms=latency_ms,
        **more,
    )


def text(snapshot: Snapshot, title: str = "Manyways", **choice: Any) -> str:
    answer = msgspec.json.decode(listings.text_list(snapshot, title, **choice).body)
    assert list(answer) == ["text"]
    return str(answer["text"])


SNAPSHOT = Snapshot(
    models=(
        row("Capi", "gpt-4o", latency_ms=1500),
        row("Capi", "gemini-2.5-flash", latency_ms=1550),
        row("Capi", "dall-e-3", "image"),
        row("Capi", "gone", status="down"),
        *(row("HuggingSpace", f"llama-{n}") for n in range(1, 6)),
        row("OpenAIFM", "alloy", "audio", latency_ms=40),
        row("Deep", "sora", "video", latency_ms=61_000),
        row("Deep", "e5", "embedding"),
    ),
    provider_names=("Capi", "HuggingSpace", "OpenAIFM", "Deep", "Quiet"),
    made_at=1.0,
)

RUSSIAN = """\
🤖 Доступные модели Manyways:
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━

💬 ТЕКСТОВЫЕ МОДЕЛИ (7)
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━

1. 🏢 Capi (2 модели)
   • gpt-4o — ⚡ 1.5s
   • gemini-2.5-flash — ⚡ 1.6s

2. 🏢 HuggingSpace (5 моделей)
   • llama-1
   • llama-2
   • llama-3
   • llama-4
   • llama-5

🎨 МОДЕЛИ ИЗОБРАЖЕНИЙ (1)
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━

1. 🏢 Capi (1 модель)
   • dall-e-3

🔊 АУДИОМОДЕЛИ (1)
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━

1. 🏢 OpenAIFM (1 модель)
   • alloy — ⚡ <0.1s

🎬 ВИДЕОМОДЕЛИ (1)
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━

1. 🏢 Deep (1 модель)
   • sora — ⚡ 61.0s

🧮 ЭМБЕДДИНГИ (1)
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━

1. 🏢 Deep (1 модель)
   • e5"""


def test_the_russian_text_to_the_byte() -> None:
    assert text(SNAPSHOT) == RUSSIAN


def test_it_begins_as_the_references_own_sample_does() -> None:
    """The sample's first lines, its title and counts put in."""
    models = [
        row("Capi", "gpt-4o", latency_ms=1500),
        row("Capi", "gemini-2.5-flash", latency_ms=1600),
    ]
    models += [row("Capi", f"c{n}") for n in range(16)] + [row("Space", f"s{n}") for n in range(32)]
    sample = (
        "🤖 Доступные модели G4F API:\n━━━━━━━━━━━━━━━━━━━━━━━━━━━━━\n\n"
        "💬 ТЕКСТОВЫЕ МОДЕЛИ (50)\n━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━\n\n"
        "1. 🏢 Capi (18 моделей)\n   • gpt-4o — ⚡ 1.5s\n   • gemini-2.5-flash — ⚡ 1.6s\n"
    )
    assert text(Snapshot(tuple(models), ("Capi", "Space")), "G4F API").startswith(sample)


def test_the_english_text_to_the_byte() -> None:
    snapshot = Snapshot(
        (
            row("Capi", "a", latency_ms=949),
            row("Capi", "b"),
            *(row("Capi", category, category) for category in ("image", "audio", "video")),
            row("Capi", "e5", "embedding"),
        ),
        ("Capi",),
    )
    rule = "━" * 45
    assert text(snapshot, lang="en") == (
        f"🤖 Available Manyways models:\n{'━' * 29}\n\n"
        f"💬 TEXT MODELS (2)\n{rule}\n\n"
        "1. 🏢 Capi (2 models)\n   • a — ⚡ 0.9s\n   • b\n\n"
        f"🎨 IMAGE MODELS (1)\n{rule}\n\n1. 🏢 Capi (1 model)\n   • image\n\n"
        f"🔊 AUDIO MODELS (1)\n{rule}\n\n1. 🏢 Capi (1 model)\n   • audio\n\n"
        f"🎬 VIDEO MODELS (1)\n{rule}\n\n1. 🏢 Capi (1 model)\n   • video\n\n"
        f"🧮 EMBEDDINGS (1)\n{rule}\n\n1. 🏢 Capi (1 model)\n   • e5"
    )


@pytest.mark.parametrize(
    ("number", "russian"),
    [
        (1, "1 модель"),
        (2, "2 модели"),
        (4, "4 модели"),
        (5, "5 моделей"),
        (11, "11 моделей"),
        (12, "12 моделей"),
        (21, "21 модель"),
        (22, "22 модели"),
        (25, "25 моделей"),
        (111, "111 моделей"),
        (1001, "1001 модель"),
    ],
)
def test_russian_knows_its_plurals(number: int, russian: str) -> None:
    snapshot = Snapshot(tuple(row("P", f"m{n}") for n in range(number)), ("P",))
    assert f"1. 🏢 P ({russian})\n" in text(snapshot)
    assert f"1. 🏢 P ({number} model{'' if number == 1 else 's'})\n" in text(snapshot, lang="en")


def test_a_part_is_numbered_anew() -> None:
    part = text(SNAPSHOT, provider="HuggingSpace")
    assert re.findall(r"^.*🏢.*$", part, re.MULTILINE) == ["1. 🏢 HuggingSpace (5 моделей)"]
    part = text(SNAPSHOT, type="image")
    assert "🎨 МОДЕЛИ ИЗОБРАЖЕНИЙ (1)" in part
    assert "💬" not in part


@pytest.mark.parametrize(
    ("snapshot", "choice", "line"),
    [
        (Snapshot(), {}, "Сейчас нет доступных моделей. Загляните чуть позже."),
        (
            Snapshot(),
            {"lang": "en"},
            "No models are available right now. Please look again a little later.",
        ),
        (SNAPSHOT, {"provider": "Quiet"}, "Под эти условия сейчас не подходит ни одна модель."),
        (
            SNAPSHOT,
            {"provider": "Capi", "type": "video", "lang": "en"},
            "No model matches these filters right now.",
        ),
    ],
)
def test_nothing_is_said_in_words(snapshot: Snapshot, choice: dict[str, Any], line: str) -> None:
    heading, rule, blank, last = text(snapshot, **choice).split("\n")
    assert heading.startswith("🤖 ")
    assert (rule, blank, last) == ("━" * 29, "", line)


@pytest.mark.parametrize("lang", ["ru", "en"])
def test_filters_that_cannot_be_are_refused(lang: Language) -> None:
    with pytest.raises(Refusal, match="Capi, HuggingSpace") as refusal:
        listings.text_list(SNAPSHOT, "M", provider="Kapi", lang=lang)
    assert (refusal.value.code, refusal.value.param) == ("provider_not_found", "provider")
    with pytest.raises(Refusal, match="text, image, audio, video, embedding") as refusal:
        listings.text_list(SNAPSHOT, "M", type="smell", lang=lang)
    assert (refusal.value.code, refusal.value.param) == ("invalid_request", "type")
