"""What `manyways doctor` makes of a running gateway's page of metrics."""

import pytest

from manyways.cli import health
from manyways.cli.checks import Finding
from manyways.cli.health import Doubt, Health, Rest
from manyways.edge import exposition
from manyways.edge.metrics import Reading, UsageReading
from manyways.types import ModelEntry, Provider
from tests.edge.memory import Memory
from tests.support.wall import Script, html, wall_in_thread, whole

CAPI = Provider(
    name="Capi",
    protocol="openai",
    api_keys=("one", "two"),
    models=tuple(ModelEntry(id=f"m{number}") for number in range(30)),
)

OPEN = Provider(name="Open", protocol="openai", models=(ModelEntry(id="o"),))


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
        catalog=memory.catalog.snapshot,
        usage=UsageReading(),
    )
    return exposition.write(reading).decode()


def read(memory: Memory) -> tuple[Finding, Health]:
    return health.read(page(memory), {"Capi": 2}, memory.wall())


def lines(memory: Memory) -> list[str]:
    finding, _ = read(memory)
    assert finding.status == "warning"
    return finding.detail.splitlines()


def test_a_gateway_that_asked_nobody_yet_is_no_worry(memory: Memory) -> None:
    finding, found = read(memory)

    assert (finding.status, finding.detail) == ("ok", "no model was asked yet")
    assert (found.asked, found.resting, found.degraded) == (0, (), ())


def test_where_all_is_well_it_says_of_how_many(memory: Memory) -> None:
    memory.answers("m0")
    memory.answers("m1")
    finding, found = read(memory)

    assert (finding.status, finding.advice) == ("ok", "")
    assert finding.detail == "all is well, 2 models asked since its start"
    assert found.asked == 2


def test_a_resting_model_is_told_with_its_reason_and_its_times(memory: Memory) -> None:
    memory.fails("m0", "timeout", took=8.0)
    memory.now += 3
    finding, found = read(memory)

    assert finding.detail.splitlines() == [
        "1 of 1 model rests",
        "Capi/m0 has been resting for 3 s: took too long; is tried again in 5 s",
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
        "Capi/m0 has been resting for 10 min: answered with an error; the next request may try it"
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("credentials", "Capi with key 2 has been resting for 1 s: does not accept the gateway's"),
        ("rate_limited", "Capi/m0 with key 2 has been resting for 1 s: wants fewer requests;"),
        ("sulking", "Capi/m0 has been resting for 1 s: sulking;"),
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
    finding, found = read(memory)

    assert found.degraded == (Doubt(provider="Capi", model="m0", failure_rate=0.166),)
    assert finding.detail.splitlines() == [
        "1 of 1 model is degraded",
        "Capi/m0 is degraded: 17% of its latest attempts failed",
    ]


def test_what_rests_is_not_called_degraded_as_well(memory: Memory) -> None:
    memory.fails("m0", "timeout")

    assert read(memory)[1].degraded == ()


def test_a_long_list_is_cut(memory: Memory) -> None:
    for number in range(29):
        memory.fails(f"m{number}", "timeout", took=1.0)
    told = lines(memory)

    assert told[0] == "29 of 29 models rest"
    assert (len(told), told[-1]) == (22, "and 9 more")


def test_models_and_keys_that_rest_are_counted_apart(memory: Memory) -> None:
    memory.fails("m0", "timeout")
    memory.fails("m1", "credentials", credential=1)
    memory.answers("m2")

    assert lines(memory)[0] == "1 key rests, 1 of 3 models rests"


@pytest.mark.parametrize(
    "failures",
    [
        [("m0", "connect", 0)],
        [("m0", "credentials", 0), ("m0", "credentials", 1)],
        [(f"m{number}", "model_gone", 0) for number in range(30)],
    ],
    ids=["the provider", "its keys", "its models"],
)
def test_where_everything_rests_the_check_fails(
    memory: Memory, failures: list[tuple[str, str, int]]
) -> None:
    for model, code, credential in failures[:-1]:
        memory.fails(model, code, credential=credential, took=0.0)
    before, partly = read(memory)
    model, code, credential = failures[-1]
    memory.fails(model, code, credential=credential, took=0.0)
    finding, found = read(memory)

    assert before.status != "error"
    assert (partly.away, found.away) == (False, True)
    assert (finding.status, finding.detail.splitlines()[0]) == ("error", "nobody is left to ask")
    assert "503" in finding.advice
    assert "meanwhile" not in finding.advice


def test_one_provider_of_two_that_rests_leaves_another() -> None:
    memory = Memory(CAPI, OPEN)
    memory.fails("m0", "connect")
    finding, found = read(memory)

    assert (finding.status, found.away) == ("warning", False)
    assert finding.detail.splitlines()[0] == "1 provider rests"
    assert finding.advice.startswith("Others are asked meanwhile.")


def test_a_provider_without_keys_is_not_said_to_rest_with_key_1() -> None:
    memory = Memory(CAPI, OPEN)
    memory.fails("o", "credentials")
    finding, found = health.read(page(memory), {"Capi": 2, "Open": 0}, memory.wall())

    assert finding.detail.splitlines()[1].startswith("Open has been resting for ")
    assert [one.credential for one in found.resting] == [None]


def test_whoever_has_not_told_its_models_is_no_sign_of_health() -> None:
    memory = Memory(CAPI, Provider(name="Mute", protocol="openai"))
    memory.answers("m0")
    finding, found = read(memory)

    assert (finding.status, found.untold) == ("warning", ("Mute",))
    assert finding.detail.splitlines() == [
        "1 provider does not tell its models",
        "Mute has not told its models since the gateway's start",
    ]


@pytest.mark.parametrize(
    "answer",
    [whole(b"{}", 404), html(), whole(b'manyways_resting{provider="Capi"} 1\n')],
    ids=["404", "HTML", "other labels"],
)
def test_a_gateway_without_such_a_page_is_told_of(answer: Script) -> None:
    with wall_in_thread() as wall:
        wall.answer = answer
        finding, found = health.look("127.0.0.1", wall.port, {})

    assert (finding.status, found) == ("warning", None)
    assert "GET /metrics" in finding.detail
