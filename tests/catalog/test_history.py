"""Every change is told once, with what it was before, and in words."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from manyways.catalog.history import (
    FIELDS,
    Change,
    Kind,
    changes,
    forgotten,
    restored,
    sentence,
    stored,
    verification_changes,
)
from manyways.catalog.verified import Quality, Verified
from manyways.types import Model


def model(name: str = "a", provider: str = "Groq", **fields: Any) -> Model:
    return Model(id=name, provider=provider, upstream_id=name, created=1, **fields)


def change(kind: Kind, field: str | None = None, before: Any = None, after: Any = None) -> Change:
    return Change(provider="Groq", model="a", kind=kind, field=field, before=before, after=after)


# What is listed


def test_models_come_and_go_and_come_back() -> None:
    before = [model("a"), model("b"), model("a", "Capi")]
    after = [model("c"), model("a"), model("d")]
    assert [(c.provider, c.model, c.kind) for c in changes(before, after, gone=[model("d")])] == [
        ("Groq", "c", "added"),
        ("Groq", "d", "returned"),
        ("Groq", "b", "gone"),
        ("Capi", "a", "gone"),
    ]
    assert [(c.model, c.kind) for c in forgotten([model("b")])] == [("b", "left")]


def test_each_field_that_changed_is_told_with_both_values() -> None:
    before = model(context_window=8192, capabilities=("tools",), pricing={"prompt": 5e-8})
    after = model(context_window=None, capabilities=("vision",), pricing={"prompt": 6e-8})
    assert changes([before], [after]) == [
        change("changed", "context_window", 8192, None),
        change("changed", "capabilities", ("tools",), ("vision",)),
        change("changed", "pricing", {"prompt": 5e-8}, {"prompt": 6e-8}),
    ]


def test_what_has_changed_meanwhile_is_told_when_a_model_returns() -> None:
    found = changes([], [model(context_window=1)], gone=[model(context_window=2)])
    assert [(c.kind, c.field) for c in found] == [
        ("returned", None),
        ("changed", "context_window"),
    ]


def test_what_is_measured_is_no_change_of_what_is_claimed() -> None:
    measured = model(status="down", latency_ms=7, quality_score=5.0, asked_last=True)
    assert changes([model()], [measured]) == []


models = st.lists(
    st.builds(
        model,
        st.sampled_from("abc"),
        st.sampled_from(["Groq", "Capi"]),
        context_window=st.none() | st.integers(1, 3),
        pricing=st.none() | st.dictionaries(st.sampled_from(["prompt"]), st.floats(0, 1)),
    ),
    unique_by=lambda one: (one.provider, one.id),
)


@given(models, models, models)
def test_changes_carried_out_on_what_was_give_what_is(
    before: list[Model], after: list[Model], gone: list[Model]
) -> None:
    listed = {(one.provider, one.id): one for one in before}
    missing = {(one.provider, one.id): one for one in gone}
    wanted = {(one.provider, one.id): one for one in after}
    for one in changes(before, after, gone=gone):
        key = (one.provider, one.model)
        match one.kind:
            case "added":
                assert key not in missing
                listed[key] = wanted[key]
            case "returned":
                listed[key] = missing[key]
            case "gone":
                del listed[key]
            case _:
                assert one.field in FIELDS
                assert getattr(listed[key], one.field) == one.before != one.after
                listed[key] = replace(listed[key], **{one.field: one.after})
    assert listed == wanted


# What is found out


def verified(**fields: Any) -> Verified:
    return Verified(**{"provider": "Groq", "model": "a", "at": 1.0, "verdict": "passed", **fields})


def quality(score: float, low: float, high: float, version: str = "1") -> Quality:
    return Quality(score=score, low=low, high=high, version=version, at=1.0)


def test_all_that_a_first_verification_proves_is_no_news() -> None:
    found = verified(proven=("tools", "vision"), quality=quality(7, 6, 8))
    assert verification_changes(None, found) == []


def test_whatever_a_first_verification_finds_wrong_is() -> None:
    found = verified(
        verdict="failed",
        reason="nothing came within 60 s",
        withdrawn={"tools": "it wrote prose"},
        flags={"impostor": "it scores 2 of 10"},
    )
    assert verification_changes(None, found) == [
        change("failed", after="nothing came within 60 s"),
        change("withdrawn", "tools", after="it wrote prose"),
        change("flagged", "impostor", after="it scores 2 of 10"),
    ]


def test_what_is_still_so_is_told_once() -> None:
    bad = verified(verdict="failed", reason="x", withdrawn={"tools": "y"}, flags={"drift": "z"})
    worded = replace(bad, reason="X", withdrawn={"tools": "Y"}, flags={"drift": "Z"}, at=2.0)
    assert verification_changes(bad, worded) == []


def test_what_is_well_again_is_told() -> None:
    bad = verified(verdict="failed", withdrawn={"tools": "y"}, flags={"drift": "z"})
    good = verified(proven=("tools", "vision"))
    assert verification_changes(bad, good) == [
        change("recovered"),
        change("proven", "tools"),
        change("proven", "vision"),
        change("cleared", "drift"),
    ]


@pytest.mark.parametrize("verdict", ["unsure", "skipped"])
def test_what_could_not_be_found_out_changes_nothing(verdict: Any) -> None:
    good, bad = verified(), verified(verdict="failed")
    assert verification_changes(good, verified(verdict=verdict)) == []
    assert verification_changes(bad, verified(verdict=verdict)) == []


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (quality(6.0, 5.5, 6.5), False),
        (quality(5.0, 4.5, 5.9), True),
        (quality(5.0, 4.0, 6.0), False),
        (quality(9.0, 8.1, 9.5), True),
        (quality(9.0, 8.0, 9.5), False),
        (quality(5.0, 4.5, 5.9, "2"), True),
    ],
)
def test_a_score_has_changed_where_the_intervals_do_not_meet(now: Quality, told: bool) -> None:
    found = verification_changes(verified(quality=quality(7, 6, 8)), verified(quality=now))
    assert found == ([change("score", before=7, after=now.score)] if told else [])


# In words


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (change("added"), "Groq/a is new"),
        (change("gone"), "Groq/a is not listed any more"),
        (change("returned"), "Groq/a is listed again"),
        (change("left"), "Groq/a has left the catalog"),
        (change("failed", after="HTTP 500\n  it says"), "Groq/a fails: HTTP 500 it says"),
        (change("failed"), "Groq/a fails"),
        (change("recovered"), "Groq/a answers again"),
        (change("withdrawn", "tools", after="{prose}"), "Groq/a: tools is withdrawn: {prose}"),
        (change("proven", "tools"), "Groq/a: tools is proven"),
        (change("score", before=7.25, after=5.0), "Groq/a: quality 7.25 -> 5"),
        (change("flagged", "drift", after="why"), "Groq/a is flagged: drift: why"),
        (change("cleared", "drift"), "Groq/a is not flagged any more: drift"),
        (change("changed", "category", "text", "image"), "Groq/a: category text -> image"),
        (
            change("changed", "context_window", 1048576, None),
            "Groq/a: context window 1048576 -> unknown tokens",
        ),
        (
            change("changed", "max_output_tokens", None, 4096),
            "Groq/a: longest answer unknown -> 4096 tokens",
        ),
        (
            change("changed", "capabilities", ("tools", "vision"), ("vision", "prefill")),
            "Groq/a: gains prefill; loses tools",
        ),
        (
            change("changed", "modalities", None, ("text", "image")),
            "Groq/a: modalities unknown -> text, image",
        ),
        (
            change("changed", "pricing", {"prompt": 5e-8}, {"prompt": 6e-8}),
            "Groq/a: prompt price 0.05 -> 0.06 USD a million tokens",
        ),
        (
            change("changed", "pricing", None, {"image": 0.04, "input_cache_read": 1e-7}),
            (
                "Groq/a: image price unknown -> 0.04 USD each,"
                " price of reading the cache unknown -> 0.1 USD a million tokens"
            ),
        ),
        (
            change("changed", "pricing", {"prompt": 0.0, "completion": 1e-6}, None),
            (
                "Groq/a: prompt price 0 -> unknown USD a million tokens,"
                " completion price 1 -> unknown USD a million tokens"
            ),
        ),
    ],
)
def test_a_change_is_told_in_plain_words_before_it_was_stored_and_after(
    told: Change, words: str
) -> None:
    assert sentence(told) == words
    assert sentence(restored(stored(told))) == words


def test_what_is_restored_is_what_was_stored() -> None:
    for told in (
        change("changed", "capabilities", (), ("tools",)),
        change("changed", "pricing", {"prompt": 2.5e-07}, None),
        change("changed", "context_window", 8192, 131072),
        change("score", before=7.25, after=5.5),
        change("left"),
    ):
        assert restored(stored(told)) == told


def test_a_reason_that_is_no_text_can_be_stored_all_the_same() -> None:
    assert restored(stored(change("failed", after="\ud800 \x00"))).after == "? \x00"


def test_a_row_of_no_change_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        restored(("Groq", "a", "exploded", None, None, None))
    with pytest.raises(msgspec.MsgspecError):
        restored(("Groq", "a", "score", None, "7.", None))


def test_there_are_words_for_every_kind() -> None:
    for kind in get_args(Kind):
        assert sentence(change(kind, "context_window")).startswith("Groq/a")
