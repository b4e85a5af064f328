"""What providers told is remembered, and every change to it."""

from concurrent.futures import ThreadPoolExecutor

from manyways.store import catalog
from manyways.store.catalog import Entry, Noted, Remembered
from manyways.store.database import Database

NOON = 1_800_000_000


def row(
    name: str,
    *,
    provider: str = "Groq",
    seen: int = NOON,
    gone: int | None = None,
    text: str = "{}",
) -> Remembered:
    return Remembered(provider=provider, id=name, first_seen=seen, gone_since=gone, document=text)


def remember(database: Database, *rows: Remembered) -> None:
    database.run(lambda connection: catalog.remember(connection, rows), write=True)


def forget(database: Database, *keys: tuple[str, str]) -> None:
    database.run(lambda connection: catalog.forget(connection, keys), write=True)


def remembered(database: Database) -> list[Remembered]:
    return database.run(catalog.remembered)


def note(database: Database, *changes: Noted, at: float = NOON) -> None:
    database.run(lambda connection: catalog.note(connection, changes, at), write=True)


def noted(
    database: Database,
    *,
    provider: str | None = None,
    model: str | None = None,
    since: float | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Entry]:
    return database.run(
        lambda connection: catalog.changes(
            connection, provider=provider, model=model, since=since, before=before, limit=limit
        )
    )


def test_models_come_back_as_they_were_told(database: Database) -> None:
    told = row("a/ä-ö:8b", text='{"id": "a/ä-ö:8b", "price": 1e-7, "text": "\\u0000"}', gone=NOON)
    remember(database, told, row("b", provider="Capi"))

    assert remembered(database) == [row("b", provider="Capi"), told]


def test_what_is_told_anew_takes_the_place_of_what_was(database: Database) -> None:
    remember(database, row("a", gone=NOON + 5), row("b"))
    remember(database, row("a", seen=NOON + 9, text="[]"))

    assert remembered(database) == [row("a", text="[]"), row("b")]


def test_a_model_was_first_seen_when_anybody_saw_it_first(database: Database) -> None:
    remember(database, row("a"))
    remember(database, row("a", seen=NOON - 9))

    assert remembered(database) == [row("a", seen=NOON - 9)]


def test_of_several_rows_of_one_model_the_last_counts(database: Database) -> None:
    remember(database, row("a", text="1"), row("a", text="2"))

    assert [one.document for one in remembered(database)] == ["2"]


def test_thousands_are_remembered_and_forgotten_at_once(database: Database) -> None:
    rows = [row(f"model-{number:04}") for number in range(3000)]
    remember(database, *rows)
    forget(database, *((one.provider, one.id) for one in rows[10:]), ("Groq", "never there"))

    assert remembered(database) == rows[:10]
    forget(database)
    remember(database)
    assert remembered(database) == rows[:10]


def test_the_same_model_elsewhere_is_another_one(database: Database) -> None:
    remember(database, row("a"), row("a", provider="Capi"))
    forget(database, ("Capi", "a"))

    assert remembered(database) == [row("a")]


def test_many_may_remember_the_same_at_once(database: Database) -> None:
    rows = [row(f"{number}") for number in range(50)]
    with ThreadPoolExecutor(4) as nodes:
        for future in [
            nodes.submit(remember, database, *(rows if turn % 2 else rows[::-1]))
            for turn in range(8)
        ]:
            future.result()

    assert len(remembered(database)) == 50


def test_changes_are_told_newest_first(database: Database) -> None:
    note(database, Noted("Groq", "a", "added"), Noted("Groq", "b", "added"))
    note(
        database,
        Noted("Groq", "a", "changed", "context_window", "8192", "131072"),
        at=NOON + 60.9,
    )

    newest, *others = noted(database)
    assert newest[1:] == (
        NOON + 60,
        "Groq",
        "a",
        "changed",
        "context_window",
        "8192",
        "131072",
    )
    assert [one[1:] for one in others] == [
        (NOON, "Groq", "b", "added", None, None, None),
        (NOON, "Groq", "a", "added", None, None, None),
    ]


def test_changes_are_told_of_whom_and_since_when_one_asks(database: Database) -> None:
    for number, (provider, model) in enumerate(
        [("Groq", "a"), ("Groq", "b"), ("Capi", "a"), ("Groq", "a")]
    ):
        note(database, Noted(provider, model, "added"), at=NOON + number)

    def moments(entries: list[Entry]) -> list[int]:
        return [one.at - NOON for one in entries]

    assert moments(noted(database)) == [3, 2, 1, 0]
    assert moments(noted(database, provider="Groq")) == [3, 1, 0]
    assert moments(noted(database, model="a")) == [3, 2, 0]
    assert moments(noted(database, provider="Groq", model="a")) == [3, 0]
    assert moments(noted(database, since=NOON + 2)) == [3, 2]
    assert noted(database, provider="Nobody") == []


def test_pages_follow_each_other_without_gap_or_repetition(database: Database) -> None:
    note(database, *(Noted("Groq", str(number), "added") for number in range(25)))

    found: list[str] = []
    cursor: str | None = None
    while page := noted(database, before=cursor, limit=10):
        assert len(page) <= 10
        found += [one.model for one in page]
        cursor = page[-1].id
    assert found == [str(number) for number in reversed(range(25))]


def test_old_changes_are_pruned(database: Database) -> None:
    for number in range(4):
        note(database, Noted("Groq", str(number), "added"), at=NOON + number)

    assert database.run(lambda connection: catalog.prune(connection, NOON + 2), write=True) == 2
    assert [one.model for one in noted(database)] == ["3", "2"]
