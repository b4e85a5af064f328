"""Keys of accounts, with limits and lifetimes of their own, and keys that replace each other."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from manyways import operations
from manyways.access.keys import KeyType, Settings
from manyways.operations import CreatedKey, Mistake
from manyways.store.database import Database
from manyways.types import Allowance, Quota

SETTINGS = Settings()
NOW = 1_800_000_000.75
OWN = Allowance(
    requests=5,
    window=60.0,
    tokens=9,
    tokens_window=3600.0,
    concurrent=2,
    quota=(Quota(cost=1.5, per="month"), Quota(tokens=7, requests=3)),
)


@pytest.fixture
def key(database: Database) -> CreatedKey:
    return operations.create_key(database, SETTINGS, "full", note="Ada", limits=OWN, now=NOW)


class TestCreating:
    def test_a_key_belongs_to_an_account_found_by_name_or_id(self, database: Database) -> None:
        ada = operations.create_account(database, name="Ada Ltd", now=NOW)
        for wanted in ("Ada Ltd", " Ada Ltd ", ada.id):
            made = operations.create_key(database, SETTINGS, "full", account=wanted, now=NOW)
            assert (made.account_id, made.account) == (ada.id, "Ada Ltd")
            kept = operations.get_key(database, made.id)
            assert kept is not None
            assert (kept.account_id, kept.account) == (ada.id, "Ada Ltd")

    def test_not_to_one_that_does_not_exist(self, database: Database) -> None:
        with pytest.raises(Mistake, match="no account 'Ada'") as wrong:
            operations.create_key(database, SETTINGS, "full", account="Ada", now=NOW)
        assert wrong.value.field == "account"
        assert operations.list_keys(database) == ()

    def test_its_limits_come_back_as_they_were_given(
        self, database: Database, key: CreatedKey
    ) -> None:
        kept = operations.get_key(database, key.id)
        assert kept is not None
        assert kept.limits == key.limits == OWN

    @pytest.mark.parametrize(
        ("lifetime", "end"), [(60.0, int(NOW + 60)), (math.inf, None), (None, int(NOW) + 2592000)]
    )
    def test_a_lifetime_of_its_own_takes_the_place_of_its_types(
        self, database: Database, lifetime: float | None, end: int | None
    ) -> None:
        made = operations.create_key(database, SETTINGS, "full", lifetime=lifetime, now=NOW)
        assert made.expires_at == end

    @pytest.mark.parametrize("lifetime", [0.0, -1.0, 1e15, math.nan])
    def test_a_lifetime_that_cannot_be_is_a_mistake(
        self, database: Database, lifetime: float
    ) -> None:
        with pytest.raises(Mistake) as wrong:
            operations.create_key(database, SETTINGS, "full", lifetime=lifetime, now=NOW)
        assert wrong.value.field == "lifetime"

    def test_a_note_has_an_end(self, database: Database) -> None:
        with pytest.raises(Mistake, match="longer than 1000") as wrong:
            operations.create_key(database, SETTINGS, "full", note="x" * 1001, now=NOW)
        assert wrong.value.field == "note"


class TestListing:
    def test_page_by_page_nothing_is_missed_and_nothing_told_twice(
        self, database: Database
    ) -> None:
        made = [
            operations.create_key(database, SETTINGS, "full", now=NOW + second).id
            for second in range(5)
        ]
        told: list[str] = []
        while page := operations.list_keys(database, after=told[-1] if told else None, limit=2):
            assert len(page) <= 2
            told += [key.id for key in page]
        assert told == made

    def test_an_accounts_keys_alone(self, database: Database, key: CreatedKey) -> None:
        operations.create_account(database, name="Ada", now=NOW)
        empty = operations.create_account(database, name="Bob", now=NOW)
        hers = [
            operations.create_key(database, SETTINGS, kind, account="Ada", now=NOW + second)
            for second, kind in enumerate(("test", "full"))
        ]
        listed = operations.list_keys(database, account="Ada")
        assert [one.id for one in listed] == [one.id for one in hers]
        assert operations.list_keys(database, account=empty.id) == ()
        later = NOW + 3600
        assert operations.count_keys(database) == 3
        assert operations.count_keys(database, account="Ada") == 2
        assert operations.count_keys(database, account="Ada", alive_at=later) == 1
        with pytest.raises(Mistake, match="no account 'Eve'"):
            operations.list_keys(database, account="Eve")

    @pytest.mark.parametrize("unknown", ["", "nobody", "ключ", "\0"])
    def test_what_is_no_keys_id_gets_none(
        self, database: Database, key: CreatedKey, unknown: str
    ) -> None:
        assert operations.get_key(database, unknown) is None
        assert operations.rotate_key(database, SETTINGS, unknown, now=NOW) is None
        assert operations.set_key_limits(database, unknown, None, now=NOW) is None


class TestLimits:
    def test_they_can_be_set_and_taken_back(self, database: Database, key: CreatedKey) -> None:
        for limits in (Allowance(concurrent=3), Allowance(), None, OWN):
            changed = operations.set_key_limits(database, key.id, limits, now=NOW)
            assert changed is not None
            assert changed.limits == limits
            assert operations.get_key(database, key.id) == changed

    def test_they_are_those_of_all_keys_that_replaced_each_other_and_still_work(
        self, database: Database, key: CreatedKey
    ) -> None:
        line = [key]
        for number in range(3):
            moment = NOW + number * 1000
            after = operations.rotate_key(database, SETTINGS, line[-1].id, overlap=1500, now=moment)
            assert after is not None
            line.append(after)
        operations.revoke_key(database, line[2].id, now=NOW + 2000)
        limits, before = Allowance(concurrent=7), key.limits

        changed = operations.set_key_limits(database, line[1].id, limits, now=NOW + 2001)

        assert changed is not None
        assert changed.id == line[1].id
        found = [operations.get_key(database, one.id) for one in line]
        kept = [one.limits for one in found if one is not None]
        assert kept == [before, limits, before, limits]

    def test_a_mistake_changes_nothing(self, database: Database, key: CreatedKey) -> None:
        with pytest.raises(Mistake):
            operations.set_key_limits(database, key.id, Allowance(requests=1), now=NOW)
        kept = operations.get_key(database, key.id)
        assert kept is not None
        assert kept.limits == OWN


class TestRotation:
    def test_the_new_key_has_all_of_the_old_ones_and_a_life_of_its_own(
        self, database: Database
    ) -> None:
        operations.create_account(database, name="Ada", now=NOW)
        old = operations.create_key(
            database, SETTINGS, "full", note="bot", account="Ada", limits=OWN, now=NOW
        )
        later = NOW + 20 * 86400
        new = operations.rotate_key(database, SETTINGS, old.id, overlap=3600.0, now=later)
        assert new is not None
        assert new.key != old.key
        assert (new.type, new.note, new.account, new.limits) == ("full", "bot", "Ada", OWN)
        assert new.expires_at == int(later + 30 * 86400)
        assert (new.replaces, new.replaced_until) == (old.id, int(later + 3600))

    def test_the_old_one_works_for_the_overlap_and_both_are_one_line(
        self, database: Database, key: CreatedKey
    ) -> None:
        second = operations.rotate_key(database, SETTINGS, key.id, overlap=60.0, now=NOW)
        assert second is not None
        third = operations.rotate_key(database, SETTINGS, second.id, overlap=30.0, now=NOW)
        assert third is not None
        rows = [operations.get_key(database, one.id) for one in (key, second, third)]
        assert [row and row.line for row in rows] == [key.id] * 3
        assert [row and row.replaced_by for row in rows] == [second.id, third.id, None]
        assert [row and row.expires_at for row in rows[:2]] == [int(NOW + 60), int(NOW + 30)]

    def test_no_overlap_ends_the_old_one_at_once(self, database: Database, key: CreatedKey) -> None:
        operations.rotate_key(database, SETTINGS, key.id, overlap=0.0, now=NOW)
        old = operations.get_key(database, key.id)
        assert old is not None
        assert old.standing(NOW) == "expired"

    def test_an_overlap_lets_nothing_live_longer(self, database: Database) -> None:
        old = operations.create_key(database, SETTINGS, "test", now=NOW)
        new = operations.rotate_key(database, SETTINGS, old.id, overlap=1e6, now=NOW + 60)
        assert new is not None
        assert new.replaced_until == old.expires_at

    def test_a_key_is_replaced_once(self, database: Database, key: CreatedKey) -> None:
        new = operations.rotate_key(database, SETTINGS, key.id, now=NOW)
        assert new is not None
        with pytest.raises(Mistake, match=f"replaced before, by {new.id}"):
            operations.rotate_key(database, SETTINGS, key.id, now=NOW)

    def test_at_once_and_from_several_sides_it_is_replaced_once(
        self, database: Database, key: CreatedKey
    ) -> None:
        shown: list[CreatedKey] = []

        def rotate(_: int) -> bool:
            try:
                operations.rotate_key(database, SETTINGS, key.id, now=NOW, show=shown.append)
            except Mistake:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            done = list(threads.map(rotate, range(4)))
        assert sorted(done) == [False, False, False, True]
        assert len(shown) == 1, "what is shown is kept"
        assert len(operations.list_keys(database)) == 2

    def test_one_that_has_ended_is_not_replaced(self, database: Database, key: CreatedKey) -> None:
        assert key.expires_at is not None
        with pytest.raises(Mistake, match="has expired"):
            operations.rotate_key(database, SETTINGS, key.id, now=key.expires_at)
        operations.revoke_key(database, key.id, now=NOW)
        with pytest.raises(Mistake, match="has been revoked"):
            operations.rotate_key(database, SETTINGS, key.id, now=NOW)

    @pytest.mark.parametrize("overlap", [-1.0, math.nan, math.inf])
    def test_an_overlap_that_cannot_be_is_a_mistake(
        self, database: Database, key: CreatedKey, overlap: float
    ) -> None:
        with pytest.raises(Mistake) as wrong:
            operations.rotate_key(database, SETTINGS, key.id, overlap=overlap, now=NOW)
        assert wrong.value.field == "overlap"

    def test_where_its_type_is_gone_there_is_no_new_one(
        self, database: Database, key: CreatedKey
    ) -> None:
        other = Settings(types={"gold": KeyType()})
        with pytest.raises(Mistake, match="no key type 'full'"):
            operations.rotate_key(database, other, key.id, now=NOW)

    def test_where_the_new_one_could_not_be_shown_the_old_one_stays_as_it_was(
        self, database: Database, key: CreatedKey
    ) -> None:
        def fail(_made: CreatedKey) -> None:
            raise OSError("no paper")

        before = operations.list_keys(database)
        with pytest.raises(OSError, match="no paper"):
            operations.rotate_key(database, SETTINGS, key.id, now=NOW, show=fail)
        assert operations.list_keys(database) == before


class TestStanding:
    def test_a_key_of_a_suspended_account_is_suspended(self, database: Database) -> None:
        ada = operations.create_account(database, name="Ada", now=NOW)
        made = operations.create_key(database, SETTINGS, "test", account="Ada", now=NOW)

        def standing(moment: float) -> str:
            row = operations.get_key(database, made.id)
            assert row is not None
            return row.standing(moment)

        operations.suspend_account(database, ada.id, now=NOW)
        assert standing(NOW) == "suspended"
        assert standing(NOW + 3600) == "expired"
        operations.resume_account(database, ada.id, now=NOW)
        assert standing(NOW) == "active"
