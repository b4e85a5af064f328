"""The page of metrics, read as Prometheus reads it."""

import asyncio
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from manyways import __version__
from manyways.attempts.tally import Tally
from manyways.edge.metrics import MetricsPage, RequestCounts, UsageReading
from manyways.types import ModelEntry, Provider
from tests.edge.memory import NOON, Memory
from tests.edge.pages import ask, edge

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
CAPI = Provider(
    name="Capi",
    protocol="openai",
    api_keys=("one", "two"),
    models=(ModelEntry(id="a"), ModelEntry(id='odd "name"\\\n')),
)
MUTE = Provider(name="Mute", protocol="openai")
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Measured(Memory):
    """A gateway's memory and counters, and the page that tells them."""

    def __init__(self) -> None:
        super().__init__(CAPI, MUTE)
        self.counts = RequestCounts(
            ("/v1", "/webhook/v1"), ("/chat/completions", "/models"), ("/healthz", "/metrics")
        )
        self.tally = Tally()
        self.edge = edge(
            {
                "/metrics": MetricsPage(
                    counts=self.counts,
                    standings=self.standings,
                    tally=self.tally,
                    active=lambda: len(self.edge.active),
                    catalog=lambda: self.catalog.snapshot,
                    usage=lambda: UsageReading(redis=True),
                    resends=lambda: {"Capi": 3, "Mute": 0},
                    clock=self.wall,
                ).metrics
            }
        )

    async def text(self) -> str:
        page = await ask(self.edge, "/metrics")
        assert page.status == 200
        return page.body.decode()

    async def scrape(self) -> Series:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(await self.text())
            for sample in family.samples
        }


@pytest.fixture
def gateway() -> Measured:
    return Measured()


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def labels_of(series: Series, name: str) -> list[dict[str, str]]:
    return [dict(labels) for found, labels in series if found == name]


# The page


async def test_it_needs_no_key_and_is_in_the_format_that_prometheus_reads(
    gateway: Measured,
) -> None:
    page = await ask(gateway.edge, "/metrics")

    assert page.status == 200
    assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert list(text_string_to_metric_families(page.body.decode()))


async def test_it_names_the_version_and_measures_the_process(gateway: Measured) -> None:
    series = await gateway.scrape()

    assert [one["version"] for one in labels_of(series, "manyways_build_info")] == [__version__]
    if sys.platform == "linux":
        assert (value(series, "process_resident_memory_bytes") or 0) > 1e6
        assert (value(series, "process_open_fds") or 0) > 0
        assert value(series, "process_cpu_seconds_total") is not None


async def test_several_scrapes_at_once_are_all_answered(gateway: Measured) -> None:
    pages = await asyncio.gather(*(ask(gateway.edge, "/metrics") for _ in range(5)))

    assert [page.status for page in pages] == [200] * 5


async def test_every_metric_is_documented_and_every_documented_one_is_there(
    gateway: Measured,
) -> None:
    gateway.counts.count("/healthz", 200, 0.1)
    told = {
        name
        for line in OPERATING.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `manyways_")
        for name in re.findall(r"`(manyways_\w+)", line.split(" |")[0])
    }
    served = re.findall(r"^# TYPE (manyways_\w+)", await gateway.text(), re.MULTILINE)

    assert told == set(served)


def test_importing_the_page_does_not_import_the_library() -> None:
    look = "import sys, manyways.edge.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


# Requests


async def test_requests_are_counted_by_endpoint_and_status_whatever_their_mount(
    gateway: Measured,
) -> None:
    for path, status in (
        ("/v1/chat/completions", 200),
        ("/webhook/v1/chat/completions", 200),
        ("/v1/chat/completions", 503),
        ("/v1/models/some/model", 200),
        ("/healthz", 200),
    ):
        gateway.counts.count(path, status, 0.01)
    series = await gateway.scrape()

    def requests(endpoint: str, status: str) -> float | None:
        return value(series, "manyways_requests_total", endpoint=endpoint, status=status)

    assert requests("/chat/completions", "200") == 2
    assert requests("/chat/completions", "503") == 1
    assert requests("/models/{id}", "200") == 1
    assert requests("/healthz", "200") == 1
    assert requests("/models", "200") is None


async def test_paths_that_are_no_routes_make_no_series_of_their_own(gateway: Measured) -> None:
    for number in range(1000):
        gateway.counts.count(f"/scan/{number}", 404, 0.001)
        gateway.counts.count(f"/v1/models/{number}", 404, 0.001)
    series = await gateway.scrape()

    assert value(series, "manyways_requests_total", endpoint="other", status="404") == 1000
    assert {one["endpoint"] for one in labels_of(series, "manyways_requests_total")} == {
        "other",
        "/models/{id}",
    }


async def test_durations_fall_into_classes_that_add_up(gateway: Measured) -> None:
    for seconds in (0.004, 0.01, 0.3, 999.0):
        gateway.counts.count("/healthz", 200, seconds)
    series = await gateway.scrape()

    def until(end: str) -> float | None:
        return value(series, "manyways_request_seconds_bucket", endpoint="/healthz", le=end)

    assert [until(end) for end in ("0.01", "0.25", "0.5", "120.0", "+Inf")] == [2, 2, 3, 3, 4]
    assert value(series, "manyways_request_seconds_count", endpoint="/healthz") == 4
    total = value(series, "manyways_request_seconds_sum", endpoint="/healthz")
    assert total is not None
    assert math.isclose(total, 999.314)


async def test_requests_under_way_are_told(gateway: Measured) -> None:
    series = await gateway.scrape()

    assert value(series, "manyways_requests_active") == 1  # the scrape itself


# Attempts and health


async def test_whoever_has_not_told_its_models_is_known_by_name(gateway: Measured) -> None:
    series = await gateway.scrape()

    assert value(series, "manyways_models", provider="Capi") == 2
    assert value(series, "manyways_models", provider="Mute") == 0
    assert value(series, "manyways_models_told", provider="Capi") == 1
    assert value(series, "manyways_models_told", provider="Mute") == 0


async def test_attempts_are_counted_by_what_came_of_them(gateway: Measured) -> None:
    for _ in range(20):
        gateway.answers("a")
    gateway.answers("a", stream=False, took=2.0)
    gateway.fails("a", "provider_error", took=0.1)
    running = gateway.begins("a")
    series = await gateway.scrape()
    gateway.health.dropped(running)

    candidate = {"provider": "Capi", "model": "a"}
    assert value(series, "manyways_attempts_total", **candidate, outcome="answered") == 21
    assert value(series, "manyways_attempts_total", **candidate, outcome="provider_error") == 1
    assert value(series, "manyways_attempts_running", **candidate) == 1
    assert 0 < (value(series, "manyways_failure_rate", **candidate) or 0) < 0.1
    assert value(series, "manyways_first_token_seconds", **candidate, quantile="0.95") == 0.5
    assert value(series, "manyways_first_token_smoothed_seconds", **candidate) == 0.5
    assert value(series, "manyways_whole_answer_smoothed_seconds", **candidate) == 2.0


async def test_what_was_not_measured_is_absent_and_not_zero(gateway: Measured) -> None:
    gateway.begins("a")
    series = await gateway.scrape()

    assert labels_of(series, "manyways_first_token_seconds") == []
    assert labels_of(series, "manyways_first_token_smoothed_seconds") == []
    assert labels_of(series, "manyways_failure_rate") == []


async def test_what_rests_is_told_with_its_class_and_its_time(gateway: Measured) -> None:
    gateway.fails("a", "rate_limited", "Rate limit: 3 a minute", credential=1)
    gateway.now += 1
    series = await gateway.scrape()

    labels = {"provider": "Capi", "model": "a", "credential": "2", "why": "rate_limited"}
    assert value(series, "manyways_resting", **labels) == 1
    assert value(series, "manyways_resting_since_timestamp_seconds", **labels) == NOON + 2
    assert value(series, "manyways_resting_until_timestamp_seconds", **labels) == NOON + 4
    assert len(labels_of(series, "manyways_resting")) == 1


@pytest.mark.parametrize(
    ("code", "labels"),
    [
        ("connect", {"model": "", "credential": ""}),
        ("credentials", {"model": "", "credential": "1"}),
        ("timeout", {"model": "a", "credential": ""}),
    ],
)
async def test_providers_keys_and_models_that_rest_are_told_apart(
    gateway: Measured, code: str, labels: dict[str, str]
) -> None:
    gateway.fails("a", code)
    series = await gateway.scrape()

    assert labels_of(series, "manyways_resting") == [{"provider": "Capi", "why": code, **labels}]


async def test_what_is_well_again_rests_no_more(gateway: Measured) -> None:
    gateway.fails("a", "timeout")
    gateway.now += 60
    gateway.answers("a")

    assert labels_of(await gateway.scrape(), "manyways_resting") == []


async def test_a_name_with_odd_letters_comes_through(gateway: Measured) -> None:
    odd = 'odd "name"\\\n'
    gateway.answers(odd)

    found = labels_of(await gateway.scrape(), "manyways_attempts_total")
    assert [one["model"] for one in found] == [odd]


# What attempts came to


async def test_what_was_sent_again_is_told_by_provider(gateway: Measured) -> None:
    series = await gateway.scrape()
    assert value(series, "manyways_upstream_resends_total", provider="Capi") == 3
    assert value(series, "manyways_upstream_resends_total", provider="Mute") == 0


async def test_every_counter_of_the_tally_is_told(gateway: Measured) -> None:
    tally = gateway.tally
    names = {
        "fallbacks": "manyways_fallbacks_total",
        "hedges": "manyways_hedges_total",
        "hedges_won": "manyways_hedges_won_total",
        "cut": "manyways_cut_answers_total",
        "left": "manyways_callers_left_total",
        "drained": "manyways_answers_drained_total",
    }
    assert {*names, "continuations"} == set(Tally.__slots__)
    for number, name in enumerate(names, 1):
        setattr(tally, name, number)
    tally.continuations["prefill"] += 7
    series = await gateway.scrape()

    assert [value(series, name) for name in names.values()] == [1, 2, 3, 4, 5, 6]
    assert value(series, "manyways_continuations_total", method="prefill") == 7
