"""What is read off a page of metrics."""

from bench.counters import parsed

PAGE = """\
# HELP manyways_requests_total Requests that are over.
# TYPE manyways_requests_total counter
manyways_requests_total{endpoint="/chat/completions",status="200",worker="1"} 30.0
manyways_requests_total{endpoint="/chat/completions",status="429",worker="1"} 9.0
manyways_requests_total{endpoint="/chat/completions",status="200",worker="2"} 12.0
manyways_requests_total{endpoint="/metrics",status="200",worker="2"} 5.0
# HELP manyways_usage_backlog_records Records not in the database yet, about.
# TYPE manyways_usage_backlog_records gauge
manyways_usage_backlog_records{worker="1"} 3.0
manyways_usage_backlog_records{worker="2"} 4.0
"""


def test_answers_are_counted_by_worker_and_the_backlog_of_all() -> None:
    found = parsed(PAGE)
    assert found.answers == {"1": 30.0, "2": 12.0}
    assert found.backlog == 7.0


def test_since_an_earlier_look_a_new_worker_counts_whole() -> None:
    before = parsed(PAGE.replace("12.0", "2.0").replace('worker="1"', 'worker="3"'))
    assert parsed(PAGE).since(before) == {"1": 30.0, "2": 10.0}
