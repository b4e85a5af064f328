"""What a profile adds up to."""

from bench.sampling import counted


def test_time_is_counted_where_it_is_spent_and_where_it_was_asked_for() -> None:
    own, whole, total = counted(["main;flow;parse 3", "main;flow 2", "main;flow;flow;parse 1"])
    assert own == {"parse": 4, "flow": 2}
    assert whole == {"main": 6, "flow": 6, "parse": 4}
    assert total == 6
