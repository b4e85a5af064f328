"""What `manyways doctor` makes of a running gateway's page of metrics."""

import pytest

from manyways.cli import health
from manyways.cli.health import Doubt, Rest
from manyways.edge import exposition
from manyways.edge.metrics import Reading
from manyways.types import ModelEntry, Provider
from tests.edge.memory import Memory
from tests.support.wall import Script, html, wall_in_thread, whole

CAPI = Provider(
    name="Capi",
    protocol="openai",
    api_keys=("one", "two"),
    models=tuple(ModelEntry(id=f"m{number}") for number in range(30)),
)


@pytest.fixture
def memory() -> Memory:
    return Memory(CAPI)


def page(memory: Memory) -> str:
    reading = Reading(
        now=memory.wall(),
        active=0,
        requests=(),
        standings=memory.standings(),
        totals={},
        continuations={},
    )
    return exposition.write(reading).decode()


def lines(memory: Memory) -> list[str]:
    finding, _ = health.read(page(memory), memory.wall())
    assert finding.status == "warning"
    return finding.detail.splitlines()


def test_a_gateway_that_asked_nobody_yet_is_no_worry(memory: Memory) -> None:
    finding, found = health.read(page(memory), memory.wall())

    assert (finding.status, finding.detail) == ("ok", "no model was asked yet")
    assert (found.asked, found.resting, found.degraded) == (0, (), ())


def test_where_all_is_well_it_says_of_how_many(memory: Memory) -> None:
    memory.answers("m0")
    memory.answers("m1")
    finding, found = health.read(page(memory), memory.wall())

    assert (finding.status, finding.advice) == ("ok", "")
    assert finding.detail == "all is well, 2 models asked since its start"
    assert found.asked == 2


def test_a_resting_model_is_told_with_its_reason_and_its_times(memory: Memory) -> None:
    memory.fails("m0", "timeout", took=8.0)
    memory.now += 3
    finding, found = health.read(page(memory), memory.wall())

    assert finding.detail.splitlines() == [
        "1 rests, of 1 model asked since its start",
        "Capi/m0 rests since 3 s: took too long; is tried again in 5 s",
    ]
    assert "GET /admin/v1/providers" in finding.advice
    assert found.resting == (
        Rest(
            provider="Capi",
            model="m0",
            credential=None,
            code="timeout",
            resting_since="2027-01-15T08:00:08.000Z",
            back_at="2027-01-15T08:00:16.000Z",
        ),
    )


def test_behind_its_rest_the_next_request_may_try_it(memory: Memory) -> None:
    memory.fails("m0", "provider_error")
    memory.now += 600

    assert lines(memory)[1] == (
        "Capi/m0 rests since 10 min: answered with an error; the next request may try it"
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("connect", "Capi rests since 1 s: cannot be reached;"),
        ("credentials", "Capi with key 2 rests since 1 s: does not accept the gateway's"),
        ("rate_limited", "Capi/m0 with key 2 rests since 1 s: wants fewer requests;"),
        ("sulking", "Capi/m0 rests since 1 s: sulking;"),
    ],
)
def test_providers_keys_and_models_are_told_apart(memory: Memory, code: str, told: str) -> None:
    memory.fails("m0", code, credential=1)
    memory.now += 1

    assert lines(memory)[1].startswith(told)


def test_what_fails_too_often_is_degraded(memory: Memory) -> None:
    for _ in range(4):
        memory.answers("m0", took=0.0)
    memory.fails("m0", "provider_error", took=0.0)
    memory.now += 3
    memory.answers("m0", took=0.0)
    finding, found = health.read(page(memory), memory.wall())

    assert found.degraded == (Doubt(provider="Capi", model="m0", failure_rate=0.166),)
    assert finding.detail.splitlines() == [
        "1 is degraded, of 1 model asked since its start",
        "Capi/m0 is degraded: 17% of its latest attempts failed",
    ]


def test_what_rests_is_not_called_degraded_as_well(memory: Memory) -> None:
    memory.fails("m0", "timeout")

    assert health.read(page(memory), memory.wall())[1].degraded == ()


def test_a_long_list_is_cut(memory: Memory) -> None:
    for number in range(30):
        memory.fails(f"m{number}", "timeout", took=1.0)
    told = lines(memory)

    assert told[0] == "30 rest, of 30 models asked since its start"
    assert (len(told), told[-1]) == (22, "and 10 more")


@pytest.mark.parametrize(
    "answer",
    [whole(b"{}", 404), html(), whole(b'manyways_resting{provider="Capi"} 1\n')],
    ids=["404", "HTML", "other labels"],
)
def test_a_gateway_without_such_a_page_is_told_of(answer: Script) -> None:
    with wall_in_thread() as wall:
        wall.answer = answer
        finding, found = health.look("127.0.0.1", wall.port)

    assert (finding.status, found) == ("warning", None)
    assert "GET /metrics" in finding.detail
