"""Rows of live figures: what each process has counted."""

from collections.abc import Sequence

from manyways.store import figures
from manyways.store.database import Database
from manyways.store.figures import Row

NOON = 1_800_000_000


def put(database: Database, node: str, *rows: tuple[str, str, int, str]) -> None:
    database.run(lambda connection: figures.put(connection, node, rows), write=True)


def told(database: Database, after: int) -> list[Row]:
    found: Sequence[Row] = database.run(lambda connection: figures.told(connection, after))
    return sorted(found)


def test_what_a_process_told_is_read_by_all(database: Database) -> None:
    put(database, "a", ("Capi", "gpt-4o", NOON, '{"1": "ё"}'), ("Capi", "o3", NOON, "{}"))
    put(database, "b", ("Capi", "gpt-4o", NOON, "{}"))

    assert told(database, NOON - 1) == [
        ("a", "Capi", "gpt-4o", NOON, '{"1": "ё"}'),
        ("a", "Capi", "o3", NOON, "{}"),
        ("b", "Capi", "gpt-4o", NOON, "{}"),
    ]


def test_a_process_replaces_what_it_told_before(database: Database) -> None:
    put(database, "a", ("Capi", "gpt-4o", NOON, "{}"))
    put(database, "a", ("Capi", "gpt-4o", NOON + 300, '{"1": 2}'))

    assert told(database, 0) == [("a", "Capi", "gpt-4o", NOON + 300, '{"1": 2}')]


def test_what_is_known_already_is_not_read_again(database: Database) -> None:
    put(database, "a", ("Capi", "gpt-4o", NOON, "{}"), ("Capi", "o3", NOON + 300, "{}"))

    assert [row.model for row in told(database, NOON)] == ["o3"]
    assert told(database, NOON + 300) == []


def test_many_models_are_told_of_at_once(database: Database) -> None:
    put(database, "a", *(("Capi", f"m{number}", NOON, "{}") for number in range(1000)))

    assert len(told(database, 0)) == 1000


def test_nothing_to_tell_is_no_trouble(database: Database) -> None:
    put(database, "a")

    assert told(database, 0) == []


def test_what_is_over_is_deleted(database: Database) -> None:
    put(database, "a", ("Capi", "gpt-4o", NOON, "{}"), ("Capi", "o3", NOON + 300, "{}"))

    gone = database.run(lambda connection: figures.prune(connection, NOON + 300), write=True)

    assert gone == 1
    assert [row.model for row in told(database, 0)] == ["o3"]
