"""Key types and quotas, in all the ways they may be written."""

from pathlib import Path

import pytest

from manyways.types import Quota

from .folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_quota_may_be_a_number_a_table_or_a_list(folder: Folder) -> None:
    settings = folder.load(
        "[keys.types.a]\nquota = 100\n"
        '[keys.types.b]\nquota = { requests = 5, per = "day" }\n'
        '[keys.types.c]\nquota = [7, { cost = 2, per = "month" }]\n'
        '[keys.types.d]\nquota = "none"\n'
    )

    types = settings.keys.types
    assert types["a"].quota == (Quota(tokens=100),)
    assert types["b"].quota == (Quota(requests=5, per="day"),)
    assert types["c"].quota == (Quota(tokens=7), Quota(cost=2.0, per="month"))
    assert types["d"].quota == ()


def test_a_quota_of_nothing_is_told(folder: Folder) -> None:
    [problem] = folder.problems('[accounts]\nquota = { per = "day" }')
    assert "says no amount" in problem


def test_names_of_key_types_may_hold_anything(folder: Folder) -> None:
    settings = folder.load('[keys.types."a.b"]\nconcurrent = 1')

    assert settings.keys.types["a.b"].concurrent == 1


WINDOWS = {
    "keys.types.slow": '[keys.types.slow]\nrequests = 5\nwindow = "30d"\n',
    "accounts": '[accounts]\ntokens = 5\ntokens_window = "30d"\nrequests = 1\nwindow = "1h"\n',
}


@pytest.mark.parametrize("whose", WINDOWS)
def test_records_have_to_stay_as_long_as_a_window_counts_them(folder: Folder, whose: str) -> None:
    [problem] = folder.problems(f'[usage]\nretention = "30d"\n{WINDOWS[whose]}')
    assert "usage.retention" in problem
    assert f"the window of 30d in {whose}" in problem
    assert 'Say "721h" or more' in problem

    folder.load(f'[usage]\nretention = "721h"\n{WINDOWS[whose]}')
    folder.load(WINDOWS[whose])


def test_quotas_and_windows_of_nothing_need_no_records(folder: Folder) -> None:
    folder.load(
        '[usage]\nretention = "1d"\n'
        '[keys.types.a]\nquota = { tokens = 5, per = "month" }\nrequests = 5\nwindow = "23h"\n'
        '[keys.types.b]\ntokens_window = "30d"\n'
    )
