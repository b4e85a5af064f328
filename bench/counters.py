"""What Manyways says of itself: the counters that the measurements need."""

import urllib.request
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

_ANSWERS: Final = "manyways_requests_total"
_CHAT: Final = ("/chat/completions", "200")


class Counters(NamedTuple):
    """Answers with status 200 since the start, by worker; and records that are not in the database
    yet. Where there is one process, it is called `""`."""

    answers: dict[str, float]
    backlog: float

    def since(self, before: "Counters") -> dict[str, float]:
        """Answers that came since an earlier look, by worker."""
        return {name: n - before.answers.get(name, 0.0) for name, n in self.answers.items()}


def read(port: int, *, limit: float = 20.0) -> Counters:
    """As they are now; of other workers, as they were up to two seconds ago. Raises `OSError`."""
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=limit) as page:
        return parsed(page.read().decode())


def parsed(page: str) -> Counters:
    """The counters on a page of metrics."""
    answers: dict[str, float] = {}
    backlog = 0.0
    for family in text_string_to_metric_families(page):
        for name, labels, value, *_ in family.samples:
            if name == "manyways_usage_backlog_records":
                backlog += value
            elif name == _ANSWERS and (labels["endpoint"], labels["status"]) == _CHAT:
                worker = labels.get("worker", "")
                answers[worker] = answers.get(worker, 0.0) + value
    return Counters(answers, backlog)
