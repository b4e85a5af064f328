"""What is played: scenarios by name, and the settings that are compared."""

from collections.abc import Callable, Sequence
from typing import Final

from bench.simulate.play import (
    RacingAtHalf,
    RacingLate,
    Scenario,
    Variant,
    WaitingOut,
)
from bench.simulate.suppliers import Kind, Supplier, Trouble
from manyways.routing.settings import Settings

BEGIN, END = 100.0, 160.0
"""When most troubles begin and end."""


def _market(
    *capi: Trouble,
    gemini: Sequence[Trouble] = (),
    hugging: Sequence[Trouble] = (),
    tail: float = 0.0,
) -> Callable[[], Sequence[Supplier]]:
    """Three providers. The asked model, gpt, is at two of them."""
    return lambda: (
        Supplier("Capi", {"gpt": 0.6, "mini": 0.3, "nano": 0.3}, capi, tail=tail),
        Supplier("Gemini", {"gpt": 0.7, "flash": 0.4}, tuple(gemini)),
        Supplier("Hugging", {"large": 1.2, "small": 0.6}, tuple(hugging)),
    )


def _minute(kind: Kind, *, model: str | None = None, after: float | None = None) -> Trouble:
    return Trouble(kind, BEGIN, END, model=model, after=after)


_ALL: Final = (
    Scenario("calm", "Nothing is wrong.", _market()),
    Scenario(
        "crash",
        "Capi refuses connections for a minute; what it was saying breaks off.",
        _market(_minute("refused")),
    ),
    Scenario(
        "model down",
        "Capi's gpt answers 503 for a minute; its other models are well.",
        _market(_minute("errors", model="gpt")),
    ),
    Scenario(
        "silence",
        "Capi takes requests for a minute, and says nothing.",
        _market(_minute("silent")),
    ),
    Scenario(
        "silent model",
        "Capi's gpt says nothing for a minute; its other models are well.",
        _market(_minute("silent", model="gpt")),
    ),
    Scenario(
        "long silence",
        "Capi says nothing for four minutes.",
        _market(Trouble("silent", 30.0, 270.0)),
    ),
    Scenario(
        "slow errors",
        "Capi's gpt takes 4 s to answer 503, for a minute.",
        _market(_minute("errors", model="gpt", after=4.0)),
    ),
    Scenario(
        "flapping",
        "Capi refuses connections for 5 s out of 10, for two minutes.",
        _market(Trouble("flapping", 80.0, 200.0)),
    ),
    Scenario(
        "strays",
        "5% of Capi's requests get a 500, all the time.",
        _market(Trouble("errors", share=0.05)),
    ),
    Scenario(
        "blips",
        "Capi's gpt answers 503 for a second, every 15 s.",
        _market(*(Trouble("errors", t, t + 1.0, model="gpt") for t in range(15, 300, 15))),
    ),
    Scenario(
        "half broken",
        "Half of the requests to Capi's gpt get a 500, for two minutes.",
        _market(Trouble("errors", 80.0, 200.0, share=0.5, model="gpt")),
    ),
    Scenario(
        "limited",
        "Capi's gpt takes 120 requests a minute of 300, then 429 with Retry-After.",
        _market(Trouble("limited", model="gpt", admits=120)),
    ),
    Scenario(
        "cuts",
        "10% of Capi's streams break off somewhere.",
        _market(Trouble("cuts", share=0.1)),
    ),
    Scenario(
        "brown-out",
        "Capi's gpt is ten times slower for two minutes.",
        _market(Trouble("slow", 80.0, 200.0, model="gpt")),
    ),
    Scenario(
        "long tail",
        "3% of Capi's answers take twelve times longer to begin.",
        _market(tail=0.03),
    ),
    Scenario(
        "equals, crash",
        "gpt is asked for at whoever has it; Capi crashes for a minute.",
        _market(_minute("refused")),
        asks="gpt",
    ),
    Scenario(
        "equals, brown-out",
        "gpt is asked for at whoever has it; Capi is ten times slower for two minutes.",
        _market(Trouble("slow", 80.0, 200.0)),
        asks="gpt",
    ),
    Scenario(
        "two down",
        "Capi and Gemini refuse connections for the same minute.",
        _market(_minute("refused"), gemini=[_minute("refused")]),
    ),
    Scenario(
        "all down",
        "Everybody refuses connections for 3 s, ten times.",
        _market(
            *(Trouble("refused", 20.0 + 25 * i, 23.0 + 25 * i) for i in range(10)),
            gemini=[Trouble("refused", 20.0 + 25 * i, 23.0 + 25 * i) for i in range(10)],
            hugging=[Trouble("refused", 20.0 + 25 * i, 23.0 + 25 * i) for i in range(10)],
        ),
    ),
    Scenario(
        "everything shaky",
        "Everybody answers 500 to 60% of all requests.",
        _market(
            Trouble("errors", share=0.6),
            gemini=[Trouble("errors", share=0.6)],
            hugging=[Trouble("errors", share=0.6)],
        ),
    ),
    Scenario(
        "quiet hours, crash",
        "One request every 4 s; Capi refuses connections for a minute. 60 times.",
        _market(_minute("refused")),
        rate=0.25,
        regular=True,
        seconds=220.0,
        seeds=60,
    ),
    Scenario(
        "quiet hours, silence",
        "One request every 4 s; Capi says nothing for a minute. 60 times.",
        _market(_minute("silent")),
        rate=0.25,
        regular=True,
        seconds=220.0,
        seeds=60,
    ),
    Scenario(
        "quiet hours, long silence",
        "One request every 4 s; Capi says nothing for nine minutes. 20 times.",
        _market(Trouble("silent", 60.0, 600.0)),
        rate=0.25,
        regular=True,
        seconds=660.0,
        seeds=20,
    ),
    Scenario(
        "fleet, crash",
        "25 gateways with 20 requests a second each; Capi refuses connections for a minute.",
        _market(Trouble("refused", 5.0, 65.0)),
        rate=500.0,
        seconds=66.0,
        seeds=1,
        gateways=25,
    ),
)
SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}

DEFAULT: Final = Variant()
"""The gateway as it comes. In every study it is the one in bold."""

ORDERS: Final = {
    "same-provider-first": DEFAULT,
    "same-model-first": Variant(Settings(order="same-model-first")),
}
MEMORIES: Final = {
    "no memory": Variant(remembers=False),
    "every failure counts": Variant(strays=False),
    "strays forgiven": DEFAULT,
}
RESTS: Final = {
    f"{rest:g} s to {limit:g} s": Variant(Settings(rest=rest, rest_limit=limit))
    for rest, limit in (
        (0.5, 10.0), (1.0, 5.0), (1.0, 10.0), (1.0, 60.0), (2.0, 10.0), (8.0, 10.0), (8.0, 60.0)
    )
}  # fmt: skip
PROBES: Final = {"waited out": Variant(plan=WaitingOut), "raced": DEFAULT}
JITTERS: Final = {"none": Variant(jitter=False), "20%": DEFAULT}
HEDGES: Final = {
    "off": DEFAULT,
    "p95, 2%": Variant(Settings(hedge=True, hedge_budget=0.02)),
    "p95, 5%": Variant(Settings(hedge=True, hedge_budget=0.05)),
    "p95, 20%": Variant(Settings(hedge=True, hedge_budget=0.2)),
    "p95, no limit": Variant(Settings(hedge=True, hedge_budget=1.0)),
    "p50, 5%": Variant(Settings(hedge=True), plan=RacingAtHalf),
    "p99, 5%": Variant(Settings(hedge=True), plan=RacingLate),
}
ATTEMPTS: Final = {str(most): Variant(Settings(max_attempts=most)) for most in (1, 2, 3, 5, 10, 20)}
