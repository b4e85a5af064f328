import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.language import LANGUAGES, pick_language
from manyways.errors import Refusal


@pytest.mark.parametrize(
    ("lang", "accepted", "picked"),
    [
        (None, None, "ru"),
        ("", "", "ru"),
        ("en", None, "en"),
        ("EN", "ru", "en"),
        ("en-US", "ru", "en"),
        ("ru", "en", "ru"),
        (None, "en", "en"),
        (None, "en-GB,en;q=0.9", "en"),
        (None, "ru,en;q=0.9", "ru"),
        (None, "en;q=0.8, ru;q=0.9", "ru"),
        (None, "de, en;q=0.5", "en"),
        (None, "de", "ru"),
        (None, "*", "ru"),
        (None, "ru;q=0, *", "en"),
        (None, "en;q=0", "ru"),
        (None, "english", "ru"),
        (None, "en;q=high", "ru"),
        (None, "en;q=nan", "ru"),
    ],
)
def test_lang_decides_then_the_header_then_russian(
    lang: str | None, accepted: str | None, picked: str
) -> None:
    assert pick_language(lang, accepted) == picked


def test_a_language_that_we_do_not_speak_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match=r"'fr'.*ru, en") as refusal:
        pick_language("fr", "en")
    assert (refusal.value.code, refusal.value.param) == ("invalid_request", "lang")


@given(st.text(max_size=60) | st.text("en-RU,;q=0.159 *", max_size=60))
def test_any_header_gets_a_language(header: str) -> None:
    assert pick_language(None, header) in LANGUAGES
