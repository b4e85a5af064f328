"""Figures of several rounds are compared within each round."""

import io

from bench.comparison import Comparison
from bench.results import Metric
from rich.console import Console

SPEED = Metric("speed", "answers", "/s", more_is_better=True)
DELAY = Metric("delay", "added", "ms", more_is_better=False)


def _compared() -> Comparison:
    compared = Comparison([SPEED, DELAY])
    # The machine gets slower by half each round: the ratio stays.
    for speed in (1000.0, 500.0, 250.0):
        compared.keep("free", {"speed": speed, "delay": 0.5})
        compared.keep("limited", {"speed": speed * 0.9, "delay": 0.7})
    return compared


def test_a_slow_round_counts_on_both_sides() -> None:
    ratio = _compared().ratio("limited", "free", "speed")
    assert ratio is not None
    assert abs(ratio - 0.9) < 1e-9


def test_what_is_missing_or_nothing_has_no_ratio() -> None:
    compared = _compared()
    assert compared.ratio("limited", "nobody", "speed") is None
    assert compared.difference("limited", "free", "memory") is None
    compared.keep("idle", {"speed": 0.0})
    assert compared.ratio("free", "idle", "speed") is None


def test_the_tables_show_figures_ratios_and_differences() -> None:
    out = io.StringIO()
    _compared().show(Console(file=out, width=120), title="Cost", differ=("delay",))
    told = out.getvalue()
    for words in ("Cost", "500 ±375", "Compared with free", "× 0.90", "+0.200 ms"):
        assert words in told
