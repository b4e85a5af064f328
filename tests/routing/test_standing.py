"""How everything stands, for operators."""

import pytest

from manyways.routing.candidate import ENOUGH, Ticket
from manyways.routing.health import Health
from manyways.routing.standing import LINGER, Resting, Standing, resting, standings
from tests.support.routing import T0, health_of, shop

OFFERS = shop("Capi/gpt-4o", "Other/gpt-4o", providers=("Empty",))
ROW = OFFERS.models[0]


def begun(health: Health, *, key: int = 0, now: float = T0) -> Ticket:
    ticket = Ticket(health.candidate(ROW), key, now, stream=True)
    health.begin(ticket)
    return ticket


def of(
    health: Health, now: float, *, model: str | None = None, credential: int | None = None
) -> Standing:
    """The one row of Capi that is asked for."""
    (row,) = (
        row
        for row in standings(health, now)
        if (row.provider, row.model, row.credential) == ("Capi", model, credential)
    )
    return row


def test_every_provider_and_key_stands_there_before_anybody_asked() -> None:
    rows = standings(health_of(OFFERS, keys={"Capi": 2}), T0)
    assert [(row.provider, row.model, row.credential) for row in rows] == [
        ("Capi", None, None), ("Capi", None, 0), ("Capi", None, 1),
        ("Other", None, None), ("Other", None, 0),
        ("Empty", None, None), ("Empty", None, 0),
    ]  # fmt: skip
    assert {row.state for row in rows} == {"closed"}


def test_what_rests_says_why_since_when_and_for_how_long() -> None:
    health = health_of(OFFERS)
    health.failed(begun(health), T0, "provider_error", "500 out of cheese")
    row = of(health, T0 + 0.5, model="gpt-4o")
    assert (row.state, row.why) == ("open", "provider_error: 500 out of cheese")
    assert (row.resting_for, row.back_in, row.failures) == (0.5, 1.5, 1)
    assert of(health, T0 + 0.5).state == "closed"


def test_after_its_rest_it_is_half_open_until_a_probe_has_come_back() -> None:
    health = health_of(OFFERS)
    health.failed(begun(health), T0, "reset")
    row = of(health, T0 + 5, model="gpt-4o")
    assert (row.state, row.why, row.back_in) == ("half-open", "reset", 0.0)
    probe = begun(health, now=T0 + 5)
    assert of(health, T0 + 5, model="gpt-4o").running == 1
    health.spoke(probe, T0 + 6)
    health.succeeded(probe, T0 + 6)
    row = of(health, T0 + 6, model="gpt-4o")
    assert (row.state, row.why, row.resting_for, row.back_in) == ("closed", None, None, None)
    assert (row.running, row.served, row.outcomes) == (0, 1, {"reset": 1})


def test_each_kind_of_failure_shows_at_what_it_rests() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    health.failed(begun(health), T0, "connect")
    health.failed(begun(health), T0, "credentials")
    health.failed(begun(health, key=1), T0, "rate_limited", "slow down", 30)
    assert of(health, T0).why == "connect"
    assert of(health, T0, credential=0).why == "credentials"
    assert of(health, T0, credential=1).state == "closed"
    limited = of(health, T0, model="gpt-4o", credential=1)
    assert (limited.why, limited.back_in) == ("rate_limited: slow down", 30)
    assert of(health, T0, model="gpt-4o").state == "closed"


def test_figures_are_told_once_they_say_something() -> None:
    health = health_of(OFFERS)
    begun(health)
    row = of(health, T0, model="gpt-4o")
    assert (row.failure_rate, row.first_token, row.first_token_p95) == (None, None, None)
    for i in range(ENOUGH):
        ticket = begun(health)
        health.spoke(ticket, T0 + 1 + i / 10)
        health.succeeded(ticket, T0 + 2)
    row = of(health, T0 + 2, model="gpt-4o")
    assert (row.failure_rate, row.served) == (0.0, ENOUGH)
    assert row.first_token is not None
    assert 1 < row.first_token < 3
    assert row.first_token_p95 == pytest.approx(2.9)


# What the catalog is told


def test_who_failed_once_rests_for_its_rest_and_who_goes_on_failing_for_longer() -> None:
    health = health_of(OFFERS)
    name = ("Capi", "gpt-4o")
    health.failed(begun(health), T0, "provider_error")
    assert resting(health, T0 + 1.9).models == {name}
    assert name not in resting(health, T0 + 2), "a single failure says no more than that"

    health.failed(begun(health, now=T0 + 5), T0 + 5, "provider_error")
    until = health.candidate(ROW).breaker.until + LINGER * health.settings.rest_limit
    assert name in resting(health, until - 0.1)
    assert name not in resting(health, until), "nobody has asked since: it is not known"

    probe = begun(health, now=until)
    health.spoke(probe, until)
    health.succeeded(probe, until)
    assert resting(health, until) == Resting()


def test_a_provider_that_rests_takes_all_its_models_along_and_so_do_all_its_keys() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    health.failed(begun(health, key=0), T0, "credentials")
    assert resting(health, T0) == Resting()
    health.failed(begun(health, key=1), T0, "credentials")
    found = resting(health, T0)
    assert found.providers == {"Capi"}
    assert ("Capi", "never asked") in found
    assert ("Other", "gpt-4o") not in found
