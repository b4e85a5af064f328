"""Names become candidates: a pure look at what the catalog offers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import Refusal
from manyways.routing.resolve import Candidates, Wish, fits, resolve
from manyways.routing.settings import Order
from manyways.types import NO_NEEDS, Model, Needs
from tests.support.routing import full_name, model, shop

SHOP = shop(
    "Capi/gpt-4o",
    "Capi/mini",
    model("Capi/flux", category="image"),
    "Gemini/gpt-4o",
    "Gemini/gemini-2.5-flash",
    "Gemini/Capi/strange",
    providers=("Empty",),
)
TOOLS = Needs(capabilities=("tools",))


def wish(
    *names: str,
    begin: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    fallbacks: bool = True,
) -> Wish:
    return Wish(
        models=names,
        begin=begin,
        only=frozenset(only),
        ignore=frozenset(ignore),
        fallbacks=fallbacks,
        listed=len(names) > 1,
    )


def found(
    wished: Wish | str,
    needs: Needs = NO_NEEDS,
    order: Order = "same-provider-first",
) -> Candidates:
    wished = Wish(models=(wished,)) if isinstance(wished, str) else wished
    return resolve(SHOP, wished, needs, order)


def refusal(wished: Wish | str, needs: Needs = NO_NEEDS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        found(wished, needs)
    return caught.value


def names(rows: tuple[Model, ...]) -> list[str]:
    return [full_name(row) for row in rows]


def tiers(candidates: Candidates) -> list[list[str]]:
    """Whom to ask, in order, without whoever was in a tier before."""
    chosen = candidates.first[0]
    seen = {full_name(chosen)}
    fresh = []
    for tier in candidates.behind(chosen):
        fresh.append([name for name in names(tier) if name not in seen])
        seen.update(fresh[-1])
    return [tier for tier in fresh if tier]


# Who is meant


def test_an_id_finds_everyone_who_has_it_in_the_catalogs_order() -> None:
    assert names(found("gpt-4o").first) == ["Capi/gpt-4o", "Gemini/gpt-4o"]


def test_a_provider_before_the_slash_narrows_it_to_that_one() -> None:
    assert names(found("Gemini/gpt-4o").first) == ["Gemini/gpt-4o"]


def test_an_exact_id_wins_over_a_provider_before_a_slash() -> None:
    assert names(found("Capi/strange").first) == ["Gemini/Capi/strange"]


def test_a_named_provider_is_where_it_begins_and_no_more() -> None:
    candidates = found(wish("gpt-4o", begin=("Gemini",)))
    assert names(candidates.first) == ["Gemini/gpt-4o"]
    assert [names(tier) for tier in candidates.rest] == [["Capi/gpt-4o"]]


def test_only_and_ignore_restrict() -> None:
    assert names(found(wish("gpt-4o", only=("Gemini",))).first) == ["Gemini/gpt-4o"]
    assert names(found(wish("gpt-4o", ignore=("Gemini",))).first) == ["Capi/gpt-4o"]


def test_auto_stands_for_every_text_model() -> None:
    assert names(found("auto").first) == [n for n in names(SHOP.models) if n != "Capi/flux"]


def test_auto_begins_with_those_nearly_as_good_as_the_best() -> None:
    offers = shop(
        model("Capi/best", quality_score=9.0),
        model("Capi/good", quality_score=8.2),
        model("Capi/poor", quality_score=4.0),
        "Capi/unknown",
    )
    candidates = resolve(offers, wish("auto"), NO_NEEDS, "same-provider-first")
    assert names(candidates.first) == ["Capi/best", "Capi/good"]
    assert tiers(candidates) == [["Capi/good"], ["Capi/poor"], ["Capi/unknown"]]


SEES = ("vision",)
SIGHT = shop(
    model("Capi/best", quality_score=9.5, capabilities=("tools",)),
    model("Capi/v8", quality_score=8.0, capabilities=SEES),
    model("Capi/v75", quality_score=7.5, capabilities=SEES),
    model("Other/v5", quality_score=5.0, capabilities=SEES),
    model("Other/rests", quality_score=9.0, capabilities=SEES, asked_last=True),
)
PICTURE = Needs(capabilities=("vision",))


@pytest.mark.parametrize("fallbacks", [True, False])
def test_auto_begins_with_the_best_of_those_that_can_do_it(fallbacks: bool) -> None:
    candidates = resolve(SIGHT, wish("auto", fallbacks=fallbacks), PICTURE, "same-model-first")
    assert names(candidates.first) == ["Capi/v8", "Capi/v75"]
    assert candidates.unfit is None, "nobody else was meant"
    behind = [["Capi/v75"], ["Other/v5"], ["Other/rests"]]
    assert tiers(candidates) == (behind if fallbacks else [])


def test_auto_says_what_nobody_can() -> None:
    with pytest.raises(
        Refusal, match="a model with json_schema, and no model that may be used"
    ) as no:
        resolve(SIGHT, wish("auto"), Needs(capabilities=("json_schema",)), "same-model-first")
    assert no.value.code == "not_supported"


def test_who_failed_its_verification_comes_last() -> None:
    offers = shop(model("Capi/m", asked_last=True), "Other/m")
    candidates = resolve(offers, wish("m"), NO_NEEDS, "same-model-first")
    assert names(candidates.first) == ["Other/m"]
    assert [names(tier) for tier in candidates.rest] == [["Capi/m"]]


def test_the_callers_list_is_tried_in_its_order_and_nothing_else() -> None:
    candidates = found(wish("gemini-2.5-flash", "Capi/gpt-4o", "mini"))
    assert names(candidates.first) == ["Gemini/gemini-2.5-flash"]
    assert tiers(candidates) == [["Capi/gpt-4o"], ["Capi/mini"]]


# Who comes behind


def test_behind_a_model_come_its_provider_then_its_twins_then_all() -> None:
    assert tiers(found("Capi/gpt-4o")) == [
        ["Capi/mini"], ["Gemini/gpt-4o"], ["Gemini/gemini-2.5-flash", "Gemini/Capi/strange"]
    ]  # fmt: skip


def test_behind_a_model_its_twins_come_first_where_the_model_counts_most() -> None:
    assert tiers(found("Capi/gpt-4o", order="same-model-first")) == [
        ["Gemini/gpt-4o"], ["Capi/mini"], ["Gemini/gemini-2.5-flash", "Gemini/Capi/strange"]
    ]  # fmt: skip


def test_whoever_was_named_to_begin_with_is_asked_for_other_models_before_strangers() -> None:
    offers = shop("Capi/gpt-4o", "Other/x", "Gemini/y", "Gemini/gpt-4o")
    wished = wish("gpt-4o", begin=("Capi", "Gemini"))
    candidates = resolve(offers, wished, NO_NEEDS, "same-model-first")
    assert tiers(candidates) == [["Gemini/gpt-4o"], ["Gemini/y"], ["Other/x"]]


def test_without_fallbacks_only_who_was_named_comes_behind() -> None:
    assert tiers(found(wish("gpt-4o", fallbacks=False))) == []
    both = wish("gpt-4o", begin=("Capi", "Gemini"), fallbacks=False)
    assert tiers(found(both)) == [["Gemini/gpt-4o"]]


# What a request needs


@pytest.mark.parametrize(
    ("row", "needs", "verdict"),
    [
        (model("P/m"), NO_NEEDS, True),
        (model("P/m", category="image"), NO_NEEDS, False),
        (model("P/m"), TOOLS, True),  # nobody told what it can do
        (model("P/m", capabilities=("vision",)), TOOLS, False),
        (model("P/m", capabilities=("vision", "tools")), TOOLS, True),
        (model("P/m", context_window=1000), Needs(prompt_tokens=999), True),
        (model("P/m", context_window=1000), Needs(prompt_tokens=1000), False),
        (model("P/m"), Needs(prompt_tokens=10**9), True),
    ],
)
def test_a_model_fits_as_far_as_is_known(row: Model, needs: Needs, verdict: bool) -> None:
    assert fits(row, needs) is verdict


def test_whoever_is_named_and_cannot_do_it_is_stood_in_for() -> None:
    offers = shop(model("Capi/plain", capabilities=("vision",)), "Capi/unknown", "Other/x")
    candidates = resolve(offers, wish("plain"), TOOLS, "same-provider-first")
    assert names(candidates.first) == ["Capi/unknown", "Other/x"]
    assert candidates.unfit is offers.models[0]
    assert not candidates.asked_for(candidates.first[0])
    assert candidates.asked_on_trust(candidates.first[0])


@pytest.mark.parametrize(
    "wished",
    [wish("plain", fallbacks=False), wish("plain", "small"), wish("plain", only=("Capi",))],
)
def test_nobody_stands_in_where_the_caller_does_not_allow_it(wished: Wish) -> None:
    offers = shop(
        model("Capi/plain", capabilities=("vision",)),
        model("Capi/small", capabilities=("vision",)),
        "Other/able",
    )
    with pytest.raises(Refusal) as caught:
        resolve(offers, wished, TOOLS, "same-provider-first")
    assert caught.value.code == "not_supported"
    assert "tools" in caught.value.message


def test_a_prompt_too_long_for_everybody_says_how_long_it_may_be() -> None:
    offers = shop(model("Capi/a", context_window=4_000), model("Capi/b", context_window=8_000))
    with pytest.raises(Refusal) as caught:
        resolve(offers, wish("a", "b"), Needs(prompt_tokens=9_000), "same-provider-first")
    assert caught.value.code == "context_length_exceeded"
    assert "9000" in caught.value.message
    assert "8000" in caught.value.message


# Who is not there


def test_an_unknown_model_is_a_404_that_suggests_what_was_meant() -> None:
    told = refusal("gpt-4")
    assert (told.code, told.param) == ("model_not_found", "model")
    assert "gpt-4o" in told.message


def test_an_unknown_provider_is_a_404_that_names_the_known_ones() -> None:
    told = refusal(wish("gpt-4o", begin=("Nobody",)))
    assert told.code == "provider_not_found"
    assert "Capi, Gemini, Empty" in told.message


def test_a_known_provider_that_lacks_the_model_says_who_has_it() -> None:
    told = refusal(wish("gemini-2.5-flash", begin=("Capi",)))
    assert told.code == "model_not_found"
    assert "Gemini" in told.message


@pytest.mark.parametrize(
    "wished",
    [wish("gemini-2.5-flash", only=("Capi",)), wish("gemini-2.5-flash", ignore=("Gemini",))],
)
def test_restrictions_that_leave_nobody_are_a_404(wished: Wish) -> None:
    assert refusal(wished).code == "model_not_found"


def test_providers_that_all_lack_the_model_are_a_404() -> None:
    told = refusal(wish("mini", begin=("Gemini", "Empty")))
    assert (told.code, told.param) == ("model_not_found", "model")


def test_a_model_for_pictures_is_not_served_yet() -> None:
    told = refusal("flux")
    assert (told.code, told.param) == ("not_supported", "model")


_names = st.sampled_from(["gpt-4o", "Gemini/gpt-4o", "auto", "flux", "nope", "Capi/strange"])
_some = st.lists(st.sampled_from(["Capi", "Gemini", "Empty"]), max_size=3, unique=True)
_wishes = st.builds(
    Wish,
    models=st.lists(_names, min_size=1, max_size=2, unique=True).map(tuple),
    begin=_some.map(tuple),
    only=_some.map(frozenset),
    ignore=_some.map(frozenset),
    fallbacks=st.booleans(),
    listed=st.booleans(),
)


@given(
    wished=_wishes,
    needs=st.sampled_from([NO_NEEDS, TOOLS]),
    order=st.sampled_from(["same-provider-first", "same-model-first"]),
)
def test_candidates_are_never_outside_what_the_caller_allows(
    wished: Wish, needs: Needs, order: Order
) -> None:
    try:
        candidates = found(wished, needs, order)
    except Refusal:
        return
    assert candidates.first
    for tier in (candidates.first, *candidates.rest, *candidates.behind(candidates.first[0])):
        for row in tier:
            assert row.provider not in wished.ignore
            assert not wished.only or row.provider in wished.only
            assert fits(row, needs)
            assert wished.fallbacks or not wished.begin or row.provider in wished.begin
