import pytest

from manyways.cli.models_wording import ago, lasted, one_line, printable

NOON = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2027-01-15T08:00:00Z", "just now"),
        ("2027-01-15T07:59:01.000Z", "just now"),
        ("2027-01-15T07:59:00Z", "1 min ago"),
        ("2027-01-15T05:00:00Z", "3 h ago"),
        ("2027-01-05T08:00:00Z", "10 d ago"),
        ("2027-01-15T09:00:00Z", "just now"),  # clocks differ
        ("yesterday", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_how_long_ago_is_told_in_the_largest_unit(moment: str | None, words: str) -> None:
    assert ago(moment, NOON) == words


@pytest.mark.parametrize(
    ("began", "ended", "words"),
    [
        ("2027-01-15T07:00:00Z", "2027-01-15T07:00:07Z", "7 s"),
        ("2027-01-15T07:00:00Z", "2027-01-15T07:03:30Z", "3.5 min"),
        ("2027-01-15T06:00:00Z", None, "2.0 h…"),
        ("2027-01-12T08:00:00Z", None, "3.0 d…"),
        ("2027-01-15T07:00:09Z", "2027-01-15T07:00:07Z", "0 s"),
    ],
)
def test_how_long_it_lasted_and_that_it_goes_on(began: str, ended: str | None, words: str) -> None:
    assert lasted(began, ended, NOON) == words


def test_what_models_write_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\r") == "a [2Jb\nc "
    assert one_line(" a\x1b[2Jb\n\tc\r") == "a [2Jb c"
