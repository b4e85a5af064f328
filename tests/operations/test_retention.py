"""What is too old leaves the database, and nothing that is to be kept is lost or doubled."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from manyways.access.keys import Settings as Keys
from manyways.errors import ConfigError, StoreError
from manyways.operations.accounts import create_account, set_account_limits
from manyways.operations.keys import create_key, set_key_limits
from manyways.operations.retention import Removed, run
from manyways.store.archive import BATCH, Archive
from manyways.store.condensed import condensed_days, condensed_months, month_of
from manyways.store.database import Database
from manyways.store.records import moment_of
from manyways.store.reports import DAY
from manyways.store.tables import (
    usage_attempts,
    usage_daily,
    usage_hourly,
    usage_refusals,
    usage_stats,
)
from manyways.types import Allowance, Quota
from manyways.usage.record import UsageRecord
from manyways.usage.settings import Settings
from tests.support.usage import NOON, fill, refusal, request, some

pq = pytest.importorskip("pyarrow.parquet")

MIDNIGHT = int(NOON) // DAY * DAY


def removed(database: Database, settings: Settings, **how: Any) -> Removed:
    return run(database, settings, NOON, **{"pause": lambda _: None, **how})


def count(database: Database, table: Table) -> int:
    query = select(func.count()).select_from(table)
    return database.run(lambda connection: connection.execute(query).scalar_one())


def ids(database: Database) -> set[str]:
    return set(database.run(lambda connection: connection.scalars(select(usage_stats.c.id)).all()))


def archived(folder: Path, table: str = "usage_stats") -> Counter[str]:
    """The ids of the rows in all files, and how often each is there."""
    column = "request_id" if table == "usage_attempts" else "id"
    found: Counter[str] = Counter()
    for file in folder.glob(f"{table}-*.parquet"):
        found.update(pq.read_table(file, columns=[column]).column(column).to_pylist())
    return found


def parts(made: list[UsageRecord], oldest: float) -> tuple[set[str], set[str]]:
    old = {one.id for one in made if one.created_at < oldest}
    return old, {one.id for one in made} - old


class TestForgetting:
    """Without an archive, records are deleted."""

    def test_what_is_older_goes_and_the_rest_stays(self, database: Database) -> None:
        made = some(300)
        fill(database, made, [refusal(NOON - 2 * DAY), refusal(NOON)])
        days = count(database, usage_daily)
        old, young = parts(made, NOON - DAY)
        told = removed(database, Settings(retention=DAY))

        assert told == Removed(requests=len(old), refusals=1)
        assert ids(database) == young
        assert count(database, usage_attempts) == len(young)
        assert count(database, usage_refusals) == 1
        assert count(database, usage_daily) == days, "sums stay"

    def test_nothing_goes_where_nothing_is_said(self, database: Database) -> None:
        fill(database, [request(NOON - 80 * DAY)])

        assert removed(database, Settings()) == Removed()
        assert len(ids(database)) == 1

    @pytest.mark.parametrize("whose", ["key", "account"])
    def test_what_a_window_of_ones_own_counts_stays(self, database: Database, whose: str) -> None:
        month = Allowance(requests=5, window=30 * DAY)
        account = create_account(
            database, name="Ada", limits=month if whose == "account" else None, now=NOON
        )
        key = create_key(
            database, Keys(), "full", limits=month if whose == "key" else None, now=NOON
        )
        fill(database, [request(NOON - age * DAY) for age in (0, 2, 29.9, 30.02, 30.1, 40)])

        assert removed(database, Settings(retention=DAY)).requests == 2
        left = sorted((NOON - moment_of(one)) / DAY for one in ids(database))
        assert left == pytest.approx([0, 2, 29.9, 30.02])

        shorter = Allowance(tokens=5, tokens_window=60, quota=(Quota(tokens=9),))
        set_account_limits(database, account.id, shorter, now=NOON)
        set_key_limits(database, key.id, shorter, now=NOON)
        assert removed(database, Settings(retention=DAY)).requests == 3

    def test_hours_go_after_ninety_days_and_days_stay(self, database: Database) -> None:
        fill(database, [request(NOON - age * DAY) for age in (1, 89, 91, 300)])

        assert removed(database, Settings()) == Removed(hours=2)
        assert count(database, usage_hourly) == 2
        assert count(database, usage_daily) == 4

    def test_between_portions_others_have_their_turn(self, database: Database) -> None:
        fill(database, [request(NOON - 2 * DAY + second / 1000) for second in range(BATCH + 500)])
        left = []
        told = removed(
            database, Settings(retention=DAY), pause=lambda _: left.append(len(ids(database)))
        )

        assert told.requests == BATCH + 500
        assert left[0] == 500
        assert ids(database) == set()

    def test_it_can_be_stopped_and_goes_on_the_next_time(self, database: Database) -> None:
        fill(database, some(50))
        told = removed(database, Settings(retention=DAY), going_on=lambda: False)

        assert told == Removed()
        assert removed(database, Settings(retention=DAY)).requests > 0


class TestCondensing:
    """Days that are over are added up for long reports."""

    def test_days_that_are_over_are_condensed_and_again_behind_what_came_late(
        self, database: Database
    ) -> None:
        def days() -> list[int]:
            start, end = MIDNIGHT - 9 * DAY, MIDNIGHT + DAY
            return database.run(lambda one: condensed_days(one, start, end))

        fill(database, [request(NOON - age * DAY) for age in range(3)])
        removed(database, Settings())
        assert days() == [MIDNIGHT - 2 * DAY, MIDNIGHT - DAY]

        fill(database, [request(NOON - DAY)])
        assert days() == [MIDNIGHT - 2 * DAY]

        removed(database, Settings())
        assert days() == [MIDNIGHT - 2 * DAY, MIDNIGHT - DAY]

    def test_so_are_months(self, database: Database) -> None:
        def months() -> list[int]:
            return database.run(lambda one: condensed_months(one, 0, MIDNIGHT))

        october = month_of(int(NOON) - 30 * DAY)
        fill(database, [request(NOON - 30 * DAY), request(NOON - DAY)])
        removed(database, Settings())
        assert months() == [october], "November is not over"

        fill(database, [request(NOON - 31 * DAY)])
        assert months() == []

        removed(database, Settings())
        assert months() == [october]


class TestArchiving:
    """With an archive, a record is in a file before it leaves the database."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(retention=DAY, archive=str(tmp_path / "old" / "usage"))

    def test_whole_days_are_moved_each_to_its_file(
        self, database: Database, settings: Settings
    ) -> None:
        made = some(300)
        fill(database, made, [refusal(NOON - 2 * DAY)])
        old, young = parts(made, MIDNIGHT - DAY)
        told = removed(database, settings)
        folder = Path(settings.archive)

        assert told == Removed(requests=len(old), archived=len(old))
        assert ids(database) == young
        assert archived(folder) == Counter(old)
        assert set(archived(folder, "usage_attempts")) == old
        assert sum(archived(folder, "usage_refusals").values()) == 1
        assert sorted(file.name for file in folder.glob("usage_stats-*")) == [
            "usage_stats-2025-11-22.parquet",
            "usage_stats-2025-11-23.parquet",
        ]
        assert not list(folder.glob(".usage*")), "nothing temporary is left"
        assert all(file.stat().st_mode & 0o077 == 0 for file in folder.glob("*.parquet"))

    def test_a_file_has_every_column_as_it_was(
        self, database: Database, settings: Settings
    ) -> None:
        one = request(NOON - 3 * DAY, first_token_ms=None, error_message="Ünglück")
        fill(database, [one])
        removed(database, settings)
        (row,) = pq.read_table(
            Path(settings.archive) / "usage_stats-2025-11-22.parquet"
        ).to_pylist()

        assert list(row) == [column.name for column in usage_stats.c]
        assert row["created_at"] == datetime.fromtimestamp(NOON - 3 * DAY, UTC)
        assert row["total_tokens"] == 120
        assert row["cost"] == 0.001
        assert row["first_token_ms"] is None
        assert row["error_message"] == "Ünglück"

    def test_a_second_time_changes_nothing(self, database: Database, settings: Settings) -> None:
        fill(database, some(100))
        removed(database, settings)
        first = archived(Path(settings.archive))

        assert removed(database, settings) == Removed()
        assert archived(Path(settings.archive)) == first

    def test_what_comes_late_is_added_to_its_day(
        self, database: Database, settings: Settings
    ) -> None:
        early, late = request(NOON - 3 * DAY), request(NOON - 3 * DAY + 60)
        fill(database, [early])
        removed(database, settings)
        fill(database, [late])
        told = removed(database, settings)

        assert told.archived == 1
        assert archived(Path(settings.archive)) == Counter([early.id, late.id])
        assert archived(Path(settings.archive), "usage_attempts") == Counter([early.id, late.id])
        assert ids(database) == set()

    @pytest.mark.parametrize("step", range(1, 7))
    def test_whoever_dies_on_the_way_loses_and_doubles_nothing(
        self, database: Database, settings: Settings, step: int
    ) -> None:
        made = some(120)
        fill(database, made)
        old, young = parts(made, MIDNIGHT - DAY)
        with pytest.raises(_Died):
            removed(database, settings, pause=dies_after(step))
        kept = set(archived(Path(settings.archive)))
        assert old <= kept | ids(database), "nobody is lost even now"

        removed(database, settings)
        assert archived(Path(settings.archive)) == Counter(old)
        assert ids(database) == young
        assert count(database, usage_attempts) == len(young)
        assert set(archived(Path(settings.archive), "usage_attempts").values()) == {1}

    def test_rows_that_come_while_a_day_is_moved_stay_for_the_next_time(
        self, database: Database, settings: Settings
    ) -> None:
        fill(database, [request(NOON - 3 * DAY)])
        late = request(NOON - 3 * DAY + 1)
        pauses = 0

        def pause(_: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 2:  # the files are written, nothing is deleted yet
                fill(database, [late])

        removed(database, settings, pause=pause)
        assert ids(database) == {late.id}
        removed(database, settings)
        assert ids(database) == set()
        assert archived(Path(settings.archive))[late.id] == 1
        assert archived(Path(settings.archive), "usage_attempts")[late.id] == 1

    def test_what_a_killed_one_left_half_written_is_cleared_away(
        self, database: Database, settings: Settings
    ) -> None:
        fill(database, some(50))
        folder = Path(settings.archive)
        folder.mkdir(parents=True)
        (folder / ".usage_stats-2025-11-22.parquet").write_bytes(b"PAR1")
        removed(database, settings)

        assert [file.name for file in folder.glob(".*")] == [".lock"]

    def test_two_do_not_write_to_it_at_once(self, database: Database, settings: Settings) -> None:
        fill(database, some(50))
        with Archive(Path(settings.archive)).alone() as alone:
            assert alone
            assert removed(database, settings) == Removed()
        assert removed(database, settings).archived > 0

    def test_without_pyarrow_nothing_is_deleted_and_the_cure_is_told(
        self, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        made = some(50)
        fill(database, made)

        with pytest.raises(ConfigError, match=r"pip install 'manyways\[archive\]'"):
            removed(database, settings)
        assert len(ids(database)) == 50

    def test_a_folder_that_cannot_be_used_is_told_and_nothing_is_deleted(
        self, database: Database, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        fill(database, some(50))

        with pytest.raises(StoreError, match="cannot be written"):
            removed(database, Settings(retention=DAY, archive=str(tmp_path / "file" / "old")))
        assert len(ids(database)) == 50

    def test_a_file_that_is_damaged_is_told_and_nothing_is_deleted(
        self, database: Database, settings: Settings
    ) -> None:
        fill(database, [request(NOON - 3 * DAY)])
        folder = Path(settings.archive)
        folder.mkdir(parents=True)
        (folder / "usage_stats-2025-11-22.parquet").write_bytes(os.urandom(100))

        with pytest.raises(StoreError, match="Move it away"):
            removed(database, settings)
        assert len(ids(database)) == 1


class _Died(Exception):
    pass


def dies_after(steps: int) -> Callable[[float], None]:
    """A pause that is the end, the so-many-th time."""
    left = steps

    def pause(_: float) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise _Died

    return pause
