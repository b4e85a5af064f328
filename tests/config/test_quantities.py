import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.config import quantities


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5s", 5.0),
        ("500ms", 0.5),
        ("1m", 60.0),
        ("2h", 7200.0),
        ("30d", 30 * 86400.0),
        ("1.5 s", 1.5),
        ("7", 7.0),
        ("5 seconds", None),
        ("-5s", None),
        ("s", None),
        ("", None),
        ("1m30s", None),
        ("5M", None),
    ],
)
def test_a_duration_is_a_number_and_a_unit(written: str, meant: float | None) -> None:
    assert quantities.seconds(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("32MiB", 32 * 1024**2),
        ("10MB", 10_000_000),
        ("1.5KiB", 1536),
        ("512", 512),
        ("12B", 12),
        ("0.5B", None),
        ("10 megabytes", None),
        ("-1MB", None),
    ],
)
def test_a_size_is_a_number_and_a_unit(written: str, meant: int | None) -> None:
    assert quantities.size(written) == meant


@given(st.integers(0, 10**11))
def test_a_written_duration_reads_back_the_same(milliseconds: int) -> None:
    duration = milliseconds / 1000

    assert quantities.seconds(quantities.write_seconds(duration)) == pytest.approx(duration)


@given(st.integers(0, 10**12))
def test_a_written_size_reads_back_the_same(count: int) -> None:
    assert quantities.size(quantities.write_size(count)) == count


def test_quantities_are_written_short() -> None:
    durations = [quantities.write_seconds(one) for one in (0, 0.25, 5, 60, 90, 170, 2592000)]

    assert durations == ["0s", "250ms", "5s", "1m", "90s", "170s", "30d"]
    assert [quantities.write_size(one) for one in (32 * 1024**2, 10**7, 5)] == [
        "32MiB",
        "10MB",
        "5B",
    ]
