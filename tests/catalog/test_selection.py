import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.selection import named, select
from manyways.catalog.snapshot import Snapshot
from manyways.routing.health import Health
from manyways.routing.settings import Settings
from manyways.types import Model, Status


def row(
    provider: str,
    *,
    latency_ms: int | None = None,
    quality: float | None = None,
    status: Status = "active",
    asked_last: bool = False,
) -> Model:
    return Model(
        id="m",
        provider=provider,
        upstream_id="m",
        created=1,
        latency_ms=latency_ms,
        quality_score=quality,
        status=status,
        asked_last=asked_last,
    )


def first(*rows: Model) -> str:
    names = tuple(model.provider for model in rows)
    return named(Snapshot(rows, names, 1.0), "m").provider


def test_the_quicker_provider_is_meant_and_quality_makes_quicker() -> None:
    slow, quick = row("Slow", latency_ms=2000), row("Quick", latency_ms=900)
    assert first(slow, quick) == "Quick"
    good = msgspec.structs.replace(slow, quality_score=9.0)
    poor = msgspec.structs.replace(quick, quality_score=2.0)
    assert first(good, poor) == "Slow"


def test_equals_stand_in_the_order_of_the_configuration() -> None:
    assert first(row("A"), row("B")) == "A"
    assert first(row("B", latency_ms=700), row("A", latency_ms=700)) == "B"


@pytest.mark.parametrize("state", [{"status": "down"}, {"status": "down", "asked_last": True}])
def test_who_is_down_comes_last_however_quick(state: dict[str, object]) -> None:
    down = msgspec.structs.replace(row("Quick", latency_ms=10), **state)
    assert first(down, row("Slow", latency_ms=9000)) == "Slow"
    assert first(down, row("Failing", latency_ms=9000, status="degraded")) == "Failing"
    assert first(down) == "Quick"


def test_who_rests_comes_before_who_failed_its_verification() -> None:
    rests = row("Rests", latency_ms=9000, status="down")
    failed = row("Failed", latency_ms=10, status="down", asked_last=True)
    assert first(failed, rests) == "Rests"


_rows = st.lists(
    st.builds(
        Model,
        id=st.just("m"),
        provider=st.text("abcdef", min_size=1, max_size=6),
        upstream_id=st.just("m"),
        created=st.just(1),
        latency_ms=st.none() | st.integers(1, 60_000),
        quality_score=st.none() | st.floats(0, 10),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda model: model.provider,
)


@given(_rows)
def test_it_is_whom_routing_finds_cheapest(rows: list[Model]) -> None:
    """As long as nobody is down: who is, routing knows by itself."""
    health = Health(Settings(), {}, chance=lambda: 0.5)
    cheapest = min(rows, key=lambda model: health.candidate(model).cost(0.0, stream=True))
    assert first(*rows) == cheapest.provider


def test_only_models_that_are_down_are_left_out() -> None:
    rows = (row("A"), row("B", status="degraded"), row("C", status="down"))
    snapshot = Snapshot(rows, ("A", "B", "C"), 1.0)
    assert [model.provider for model in select(snapshot)] == ["A", "B"]
    assert [model.provider for model in select(snapshot, window="all")] == ["A", "B", "C"]
