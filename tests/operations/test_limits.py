from typing import Any

import pytest

from manyways.operations import Mistake, as_limits
from manyways.operations.limits import checked
from manyways.store.limits import decode, encode, plain
from manyways.types import Allowance, Quota

WHOLE = {
    "requests": 30,
    "window": 60.0,
    "tokens": 1000,
    "tokens_window": 86400.0,
    "concurrent": 4,
    "quota": [{"cost": 2.5, "per": "month"}, {"requests": 9, "tokens": 8, "per": "ever"}],
}


def test_what_json_says_is_what_holds_and_is_said_again() -> None:
    limits = as_limits(WHOLE)
    assert limits == Allowance(
        requests=30,
        window=60.0,
        tokens=1000,
        tokens_window=86400.0,
        concurrent=4,
        quota=(Quota(cost=2.5, per="month"), Quota(requests=9, tokens=8)),
    )
    assert plain(limits) == WHOLE
    assert decode(encode(limits)) == limits


@pytest.mark.parametrize(("value", "limits"), [(None, None), ({}, Allowance())])
def test_none_of_ones_own_and_no_limits_are_two_things(
    value: object, limits: Allowance | None
) -> None:
    assert as_limits(value) == limits
    assert decode(encode(limits)) == limits


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"requests": 5}, "limits.window"),
        ({"window": 5}, "limits.requests"),
        ({"tokens": 5}, "limits.tokens_window"),
        ({"requests": 0, "window": 60}, "limits.requests"),
        ({"requests": 10**16, "window": 60}, "limits.requests"),
        ({"requests": 5, "window": 0.5}, "limits.window"),
        ({"requests": 5, "window": 1e12}, "limits.window"),
        ({"requests": 5, "window": float("nan")}, "limits.window"),
        ({"concurrent": -1}, "limits.concurrent"),
        ({"concurrent": "5"}, "limits.concurrent"),
        ({"quota": [{"tokens": 5}, {"per": "day"}]}, "limits.quota[1]"),
        ({"quota": [{"cost": float("inf")}]}, "limits.quota[0].cost"),
        ({"quota": [{"cost": 0}]}, "limits.quota[0].cost"),
        ({"quota": [{"tokens": 5, "per": "week"}]}, "limits.quota[0].per"),
        ({"quota": [{"tokens": 5.5}]}, "limits.quota[0].tokens"),
        ({"quota": [{"tokens": True}]}, "limits.quota[0].tokens"),
        ({"quota": {"tokens": 5, "per": None}}, "limits.quota[0].per"),
        ({"quota": {"token": 5}}, "limits.quota[0].token"),
        ({"quota": [5]}, "limits.quota[0]"),
        ({"quota": 5}, "limits.quota"),
        ({"request": 5}, "limits.request"),
        ([], "limits"),
    ],
)
def test_a_mistake_names_its_field(value: Any, field: str) -> None:
    with pytest.raises(Mistake) as wrong:
        as_limits(value)
    assert wrong.value.field == field
    assert str(wrong.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"quota": [{"tokens": 5, "per": "week"}]}, "must be day, month or ever."),
        ({"request": 5}, "there is no such field; did you mean requests?"),
        ({"concurrent": "5"}, "must be a whole number."),
        ({"requests": 5, "window": "soon"}, "must be a time."),
        ([], "must be an object."),
    ],
)
def test_a_mistake_is_told_in_our_own_words(value: Any, words: str) -> None:
    with pytest.raises(Mistake) as wrong:
        as_limits(value)
    assert str(wrong.value).endswith(f": {words}")


def test_a_single_quota_needs_no_list() -> None:
    assert as_limits({"quota": {"tokens": 5}}) == as_limits({"quota": [{"tokens": 5}]})


def test_what_makes_sense_is_let_through() -> None:
    limits = Allowance(concurrent=1)
    assert checked(limits) is limits
