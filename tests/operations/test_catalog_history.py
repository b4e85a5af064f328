"""What has become of models, on both databases."""

import pytest

from manyways.catalog.verified import Check
from manyways.operations.catalog import Scope, refresh
from manyways.operations.catalog_history import (
    changes,
    checks,
    latest_verifications,
    listed_incidents,
    since_when,
)
from manyways.operations.wording import Mistake
from manyways.store.database import Database
from tests.support.verifications import NOON, change, found, incident, save, save_checks


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOON - 5400),
        ("24h", NOON - 86400),
        (" 7d ", NOON - 7 * 86400),
        ("4w", NOON - 28 * 86400),
        ("2027-01-15", NOON - 8 * 3600),
        ("2027-01-15T08:00Z", NOON),
        ("2027-01-15T09:00+01:00", NOON),
        ("2027-01-15T09:00 01:00", NOON),  # what a query makes of a plus
        ("2027-01-15T07:00", NOON - 3600),
    ],
)
def test_since_is_a_span_a_date_or_a_moment(text: str, moment: int) -> None:
    assert since_when(text, NOON + 0.5) == moment


@pytest.mark.parametrize("text", ["", "soon", "7", "0d", "-7d", "999w", "99999d", "1999-01-01"])
def test_what_is_no_time_is_a_mistake(text: str) -> None:
    with pytest.raises(Mistake) as caught:
        since_when(text, NOON)
    assert caught.value.field == "since"


def test_changes_are_told_from_the_newest_on_with_their_values(database: Database) -> None:
    change(database, "a", at=NOON - 2, field="pricing", before={"prompt": 0.1}, after=None)
    change(database, "b", at=NOON - 1, kind="score", field=None, before=5.5, after=7)
    newest, oldest = database.run(lambda one: changes(one, limit=9))

    assert (newest["model"], newest["before"], newest["after"]) == ("b", 5.5, 7)
    assert newest["text"] == "Capi/b: quality 5.5 -> 7"
    assert (oldest["before"], oldest["after"]) == ({"prompt": 0.1}, None)
    behind = database.run(lambda one: changes(one, before=newest["id"], limit=9))
    assert behind == [oldest]
    assert database.run(lambda one: changes(one, since=NOON - 1, limit=9)) == [newest]


def test_a_change_that_a_later_version_has_noted_is_told_as_it_is(database: Database) -> None:
    change(database, "a", kind="sold", field="owner", after="Space")
    (told,) = database.run(lambda one: changes(one, limit=9))

    assert (told["text"], told["after"]) == ("Capi/a: sold", "Space")


def test_incidents_are_told_from_the_newest_on(database: Database) -> None:
    incident(database, "a", began=NOON - 9, ended=NOON - 8, credential=0)
    incident(database, "", began=NOON - 7)
    newest, oldest = database.run(lambda one: listed_incidents(one, limit=9))

    assert (newest["model"], newest["key"], newest["ended_at"]) == (None, None, None)
    assert (oldest["model"], oldest["key"], oldest["seen_at"]) == ("a", 1, oldest["ended_at"])
    still = database.run(lambda one: listed_incidents(one, open_only=True, limit=9))
    assert still == [newest]


def test_checks_are_those_of_the_newest_verification_in_their_order(database: Database) -> None:
    for at, names in ((NOON, ("old",)), (NOON + 9, ("second", "first"))):
        run = refresh(database, Scope(model=str(at)), now=at)
        model = found("a", at=at)
        save(database, run.id, model)
        made = [
            Check(name=name, verdict="passed", at=at - order) for order, name in enumerate(names)
        ]
        save_checks(database, run.id, model, *made)

    told = database.run(lambda one: checks(one, "Capi", "a"))
    assert [one["name"] for one in told] == ["first", "second"]
    (row,) = database.run(lambda one: latest_verifications(one, provider="Capi", model="a"))
    assert row["checks"] == told
    (row,) = database.run(lambda one: latest_verifications(one, model="a"))
    assert "checks" not in row
