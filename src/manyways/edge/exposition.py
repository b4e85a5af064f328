"""The page of metrics in Prometheus' text format. Imported at the first scrape only.

Counters start at 0 with the process. Labels are bounded by routes, the catalog and the
outcome classes; nothing a caller says becomes one.
"""

import platform
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import PROCESS_COLLECTOR, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from manyways import __version__
from manyways.catalog.snapshot import Snapshot
from manyways.edge.metrics import BOUNDS, EndpointCounts, Reading, UsageReading
from manyways.edge.wording import Reason
from manyways.routing.standing import Standing

_TOTALS: Final = {
    "fallbacks": "Answers that did not come from the first attempt.",
    "hedges": "Attempts that were started beside a slow one.",
    "hedges_won": "Hedges that spoke first.",
    "cut_answers": "Answers that had begun and ended in an error.",
    "callers_left": "Callers that went before their answer was complete.",
    "answers_drained": "Answers read on though their caller had left, which told their usage.",
}
_RESTING: Final = ("provider", "model", "credential", "why")
_CANDIDATE: Final = ("provider", "model")


def write(reading: Reading) -> bytes:
    """The whole page."""
    return generate_latest(_Page(reading))


class _Page(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "manyways_build_info", "Which program this is.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        yield from self._requests()
        yield from _catalog(self._reading.catalog)
        yield from _health(self._reading)
        yield from _candidates(self._reading.standings)
        for name, count in self._reading.totals.items():
            yield CounterMetricFamily(f"manyways_{name}_total", _TOTALS[name], value=count)
        continuations = CounterMetricFamily(
            "manyways_continuations_total",
            "Broken answers that were continued, by the way it was done.",
            labels=("method",),
        )
        for method, count in self._reading.continuations.items():
            continuations.add_metric((method,), count)
        yield continuations
        resends = CounterMetricFamily(
            "manyways_upstream_resends_total",
            "Requests that found a kept connection closed, and were sent again on a new one.",
            labels=("provider",),
        )
        for provider, count in self._reading.resends.items():
            resends.add_metric((provider,), count)
        yield resends
        yield from _usage(self._reading.usage)
        yield from PROCESS_COLLECTOR.collect()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "manyways_requests_total",
            "Requests that are over; status 499: the caller left.",
            labels=("endpoint", "status"),
        )
        seconds = HistogramMetricFamily(
            "manyways_request_seconds",
            "From a request's head to its answer's last byte.",
            labels=("endpoint",),
        )
        for endpoint in self._reading.requests:
            for status, count in endpoint.statuses.items():
                requests.add_metric((endpoint.name, str(status)), count)
            seconds.add_metric((endpoint.name,), _buckets(endpoint), endpoint.seconds)
        yield requests
        yield seconds
        yield GaugeMetricFamily(
            "manyways_requests_active", "Requests under way.", value=self._reading.active
        )


def _usage(reading: UsageReading) -> Iterator[Metric]:
    for name, text, value in (
        ("backlog_records", "Records not in the database yet, about.", reading.records),
        ("backlog_bytes", "Bytes of the journal not in the database yet.", reading.bytes),
        ("backlog_age_seconds", "The age of the oldest of them.", reading.age),
        ("unwritten_records", "Records in memory, as the journal fails.", reading.waiting),
    ):
        yield GaugeMetricFamily(f"manyways_usage_{name}", text, value=value)
    for name, text, count in (
        ("lost_records", "Records that never reached the disk.", reading.lost),
        ("set_aside", "Lines of the journal that could not be moved, and were kept.",
         reading.set_aside),
    ):  # fmt: skip
        yield CounterMetricFamily(f"manyways_usage_{name}_total", text, value=count)
    refusals = CounterMetricFamily(
        "manyways_limit_refusals_total", "Requests that a limit refused.", labels=("code",)
    )
    for code, count in reading.refusals.items():
        refusals.add_metric((code,), count)
    yield refusals
    yield GaugeMetricFamily(
        "manyways_leader", "1 where scheduled work is done.", value=int(reading.leads)
    )
    if reading.redis is not None:
        yield GaugeMetricFamily("manyways_redis_up", "1 while Redis answers.", value=reading.redis)


def _buckets(endpoint: EndpointCounts) -> list[tuple[str, float]]:
    ends = (*map(str, BOUNDS), "+Inf")
    return list(zip(ends, accumulate(endpoint.classes), strict=True))


def _catalog(snapshot: Snapshot) -> Iterator[Metric]:
    models = GaugeMetricFamily("manyways_models", "Models in the catalog.", labels=("provider",))
    told = GaugeMetricFamily(
        "manyways_models_told",
        "0 for a provider that is asked for its models and has not told them since the start.",
        labels=("provider",),
    )
    for name in snapshot.provider_names:
        models.add_metric((name,), len(snapshot.of_provider(name)))
        told.add_metric((name,), name not in snapshot.untold)
    yield from (models, told)


def _health(reading: Reading) -> Iterator[Metric]:
    resting = GaugeMetricFamily(
        "manyways_resting",
        "1 for what rests: a provider, a credential (from 1), a model, or a credential at a model.",
        labels=_RESTING,
    )
    since = GaugeMetricFamily(
        "manyways_resting_since_timestamp_seconds", "When it began to rest.", labels=_RESTING
    )
    until = GaugeMetricFamily(
        "manyways_resting_until_timestamp_seconds",
        "From when on a request may try it again.",
        labels=_RESTING,
    )
    for one in reading.standings:
        if one.state == "closed":
            continue
        key = "" if one.credential is None else str(one.credential + 1)
        labels = (one.provider, one.model or "", key, Reason.of(one.why or "").code)
        resting.add_metric(labels, 1)
        since.add_metric(labels, reading.now - (one.resting_for or 0.0))
        until.add_metric(labels, reading.now + (one.back_in or 0.0))
    yield from (resting, since, until)


def _candidates(standings: tuple[Standing, ...]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "manyways_attempts_total",
        "Attempts that are over, by what came of them.",
        labels=(*_CANDIDATE, "outcome"),
    )
    running = GaugeMetricFamily(
        "manyways_attempts_running", "Attempts under way.", labels=_CANDIDATE
    )
    rate = GaugeMetricFamily(
        "manyways_failure_rate",
        "The share of the latest attempts that failed; what is a minute old counts half.",
        labels=_CANDIDATE,
    )
    first = GaugeMetricFamily(
        "manyways_first_token_seconds",
        "Until the first token: of the latest 100 attempts, so many were as quick.",
        labels=(*_CANDIDATE, "quantile"),
    )
    smoothed = GaugeMetricFamily(
        "manyways_first_token_smoothed_seconds",
        "Until the first token, smoothed over the latest attempts.",
        labels=_CANDIDATE,
    )
    whole = GaugeMetricFamily(
        "manyways_whole_answer_smoothed_seconds",
        "Until a whole answer was there, smoothed over the latest attempts.",
        labels=_CANDIDATE,
    )
    for one in standings:
        if one.model is None or one.credential is not None:
            continue
        labels = (one.provider, one.model)
        if one.served:
            attempts.add_metric((*labels, "answered"), one.served)
        for outcome, count in one.outcomes.items():
            attempts.add_metric((*labels, outcome), count)
        running.add_metric(labels, one.running)
        for family, value in ((rate, one.failure_rate), (smoothed, one.first_token),
                              (whole, one.whole)):  # fmt: skip
            if value is not None:
                family.add_metric(labels, value)
        if one.first_token_p95 is not None:
            first.add_metric((*labels, "0.95"), one.first_token_p95)
    yield from (attempts, running, rate, first, smoothed, whole)
