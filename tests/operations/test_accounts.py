from concurrent.futures import ThreadPoolExecutor

import pytest

from manyways import operations
from manyways.operations import AccountRow, Mistake
from manyways.store.changes import counted
from manyways.store.database import Database
from manyways.types import Allowance, Quota

NOW = 1_800_000_000.75
OWN = Allowance(quota=(Quota(tokens=1_000_000, per="month"),))


@pytest.fixture
def ada(database: Database) -> AccountRow:
    return operations.create_account(database, name="Ada Ltd", note="a customer", now=NOW)


class TestCreating:
    def test_it_is_kept_as_it_was_made(self, database: Database) -> None:
        made = operations.create_account(
            database, name=" Ada Ltd\n", note="a\ncustomer", limits=OWN, now=NOW
        )
        assert made == AccountRow(
            id=made.id, name="Ada Ltd", note="a customer", limits=OWN, created_at=int(NOW)
        )
        assert operations.get_account(database, made.id) == made

    def test_names_are_nobody_elses(self, database: Database, ada: AccountRow) -> None:
        for name in ("Ada Ltd", " Ada Ltd "):
            with pytest.raises(Mistake, match="'Ada Ltd' already") as wrong:
                operations.create_account(database, name=name, now=NOW)
            assert wrong.value.field == "name"
        operations.create_account(database, name="ada ltd", now=NOW)

    def test_letters_written_in_two_ways_are_one_name(self, database: Database) -> None:
        made = operations.create_account(database, name="Zoe\u0308", now=NOW)
        assert operations.get_account(database, "Zo\u00eb") == made
        with pytest.raises(Mistake):
            operations.create_account(database, name="Zo\u00eb", now=NOW)

    def test_of_many_at_once_one_gets_the_name(self, database: Database) -> None:
        def create(_: int) -> bool:
            try:
                operations.create_account(database, name="Ada", now=NOW)
            except Mistake:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(create, range(4))) == 1

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " \n",
            "x" * 201,
            "a\0b",
            "a\x1b[31m",
            "\ud800",
            "01900000-0000-7000-8000-000000000000",
            "a/b",
            "/",
            ".",
            "..",
        ],
    )
    def test_some_names_cannot_be(self, database: Database, name: str) -> None:
        with pytest.raises(Mistake) as wrong:
            operations.create_account(database, name=name, now=NOW)
        assert wrong.value.field == "name"
        assert operations.list_accounts(database) == ()

    def test_an_account_that_has_a_slash_from_before_is_found(
        self, database: Database, ada: AccountRow
    ) -> None:
        rename = "UPDATE accounts SET name = 'R/D' WHERE name = 'Ada Ltd'"
        database.run(lambda connection: connection.exec_driver_sql(rename))
        found = operations.get_account(database, "R/D")
        assert found is not None
        assert found.id == ada.id

    def test_the_longest_name_can(self, database: Database) -> None:
        made = operations.create_account(database, name="ж" * 200, now=NOW)
        assert operations.get_account(database, made.name) == made

    def test_limits_are_checked(self, database: Database) -> None:
        with pytest.raises(Mistake) as wrong:
            operations.create_account(database, name="Ada", limits=Allowance(tokens=5), now=NOW)
        assert wrong.value.field == "limits.tokens_window"


class TestFinding:
    @pytest.mark.parametrize("wanted", ["", "Ada", "ADA LTD", "%", "\0", "\ud800", "x" * 500])
    def test_whoever_is_not_there_is_not_found(
        self, database: Database, ada: AccountRow, wanted: str
    ) -> None:
        assert operations.get_account(database, wanted) is None

    def test_page_by_page_nothing_is_missed_and_nothing_told_twice(
        self, database: Database
    ) -> None:
        made = [
            operations.create_account(database, name=f"number {at}", now=NOW + at)
            for at in range(5)
        ]
        assert operations.list_accounts(database) == tuple(made)
        told: list[AccountRow] = []
        while page := operations.list_accounts(
            database, after=told[-1].id if told else None, limit=2
        ):
            assert len(page) <= 2
            told += page
        assert told == made


class TestSuspending:
    def test_it_says_when_and_why_until_it_is_resumed(
        self, database: Database, ada: AccountRow
    ) -> None:
        suspended = operations.suspend_account(database, ada.id, reason="in\ndebt", now=NOW + 9)
        assert suspended is not None
        assert not suspended.active
        assert (suspended.suspended_at, suspended.suspended_reason) == (int(NOW + 9), "in debt")
        assert operations.get_account(database, ada.id) == suspended
        assert operations.resume_account(database, ada.id, now=NOW + 10) == ada
        assert operations.get_account(database, ada.id) == ada

    def test_the_first_suspension_stands(self, database: Database, ada: AccountRow) -> None:
        first = operations.suspend_account(database, ada.id, reason="first", now=NOW)
        assert operations.suspend_account(database, ada.id, reason="second", now=NOW + 9) == first

    def test_what_changes_nothing_is_no_change(self, database: Database, ada: AccountRow) -> None:
        operations.suspend_account(database, ada.id, now=NOW)
        before = database.run(counted)
        operations.suspend_account(database, ada.id, now=NOW)
        for nobody in ("", "nobody", "\0"):
            assert operations.suspend_account(database, nobody, now=NOW) is None
            assert operations.resume_account(database, nobody, now=NOW) is None
            assert operations.set_account_limits(database, nobody, None, now=NOW) is None
        assert database.run(counted) == before
        operations.resume_account(database, ada.id, now=NOW)
        operations.resume_account(database, ada.id, now=NOW)
        assert database.run(counted) == before + 1


class TestLimits:
    def test_they_can_be_set_and_taken_back(self, database: Database, ada: AccountRow) -> None:
        for limits in (OWN, Allowance(), None):
            changed = operations.set_account_limits(database, ada.id, limits, now=NOW)
            assert changed is not None
            assert changed.limits == limits
            assert operations.get_account(database, ada.id) == changed
