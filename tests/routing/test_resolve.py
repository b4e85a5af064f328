"""Names become candidates: a pure look at what the catalog offers."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.snapshot import Snapshot
from manyways.errors import Refusal
from manyways.routing.resolve import resolve
from manyways.types import Category, Model


def model(provider: str, model_id: str, category: Category = "text") -> Model:
    return Model(
        id=model_id, provider=provider, upstream_id=f"up-{model_id}", created=1, category=category
    )


def offers(*models: Model, providers: tuple[str, ...] = ("Capi", "Gemini", "Empty")) -> Snapshot:
    return Snapshot(models=models, provider_names=providers, made_at=0.0)


SHOP = offers(
    model("Capi", "gpt-4o"),
    model("Capi", "flux", "image"),
    model("Gemini", "gpt-4o"),
    model("Gemini", "gemini-2.5-flash"),
    model("Gemini", "Capi/strange"),
)


def names(found: tuple[Model, ...]) -> list[str]:
    return [f"{m.provider}:{m.id}" for m in found]


def refusal(
    name: str,
    begin: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None,
    ignore: tuple[str, ...] = (),
) -> Refusal:
    with pytest.raises(Refusal) as caught:
        resolve(SHOP, name, begin=begin, only=only, ignore=ignore)
    return caught.value


def test_an_id_finds_everyone_who_has_it_in_the_catalogs_order() -> None:
    assert names(resolve(SHOP, "gpt-4o")) == ["Capi:gpt-4o", "Gemini:gpt-4o"]


def test_a_provider_before_the_slash_narrows_it_to_that_one() -> None:
    assert names(resolve(SHOP, "Gemini/gpt-4o")) == ["Gemini:gpt-4o"]


def test_an_exact_id_wins_over_a_provider_before_a_slash() -> None:
    assert names(resolve(SHOP, "Capi/strange")) == ["Gemini:Capi/strange"]


def test_a_named_provider_is_where_it_begins_and_no_more() -> None:
    assert names(resolve(SHOP, "gpt-4o", begin=["Gemini"])) == ["Gemini:gpt-4o", "Capi:gpt-4o"]


def test_only_and_ignore_restrict() -> None:
    assert names(resolve(SHOP, "gpt-4o", only=["Gemini"])) == ["Gemini:gpt-4o"]
    assert names(resolve(SHOP, "gpt-4o", ignore=["Gemini"])) == ["Capi:gpt-4o"]


def test_auto_stands_for_every_text_model() -> None:
    assert names(resolve(SHOP, "auto"))[0] == "Capi:gpt-4o"
    assert all(m.category == "text" for m in resolve(SHOP, "auto"))


def test_an_unknown_model_is_a_404_that_suggests_what_was_meant() -> None:
    found = refusal("gpt-4")
    assert (found.code, found.param) == ("model_not_found", "model")
    assert "gpt-4o" in found.message


def test_an_unknown_provider_is_a_404_that_names_the_known_ones() -> None:
    found = refusal("gpt-4o", begin=("Nobody",))
    assert found.code == "provider_not_found"
    assert "Capi, Gemini, Empty" in found.message


def test_a_known_provider_that_lacks_the_model_says_who_has_it() -> None:
    found = refusal("gemini-2.5-flash", begin=("Capi",))
    assert found.code == "model_not_found"
    assert "Gemini" in found.message


def test_restrictions_that_leave_nobody_are_a_404() -> None:
    assert refusal("gemini-2.5-flash", only=("Capi",)).code == "model_not_found"
    assert refusal("gemini-2.5-flash", ignore=("Gemini",)).code == "model_not_found"


def test_a_model_for_pictures_is_not_served_yet() -> None:
    found = refusal("flux")
    assert (found.code, found.param) == ("not_supported", "model")


@given(
    name=st.sampled_from(["gpt-4o", "Gemini/gpt-4o", "auto", "flux", "nope", "Capi/strange"]),
    begin=st.lists(st.sampled_from(["Capi", "Gemini", "Empty"]), max_size=3, unique=True),
    only=st.none() | st.lists(st.sampled_from(["Capi", "Gemini", "Empty"]), max_size=3),
    ignore=st.lists(st.sampled_from(["Capi", "Gemini", "Empty"]), max_size=3),
)
def test_candidates_are_never_outside_what_the_caller_allows(
    name: str, begin: list[str], only: list[str] | None, ignore: list[str]
) -> None:
    found: tuple[Model, ...] = ()
    with contextlib.suppress(Refusal):
        found = resolve(SHOP, name, begin=begin, only=only, ignore=ignore)
    assert len(set(names(found))) == len(found)
    for candidate in found:
        assert candidate.provider not in ignore
        assert not only or candidate.provider in only
        assert candidate.category == "text"
