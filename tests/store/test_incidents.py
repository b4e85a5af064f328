"""Rows of incidents, as several processes see them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from manyways.store import incidents
from manyways.store.database import Database
from manyways.store.incidents import Incident, Sighting, Source, Span

NOON = 1_800_000_000


def sighting(
    began: int,
    seen: int,
    *,
    over: bool = False,
    model: str = "gpt-4o",
    source: Source = "traffic",
    why: str = "timeout",
    **fields: Any,
) -> Sighting:
    return Sighting(
        provider=fields.get("provider", "Capi"),
        model=model,
        credential=fields.get("credential", -1),
        source=source,
        began=NOON + began,
        seen=NOON + seen,
        ended=NOON + seen if over else None,
        why=why,
    )


def record(database: Database, *sightings: Sighting) -> None:
    database.run(lambda connection: incidents.record(connection, sightings), write=True)


def end(database: Database, source: Source, at: int, *models: str) -> None:
    names = [("Capi", model) for model in models]
    database.run(lambda connection: incidents.end(connection, source, names, NOON + at), write=True)


def listed(database: Database, **wanted: Any) -> list[Incident]:
    return database.run(lambda connection: incidents.listed(connection, **{"limit": 100, **wanted}))


def spans(database: Database) -> list[tuple[str, int, int, int | None]]:
    """Model, beginning, last seen, end of each, the latest last."""
    return [
        (row.model, row.began - NOON, row.seen - NOON, row.ended and row.ended - NOON)
        for row in reversed(listed(database))
    ]


def test_an_incident_begins_goes_on_and_ends(database: Database) -> None:
    record(database, sighting(0, 60, why="timeout: nothing for 10 s"))
    record(database, sighting(0, 120, why="reset"))
    assert spans(database) == [("gpt-4o", 0, 120, None)]

    record(database, sighting(0, 130, over=True))
    (row,) = listed(database)
    assert (row.provider, row.credential, row.source) == ("Capi", -1, "traffic")
    assert row.why == "timeout: nothing for 10 s"
    assert row.ended == NOON + 130


def test_the_next_one_is_another_row(database: Database) -> None:
    record(database, sighting(0, 60, over=True))
    record(database, sighting(300, 360, over=True), sighting(900, 930))

    assert spans(database) == [
        ("gpt-4o", 0, 60, 60),
        ("gpt-4o", 300, 360, 360),
        ("gpt-4o", 900, 930, None),
    ]


def test_one_that_ends_and_begins_again_in_one_go_is_two(database: Database) -> None:
    record(database, sighting(0, 60))
    record(database, sighting(0, 70, over=True), sighting(1000, 1010))

    assert spans(database) == [("gpt-4o", 0, 70, 70), ("gpt-4o", 1000, 1010, None)]


def test_what_several_processes_see_is_one_incident(database: Database) -> None:
    record(database, sighting(0, 60))
    record(database, sighting(2, 58))
    assert spans(database) == [("gpt-4o", 0, 60, None)]

    record(database, sighting(0, 90, over=True))
    record(database, sighting(2, 93, over=True))
    assert spans(database) == [("gpt-4o", 0, 93, 93)]


def test_short_ones_that_several_processes_tell_afterwards_are_one(database: Database) -> None:
    record(database, sighting(0, 20, over=True))
    record(database, sighting(3, 24, over=True))
    record(database, sighting(1, 19, over=True))

    assert spans(database) == [("gpt-4o", 0, 24, 24)]


def test_who_has_heard_nothing_for_long_does_not_end_what_another_sees(database: Database) -> None:
    record(database, sighting(0, 10))
    record(database, sighting(0, 900))
    record(database, sighting(0, 10, over=True))

    assert spans(database) == [("gpt-4o", 0, 900, None)]


def test_what_one_ends_and_another_still_sees_begins_again_where_it_ended(
    database: Database,
) -> None:
    record(database, sighting(0, 60))
    record(database, sighting(0, 100, over=True))
    record(database, sighting(5, 95))
    assert spans(database) == [("gpt-4o", 0, 100, 100)]

    record(database, sighting(5, 160))
    assert spans(database) == [("gpt-4o", 0, 100, 100), ("gpt-4o", 100, 160, None)]


def test_many_processes_at_the_same_moment_begin_one_incident(database: Database) -> None:
    with ThreadPoolExecutor(8) as nodes:
        list(nodes.map(lambda node: record(database, sighting(node, 60)), range(16)))

    ((model, began, seen, ended),) = spans(database)
    assert (model, seen, ended) == ("gpt-4o", 60, None)
    assert 0 <= began < 16


def test_keys_models_and_sources_are_told_apart(database: Database) -> None:
    record(
        database,
        sighting(0, 60),
        sighting(1, 60, model=""),
        sighting(2, 60, credential=0),
        sighting(3, 60, source="verification"),
        sighting(4, 60, provider="Other"),
    )

    assert len(listed(database)) == 5


def test_other_sources_end_what_they_began(database: Database) -> None:
    record(
        database,
        sighting(0, 0, source="verification"),
        sighting(0, 0, source="verification", model="mini"),
        sighting(1, 60),
    )
    end(database, "verification", 3600, "gpt-4o")
    end(database, "verification", 3600)

    assert {(one.source, one.model): one.ended for one in listed(database)} == {
        ("verification", "gpt-4o"): NOON + 3600,
        ("verification", "mini"): None,
        ("traffic", "gpt-4o"): None,
    }


def test_what_a_dead_process_left_open_ended_when_it_was_last_seen(database: Database) -> None:
    record(
        database,
        sighting(0, 60),
        sighting(0, 1000, model="mini"),
        sighting(0, 0, source="verification"),
    )

    count = database.run(lambda connection: incidents.end_stale(connection, NOON + 500), write=True)

    assert count == 1
    assert {(one.source, one.model): one.ended for one in listed(database)} == {
        ("traffic", "gpt-4o"): NOON + 60,
        ("traffic", "mini"): None,
        ("verification", "gpt-4o"): None,
    }


@pytest.fixture
def filled(database: Database) -> Database:
    record(
        database,
        sighting(0, 100, over=True),
        sighting(50, 200, model="mini", over=True),
        sighting(60, 300, model=""),
        sighting(70, 300, provider="Other"),
        sighting(80, 300, credential=1),
    )
    return database


@pytest.mark.parametrize(
    ("wanted", "began"),
    [
        ({}, [80, 70, 60, 50, 0]),
        ({"provider": "Capi"}, [80, 60, 50, 0]),
        ({"provider": "Capi", "model": "mini"}, [60, 50]),  # with the whole provider's
        ({"model": "gpt-4o"}, [80, 70, 0]),
        ({"since": NOON + 150}, [80, 70, 60, 50]),
        ({"open_only": True}, [80, 70, 60]),
        ({"limit": 2}, [80, 70]),
        ({"provider": "nobody"}, []),
    ],
)
def test_a_list_has_what_was_asked_for_the_latest_first(
    filled: Database, wanted: dict[str, Any], began: list[int]
) -> None:
    assert [row.began - NOON for row in listed(filled, **wanted)] == began


def test_a_long_list_is_read_in_parts(filled: Database) -> None:
    found = []
    before = None
    while part := listed(filled, limit=2, before=before):
        found += [row.began - NOON for row in part]
        before = part[-1].id

    assert found == [80, 70, 60, 50, 0]


def test_downtime_is_of_models_and_providers_not_of_single_keys(filled: Database) -> None:
    record(filled, sighting(0, 0, source="verification", model="o3"))

    found = filled.run(lambda connection: incidents.downtime(connection, NOON + 150))

    assert sorted(found) == [
        Span("Capi", "", NOON + 60, NOON + 300),  # as long as it was seen
        Span("Capi", "mini", NOON + 50, NOON + 200),
        Span("Capi", "o3", NOON, None),
        Span("Other", "gpt-4o", NOON + 70, NOON + 300),
    ]


def test_what_is_long_over_is_deleted_and_nothing_else(filled: Database) -> None:
    gone = filled.run(lambda connection: incidents.prune(connection, NOON + 150), write=True)

    assert gone == 1
    assert [row.began - NOON for row in listed(filled)] == [80, 70, 60, 50]


def test_nothing_seen_is_no_trouble(database: Database) -> None:
    record(database)

    assert listed(database) == []
