"""What providers told in an earlier life holds until they tell it again, for models of the
configuration as well."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.catalog import Claim
from manyways.catalog.claims import CAPABILITIES, merge
from manyways.errors import AttemptFailed
from manyways.types import CATEGORIES, Model, ModelEntry, Provider
from tests.catalog.test_catalog import REFUSED, World, listing

PRICES = {"prompt": 0.001, "completion": 0.001}


def capi(*entries: ModelEntry) -> Provider:
    return Provider(name="Capi", protocol="openai", base_url="http://capi/v1", models=entries)


def known(name: str, **fields: Any) -> Model:
    row = {"id": name, "provider": "Capi", "upstream_id": name, "created": 5, **fields}
    return msgspec.convert(row, Model)


async def test_what_a_provider_told_holds_while_it_does_not_answer() -> None:
    rows = (
        known("sage", category="text", capabilities=["tools"], context_window=8192),
        known("dear", pricing=PRICES, capabilities=["tools", "vision"], modalities=["text"]),
    )
    world = World(
        [capi(ModelEntry(id="sage"), ModelEntry(id="dear"))],
        remembered=tuple(Claim(model=row) for row in rows),
        Capi=[REFUSED, listing("sage", "dear", context_window=4096)],
    )
    assert world.catalog.snapshot.models == rows
    await world.catalog.refresh()
    assert world.catalog.snapshot.models == rows
    await world.catalog.refresh()
    told = world.catalog.snapshot.models
    assert [row.context_window for row in told] == [4096, 4096]
    assert [row.pricing for row in told] == [None, None], "what it tells now is what counts"


async def test_what_the_configuration_says_wins_over_what_is_remembered() -> None:
    row = known("sage", category="text", capabilities=["tools"], pricing=PRICES)
    entry = ModelEntry(id="sage", category="embedding", capabilities=(), pricing={"prompt": 1.0})
    world = World([capi(entry)], remembered=(Claim(model=row),), Capi=[REFUSED])
    (shown,) = world.catalog.snapshot.models
    assert (shown.category, shown.capabilities, shown.pricing) == ("embedding", (), {"prompt": 1.0})


async def test_a_name_that_stands_for_another_model_now_inherits_nothing() -> None:
    row = known("best", upstream_id="big-1", context_window=8192, pricing=PRICES)
    world = World(
        [capi(ModelEntry(id="best", upstream_id="big-2"), ModelEntry(id="other"))],
        remembered=(Claim(model=row),),
        Capi=[REFUSED],
    )
    assert [row.pricing for row in world.catalog.snapshot.models] == [None, None]


texts = st.text("abcdefghij-:./4o", min_size=1, max_size=12)


@given(
    name=texts | st.sampled_from(["gpt-4o", "sage", "llama-3.1-8b-instruct", "tts-1"]),
    category=st.sampled_from(CATEGORIES),
    capabilities=st.sets(st.sampled_from(CAPABILITIES), min_size=1),
    window=st.none() | st.integers(1, 10**6),
    pricing=st.none() | st.just(PRICES),
)
def test_a_row_comes_back_with_all_that_was_known(
    name: str, category: Any, capabilities: set[str], window: int | None, pricing: Any
) -> None:
    row = known(
        name,
        category=category,
        capabilities=[one for one in CAPABILITIES if one in capabilities],
        context_window=window,
        pricing=pricing,
    )
    (again,) = merge(capi(ModelEntry(id=name)), (), now=9.0, known=[row], untold=True)
    assert again.category == row.category
    assert again.capabilities == row.capabilities
    assert again.pricing == row.pricing
    assert row.context_window is None or again.context_window == row.context_window
    (twice,) = merge(capi(ModelEntry(id=name)), (), now=9.0, known=[again], untold=True)
    assert twice == again


@pytest.mark.parametrize("failure", [REFUSED, AttemptFailed("timeout", "silence")])
async def test_whether_a_provider_has_told_its_list(failure: Exception) -> None:
    one, local = capi(ModelEntry(id="one")), Provider(name="Local", protocol="local", models=())
    world = World([one, local], Capi=[failure, listing("one")])
    assert [world.catalog.has_told(name) for name in ("Capi", "Local")] == [None, True]
    await world.catalog.refresh()
    assert world.catalog.has_told("Capi") is False
    await world.catalog.refresh()
    assert world.catalog.has_told("Capi") is True
