"""What was claimed of models outlives the process that heard it."""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyways.catalog.catalog import MOST_GONE, Claim
from manyways.catalog.remembering import Told, forget, remember, remembered
from manyways.store import catalog as store
from manyways.store import incidents, verifications
from manyways.store.database import Database
from manyways.types import Model
from tests.support.databases import database, database_url
from tests.support.verifications import found, save

__all__ = ["database", "database_url"]

NOW = 1_800_000_000.5
WEEK = 7 * 86_400.0
YEAR = 366 * 86_400.0


def model(name: str, provider: str = "Capi", **fields: Any) -> Model:
    return msgspec.convert(
        {"id": name, "provider": provider, "upstream_id": name, "created": 5, **fields}, Model
    )


def claim(name: str, *, gone: float | None = None, **fields: Any) -> Claim:
    return Claim(model=model(name, **fields), gone_since=gone)


def told(database: Database, *claims: Claim, now: float = NOW, asked: bool = True) -> list[str]:
    """What has changed, by kind and model."""
    what = Told(provider="Capi", claims=claims, asked=asked)
    changed = database.run(lambda connection: remember(connection, what, now), write=True)
    return [f"{one.kind} {one.model}" for one in changed]


def known(database: Database) -> dict[str, float | None]:
    return {one.model.id: one.gone_since for one in database.run(remembered)}


def pruned(database: Database, *claimed: str, now: float, providers: str = "Capi") -> list[str]:
    names = {("Capi", name) for name in claimed}
    changed = database.run(
        lambda connection: forget(connection, names, {providers}, now, keep=WEEK), write=True
    )
    return [f"{one.kind} {one.model}" for one in changed]


def verified(database: Database) -> set[str]:
    return {row[1] for row in database.run(verifications.verified)}


def open_incidents(database: Database) -> set[str]:
    rows = database.run(lambda one: incidents.listed(one, open_only=True, limit=1000))
    return {row.model for row in rows}


def history(database: Database) -> list[str]:
    rows = database.run(lambda connection: store.changes(connection, limit=100))
    return [f"{row.kind} {row.model}" for row in reversed(rows)]


def test_what_is_claimed_comes_back_as_it_was(database: Database) -> None:
    claims = [
        claim("a", context_window=8192, capabilities=["tools"], pricing={"prompt": 1e-7}),
        claim("b", category="image", modalities=["text", "image"]),
        claim("c", gone=NOW - 10),
    ]
    told(database, *claims)
    gone = Claim(model=claims[2].model, gone_since=float(int(NOW - 10)))
    assert database.run(remembered) == [*claims[:2], gone]


_texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=_texts,
    price=st.floats(0, 1e3),
    window=st.none() | st.integers(1, 10**9),
    created=st.integers(0, 2**33),
)
def test_any_claim_comes_back_as_it_was(
    database: Database, name: str, price: float, window: int | None, created: int
) -> None:
    one = claim(name, pricing={"prompt": price}, context_window=window, created=created)
    told(database, one)
    assert one in database.run(remembered)
    assert told(database, one) == []


def test_a_model_that_goes_and_comes_back_is_told_of_once_each_time(database: Database) -> None:
    assert told(database, claim("a"), claim("b")) == ["added a", "added b"]
    gone = claim("b", gone=NOW + 60.7)
    assert told(database, claim("a"), gone, now=NOW + 61) == ["gone b"]
    assert told(database, claim("a"), gone, now=NOW + 66) == [], "also with parts of a second"
    assert open_incidents(database) == {"b"}
    assert told(database, claim("a"), claim("b"), now=NOW + 90) == ["returned b"]
    assert open_incidents(database) == set()
    assert history(database) == ["added a", "added b", "gone b", "returned b"]


def test_what_nobody_claims_any_more_is_gone_and_known_again_in_time(database: Database) -> None:
    told(database, claim("a"), claim("b"))
    save(database, "1", found("a"), found("b"))
    assert told(database, claim("a"), now=NOW + 60) == ["gone b"]
    assert known(database) == {"a": None, "b": float(int(NOW + 60))}
    assert open_incidents(database) == set(), "it was not its provider that failed"
    assert pruned(database, "a", now=NOW + 60 + WEEK - 1) == []
    assert told(database, claim("a"), claim("b"), now=NOW + 100) == ["returned b"]
    assert verified(database) == {"a", "b"}


def test_what_has_been_gone_for_long_is_forgotten_with_what_was_verified(
    database: Database,
) -> None:
    told(database, claim("a"), claim("b"))
    save(database, "1", found("a"), found("b"))
    told(database, claim("a"), claim("b", gone=NOW + 60))
    assert open_incidents(database) == {"b"}
    assert pruned(database, "a", "b", now=NOW + YEAR) == [], "who claims it knows better"
    assert pruned(database, "a", now=NOW + 61 + WEEK) == ["left b"]
    assert known(database) == {"a": None}
    assert verified(database) == {"a"}
    assert open_incidents(database) == set()
    assert pruned(database, "a", now=NOW + YEAR) == [], "once"


def test_a_provider_that_is_taken_out_is_forgotten_after_a_while(database: Database) -> None:
    told(database, claim("a"), claim("b", gone=NOW))
    save(database, "1", found("a"))
    assert pruned(database, now=NOW + 60, providers="Other") == ["gone a"]
    assert known(database) == {"a": float(int(NOW + 60)), "b": float(int(NOW))}
    assert verified(database) == {"a"}
    assert pruned(database, now=NOW + 61 + WEEK, providers="Other") == ["left a", "left b"]
    assert known(database) == {}
    assert verified(database) == set()


def failing(database: Database, *names: str) -> None:
    """These failed their verification."""
    seen = [
        incidents.Sighting(
            provider="Capi",
            model=name,
            source="verification",
            began=int(NOW) - 9,
            seen=int(NOW) - 9,
            why="HTTP 500",
        )
        for name in names
    ]
    database.run(lambda connection: incidents.record(connection, seen), write=True)


def test_incidents_end_when_their_model_has_left(database: Database) -> None:
    told(database, claim("a"), claim("b"))
    failing(database, "a", "b", "orphan")
    told(database, claim("a"), claim("b", gone=NOW))
    assert open_incidents(database) == {"a", "b", "orphan"}
    assert pruned(database, "a", "b", now=NOW + WEEK) == []
    assert open_incidents(database) == {"a", "b"}, "of the third, nobody has ever known"
    assert pruned(database, "a", now=NOW + WEEK + 1) == ["left b"]
    assert open_incidents(database) == {"a"}
    assert pruned(database, now=NOW + WEEK + 2, providers="Other") == ["gone a"]
    assert open_incidents(database) == set()


def test_incidents_end_when_their_model_is_taken_out_of_the_configuration(
    database: Database,
) -> None:
    told(database, claim("a"), claim("b"))
    failing(database, "a", "b")
    told(database, claim("a"), now=NOW + 60)
    assert open_incidents(database) == {"a"}


def test_incidents_end_when_there_is_no_room_for_their_model(database: Database) -> None:
    many = [claim(f"m{number}", gone=NOW - number) for number in range(MOST_GONE + 1)]
    last = many[-1].model.id
    told(database, *(claim(one.model.id) for one in many))
    failing(database, last)
    told(database, *many)
    assert last not in known(database)
    assert last not in open_incidents(database)


def test_rows_that_a_newer_program_wrote_are_left_alone(database: Database) -> None:
    told(database, claim("a"))
    newer = store.Remembered("Capi", "new", int(NOW), 1, '{"id": "new", "kind": "quantum"}')
    database.run(lambda connection: store.remember(connection, [newer]), write=True)
    assert known(database) == {"a": None}
    assert told(database, claim("b")) == ["added b", "gone a"]
    failing(database, "new")
    pruned(database, now=NOW + YEAR, providers="Other")
    rows = database.run(store.remembered)
    assert ("new", newer.document) in {(row.id, row.document) for row in rows}
    assert open_incidents(database) == {"new"}


def test_until_a_provider_is_asked_what_the_configuration_leaves_open_is_as_it_was(
    database: Database,
) -> None:
    told(database, claim("a", context_window=8192, capabilities=["tools"]))
    assert told(database, claim("a"), asked=False) == []
    (kept,) = database.run(remembered)
    assert (kept.model.context_window, kept.model.capabilities) == (8192, ("tools",))
    assert told(database, claim("a", context_window=4096), asked=False) == ["changed a"]
    assert told(database, claim("a", context_window=4096)) == ["changed a"], "now it is known"


def test_a_provider_touches_nothing_of_another(database: Database) -> None:
    other = Told(provider="Other", claims=(claim("a", provider="Other"),))
    database.run(lambda connection: remember(connection, other, NOW), write=True)
    told(database, claim("a"))
    told(database)
    rows = {(one.model.provider, one.gone_since) for one in database.run(remembered)}
    assert rows == {("Other", None), ("Capi", float(int(NOW)))}
