import pytest

from manyways.catalog.snapshot import Snapshot
from manyways.types import Model


def row(provider: str, model_id: str) -> Model:
    return Model(id=model_id, provider=provider, upstream_id=model_id, created=1)


CAPI_4O = row("Capi", "gpt-4o")
CAPI_FLUX = row("Capi", "flux")
SPACE_4O = row("Space", "gpt-4o")
SPACE_SLASH = row("Space", "Capi/gpt-4o-mini")
SNAPSHOT = Snapshot(
    models=(CAPI_4O, CAPI_FLUX, SPACE_4O, SPACE_SLASH),
    provider_names=("Capi", "Empty", "Space"),
    made_at=7.0,
)


def test_an_id_finds_every_provider_that_has_it_in_their_order() -> None:
    assert SNAPSHOT.by_id("gpt-4o") == (CAPI_4O, SPACE_4O)
    assert SNAPSHOT.by_id("GPT-4o") == ()


def test_a_provider_without_models_is_still_a_provider() -> None:
    assert SNAPSHOT.provider_names == ("Capi", "Empty", "Space")
    assert SNAPSHOT.of_provider("Capi") == (CAPI_4O, CAPI_FLUX)
    assert SNAPSHOT.of_provider("Empty") == ()
    assert SNAPSHOT.of_provider("nobody") == ()


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gpt-4o", (CAPI_4O, SPACE_4O)),
        ("Capi/gpt-4o", (CAPI_4O,)),
        ("Space/gpt-4o", (SPACE_4O,)),
        ("Capi/gpt-4o-mini", (SPACE_SLASH,)),  # an exact id, though Capi is a provider
        ("Space/Capi/gpt-4o-mini", (SPACE_SLASH,)),  # the first slash only
        ("Empty/gpt-4o", ()),
        ("nobody/gpt-4o", ()),
        ("Capi/", ()),
        ("/gpt-4o", ()),
        ("", ()),
    ],
)
def test_a_name_is_an_exact_id_or_else_a_provider_and_an_id(
    name: str, rows: tuple[Model, ...]
) -> None:
    assert SNAPSHOT.resolve_name(name) == rows


def test_a_providers_rows_are_replaced_and_nothing_else_moves() -> None:
    new = row("Capi", "o3")
    changed = SNAPSHOT.with_provider("Capi", [new], made_at=8.0)
    assert changed.models == (new, SPACE_4O, SPACE_SLASH)
    assert changed.provider_names == SNAPSHOT.provider_names
    assert changed.made_at == 8.0
    assert SNAPSHOT.by_id("o3") == ()


def test_whoever_told_its_models_is_untold_no_more_even_if_it_has_none() -> None:
    begun = Snapshot(provider_names=("Capi", "Empty"), untold=("Capi", "Empty"))
    assert begun.with_provider("Empty", (), made_at=8.0).untold == ("Capi",)
    assert SNAPSHOT.untold == ()


def test_it_cannot_be_changed() -> None:
    for name in ("models", "provider_names", "made_at", "untold"):
        with pytest.raises(AttributeError):
            setattr(SNAPSHOT, name, ())


def test_its_repr_tells_what_is_in_it() -> None:
    assert repr(SNAPSHOT) == "<Snapshot 4 models: Capi 2, Empty 0, Space 2>"
    assert repr(Snapshot()) == "<Snapshot 0 models: no providers>"
