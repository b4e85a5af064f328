"""Which of our two languages a reader gets, and how each counts models."""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from manyways.catalog.selection import not_one_of

Language = Literal["ru", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("ru", "en")

_FORMS: Final[dict[Language, dict[str, str]]] = {
    "ru": {"one": "модель", "few": "модели", "many": "моделей"},
    "en": {"one": "model", "other": "models"},
}


def pick_language(lang: str | None, accept_language: str | None) -> Language:
    """`?lang=` decides (`en`, `EN`, `en-US`), else `Accept-Language` (RFC 9110), else Russian.

    Raises `Refusal` (`invalid_request`, `param` lang) for a `lang` that we do not speak; an
    `Accept-Language` that we cannot satisfy, or read, gets the default.
    """
    if lang:
        spoken = _spoken(lang)
        if spoken is None:
            raise not_one_of("lang", lang, LANGUAGES)
        return spoken
    wishes = _wishes(accept_language or "")
    return max(LANGUAGES, key=lambda language: wishes.get(language, 0.0))


def count_models(number: int, language: Language) -> str:
    """`1 модель`, `2 модели`, `5 моделей`; `1 model`, `2 models`. The plural rules are CLDR's."""
    rule = _rules.get(language) or _learned(language)
    return f"{number} {_FORMS[language][rule(number)]}"


async def learn(language: Language) -> None:
    """Have the language's plurals at hand. Others are served meanwhile: it takes tens of
    milliseconds, the first time."""
    if language not in _rules:
        await asyncio.to_thread(_learned, language)


_rules: dict[Language, Callable[[int], str]] = {}


def _learned(language: Language) -> Callable[[int], str]:
    from babel import Locale  # memory and time, for one rarely asked page

    rule = _rules[language] = Locale(language).plural_form
    return rule


def _spoken(tag: str) -> Language | None:
    primary = tag.strip().partition("-")[0].casefold()
    return next((language for language in LANGUAGES if language == primary), None)


def _wishes(header: str) -> dict[Language, float]:
    """The weight of each language that a header asks for: its own, else that of `*`."""
    wishes: dict[Language, float] = {}
    others = 0.0
    for item in header.split(",")[:50]:
        tag, _, parameters = item.partition(";")
        weight = _weight(parameters)
        language = _spoken(tag)
        if language is not None:
            wishes[language] = max(weight, wishes.get(language, 0.0))
        elif tag.strip() == "*":
            others = weight
    return {language: wishes.get(language, others) for language in LANGUAGES}


def _weight(parameters: str) -> float:
    name, equals, value = parameters.partition("=")
    if not equals or name.strip().casefold() != "q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
