"""The catalog as text for people: a section a category, in it a numbered block a provider."""

from collections.abc import Iterable
from typing import Final

from manyways.catalog.language import Language, count_models
from manyways.types import CATEGORIES, Category, Model

_TITLE: Final[dict[Language, str]] = {
    "ru": "🤖 Доступные модели {title}:",
    "en": "🤖 Available {title} models:",
}
_SECTIONS: Final[dict[Language, dict[Category, str]]] = {
    "ru": {
        "text": "💬 ТЕКСТОВЫЕ МОДЕЛИ",
        "image": "🎨 МОДЕЛИ ИЗОБРАЖЕНИЙ",
        "audio": "🔊 АУДИОМОДЕЛИ",
        "video": "🎬 ВИДЕОМОДЕЛИ",
        "embedding": "🧮 ЭМБЕДДИНГИ",
    },
    "en": {
        "text": "💬 TEXT MODELS",
        "image": "🎨 IMAGE MODELS",
        "audio": "🔊 AUDIO MODELS",
        "video": "🎬 VIDEO MODELS",
        "embedding": "🧮 EMBEDDINGS",
    },
}
_NOTHING: Final[dict[Language, str]] = {
    "ru": "Сейчас нет доступных моделей. Загляните чуть позже.",
    "en": "No models are available right now. Please look again a little later.",
}
_NO_MATCH: Final[dict[Language, str]] = {
    "ru": "Под эти условия сейчас не подходит ни одна модель.",
    "en": "No model matches these filters right now.",
}
_UNDER_TITLE: Final = "━" * 29
_UNDER_SECTION: Final = "━" * 45


def describe(models: Iterable[Model], *, title: str, language: Language, filtered: bool) -> str:
    """The whole text. Categories, and providers within one, stand in the catalog's order;
    one empty line parts blocks, and the text ends without a newline.

    `filtered` says that the reader asked for a part only, which matters where it is empty.
    """
    sections: dict[Category, dict[str, list[Model]]] = {name: {} for name in CATEGORIES}
    for model in models:
        sections[model.category].setdefault(model.provider, []).append(model)
    parts = [f"{_TITLE[language].format(title=title)}\n{_UNDER_TITLE}"]
    for category, providers in sections.items():
        if providers:
            total = sum(map(len, providers.values()))
            heading = f"{_SECTIONS[language][category]} ({total})"
            parts.append(f"{heading}\n{_UNDER_SECTION}")
            parts.extend(
                _block(number, name, rows, language)
                for number, (name, rows) in enumerate(providers.items(), 1)
            )
    if len(parts) == 1:
        parts.append((_NO_MATCH if filtered else _NOTHING)[language])
    return "\n\n".join(parts)


def _block(number: int, provider: str, models: list[Model], language: Language) -> str:
    heading = f"{number}. 🏢 {provider} ({count_models(len(models), language)})"
    return "\n".join((heading, *(f"   • {model.id}{_speed(model)}" for model in models)))


def _speed(model: Model) -> str:
    if model.latency_ms is None:
        return ""
    tenths = (model.latency_ms + 50) // 100
    return f" — ⚡ {tenths // 10}.{tenths % 10}s" if tenths else " — ⚡ <0.1s"
