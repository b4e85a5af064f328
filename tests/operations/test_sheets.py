"""What is in a sheet, whatever callers wrote."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.operations.sheets import as_csv


def read(text: str) -> str:
    """A cell as a program finds it that reads the sheet."""
    lines = list(as_csv(["name", "other"], [[text, True]]))
    assert len(lines) == 2
    ((_, _), (cell, other)) = csv.reader(io.StringIO("".join(lines), newline=""))
    assert other == "1"
    return cell


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('plain, "quoted"', 'plain, "quoted"'),
        ("Привет 🙂", "Привет 🙂"),
        ("\x1b]0;owned\x07name", " ]0;owned name"),
        ("a\x9b2J\tb\r\nc", "a 2J b  c"),
        ("=1+1", "'=1+1"),
        ("\t=1+1", "' =1+1"),
        ("\r@SUM(A1)", "' @SUM(A1)"),
    ],
)
def test_nothing_in_it_is_obeyed_by_anybody(text: str, cell: str) -> None:
    assert read(text) == cell


@given(st.text())
def test_a_row_is_a_line_whatever_is_in_it(text: str) -> None:
    assert read(text).isprintable()
