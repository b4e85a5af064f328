"""docs/simulation.md: the tables, and what they say."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.simulate import picture
from bench.simulate.play import AGREES, Variant
from bench.simulate.scenarios import (
    ATTEMPTS,
    DEFAULT,
    HEDGES,
    JITTERS,
    MEMORIES,
    ORDERS,
    PROBES,
    RESTS,
    SCENARIOS,
)
from bench.simulate.study import STUDIES, Findings, probes, table

COMMAND: Final = "python -m bench simulate"

_HEAD: Final = f"""\
# Outages, simulated

This page is written by `{COMMAND}`, which takes under a minute on one core. It plays
outages in virtual time against the gateway's own planner and its own health memory: the very
code that decides for real requests, with nothing in its place. Only the providers, the callers
and the clock are made up. Seeds decide everything: the same code gives the same figures.

![The findings as bars, and when a dead provider was asked](simulation.svg)

## What is played

Three providers. Capi has gpt (0.6 s to the first token, median), mini and nano (0.3 s); Gemini
has gpt (0.7 s) and flash (0.4 s); Hugging has large (1.2 s) and small (0.6 s). Latencies are
log-normal (sigma 0.4), answers are streams of about 4 s. Callers come at random, five a second
for five minutes, and ask for Capi/gpt unless the scenario says otherwise; they never leave. An
answer that broke is gone on from by asking again; the same model is taken to give the same text
in {AGREES:.0%} of all cases, another one never. Every scenario is played several times with
other seeds, and the settings that are compared meet the same callers.
"""

_READ: Final = """\
Seconds are to the first token, of requests that got one. *By the asked model*: of the answers,
those that gpt gave, wherever it stands. *Attempts at the dead*: requests to a provider that was
down, while it was down. *Back after*: from the end of an outage to the first request that
whoever had it answered.
"""


def page(findings: Findings) -> str:
    """The whole of it."""
    parts = [_HEAD, "\n".join(_scenarios()), "", _READ]
    for name, words in _words(findings).items():
        study = STUDIES[name]
        parts += [f"## {study.title}\n", "\n".join(table(study, findings)), "", words]
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Play everything, and write both files into `folder`."""
    findings = Findings()
    (folder / "simulation.md").write_text(page(findings))
    (folder / "simulation.svg").write_text(picture.svg(findings))


def _scenarios() -> Iterator[str]:
    yield "| scenario | what happens |"
    yield "|---|---|"
    for scenario in SCENARIOS.values():
        yield f"| {scenario.name} | {scenario.about} |"


def _words(findings: Findings) -> dict[str, str]:
    """What each table says, with its own figures."""

    def dead(scenario: str, variant: Variant = DEFAULT) -> str:
        return f"{probes(findings.of(scenario, variant), SCENARIOS[scenario]):.0f}"

    def late(scenario: str, share: float, variant: Variant = DEFAULT) -> str:
        return f"{findings.of(scenario, variant).percentile(share):.1f} s"

    def asked(scenario: str, variant: Variant = DEFAULT) -> str:
        return f"{findings.of(scenario, variant).fidelity:.0%}"

    def worst(variant: Variant = DEFAULT) -> str:
        return f"{max(findings.of('quiet hours, crash', variant).back):.0f} s"

    def answered(scenario: str, most: int) -> str:
        return f"{findings.of(scenario, ATTEMPTS[str(most)]).success:.1%}"

    def load(scenario: str, variant: Variant = DEFAULT) -> float:
        return findings.of(scenario, variant).load

    forgetful, strict = MEMORIES["no memory"], MEMORIES["every failure counts"]
    quiet, out = "quiet hours, long silence", PROBES["waited out"]
    race, fleet = HEDGES["p95, 5%"], findings.of("fleet, crash")
    in_step = findings.of("fleet, crash", JITTERS["none"])
    calm = findings.of("calm", race)
    return {
        "orders": _prose(
            f"""
            The default is the reference's order, not the better one. Both answer the same
            requests, but while a model is down, `same-provider-first` gives another model's
            answer in its place: {asked("model down")} of all answers are given by the asked
            model, and {asked("model down", ORDERS["same-model-first"])} with
            `same-model-first`. It gains where the provider's other models are faster. Where
            several providers have the same models, and it matters to the callers which one
            answers, set `order = "same-model-first"`.
            """
        ),
        "memory": _prose(
            f"""
            Without a memory each request finds out by itself: in a minute's outage of one model
            {dead("model down", forgetful)} attempts go to the dead one instead of
            {dead("model down")}. Where it takes 4 s to fail, one request in twenty waits
            {late("slow errors", 0.95, forgetful)} or longer without a memory, and
            {late("slow errors", 0.95)} with one. What remains is who asked before the first of
            them had failed. A single quick failure of a candidate that nearly always answers is
            no reason to rest: with 5% strays {asked("strays")} of the answers come from the asked
            model, and {asked("strays", strict)} if every failure counts. The price of a memory is
            that a candidate which fails half the time rests for most of it, quick though its
            failures are: {asked("half broken")} by the asked model instead of
            {asked("half broken", forgetful)}, for {load("half broken"):.2f} attempts a request
            instead of {load("half broken", forgetful):.2f}.
            """
        ),
        "rests": _prose(
            f"""
            `rest_limit` decides how soon a provider is back in use. At 10 s the dead one sees
            {dead("quiet hours, crash")} attempts in a minute's outage (15 requests came, and what
            broke off was gone on from), and is back after {worst()} at worst; the promise is
            15 s, which leaves room for a request every 4 s to come along. At 5 s it sees
            {dead("quiet hours, crash", RESTS["1 s to 5 s"])}; at 60 s it stays away for up to
            {worst(RESTS["1 s to 60 s"])} longer than it has to. The first rest, `rest`, hardly
            matters in an outage: it is soon over. It matters for short failures: where gpt fails
            for a second every 15 s, {asked("blips", RESTS["0.5 s to 10 s"])},
            {asked("blips", RESTS["1 s to 10 s"])}, {asked("blips", RESTS["2 s to 10 s"])} and
            {asked("blips", RESTS["8 s to 10 s"])} of the answers come from it with a first rest
            of 0.5, 1, 2 and 8 s, for {dead("model down", RESTS["0.5 s to 10 s"])},
            {dead("model down", RESTS["1 s to 10 s"])}, {dead("model down", RESTS["2 s to 10 s"])}
            and {dead("model down", RESTS["8 s to 10 s"])} attempts at a model that is down for a
            minute.
            """
        ),
        "probes": _prose(
            f"""
            Whether somebody silent is back, one request finds out, and does not wait
            `first_token_timeout` for it: when the probe has said nothing for half as long again as
            it nearly always takes (5 s where that is not known yet), somebody well is asked beside
            it, and if that one speaks first, the probe has failed. Where a request comes every 4 s,
            one caller in five of a long silence is such a probe: one in twenty waits
            {late(quiet, 0.95)} or longer, and {late(quiet, 0.95, out)} where probes are waited out,
            for {load(quiet) - load(quiet, out):.2f} attempts a request more. As long as it lasts,
            probes are waited for ever longer, up to 5 s: what outran them is all that is known of
            the silent one, which may have become slower for good. Under load few callers are
            probes, and it hardly shows. What no race can spare is the first silence: whoever asked
            before it was over waits for all of it, which is the p99 of every silence here. Only its
            first model costs that much: a failure that took long is held against the provider's
            other models, too, until one of them has spoken.
            """
        ),
        "jitter": _prose(
            f"""
            Rests are up to 20% shorter by chance, so that gateways which saw the same outage do not
            come back together. Among 25 gateways the busiest half second of it has
            {fleet.busiest(15.0, 65.0)} probes with it, and {in_step.busiest(15.0, 65.0)} without:
            they saw the crash at the same moment, and their callers come so often that each of
            them probes as soon as it may.
            """
        ),
        "hedging": _prose(
            f"""
            Where 3% of the answers begin twelve times later than usual, a race brings the p99
            from {late("long tail", 0.99)} to {late("long tail", 0.99, race)}, for
            {load("long tail", race) - load("long tail"):.1%} more attempts. A budget of 2% gets
            no further than {late("long tail", 0.99, HEDGES["p95, 2%"])}; one of 20% gains next
            to nothing over 5% ({late("long tail", 0.99, HEDGES["p95, 20%"])}), as only one
            request in twenty is later than the p95. Racing at the median spends the budget on
            answers that were about to come ({late("long tail", 0.99, HEDGES["p50, 5%"])});
            waiting for the p99 is waiting for the tail itself
            ({late("long tail", 0.99, HEDGES["p99, 5%"])}). In a brown-out the budget keeps load
            where it was ({load("brown-out", race):.2f} attempts a request, without a limit
            {load("brown-out", HEDGES["p95, no limit"]):.2f}), and so cannot help much. It stays
            off by default: when nothing is wrong it gains nothing that a caller would notice
            ({late("calm", 0.99, race)} instead of {late("calm", 0.99)}), costs {calm.load - 1:.1%}
            more requests that somebody pays for, and gives {1 - calm.fidelity:.1%} of the callers
            another model than they asked for.
            """
        ),
        "attempts": _prose(
            f"""
            When everybody fails 60% of the time, 10 attempts answer
            {answered("everything shaky", 10)} of the requests, 5 answer
            {answered("everything shaky", 5)}, 3 answer {answered("everything shaky", 3)}; 20 gain
            little ({answered("everything shaky", 20)}), and no request makes more of them than it
            needs. When two of three providers are down, 3 are enough
            ({answered("two down", 3)}; the rest had begun when it happened, and could not be gone
            on from). Only where everybody is gone for seconds do more than 10 help
            ({answered("all down", 20)} instead of {answered("all down", 10)}): an answer that
            broke off asks three providers in turn to go on, again and again after ever longer
            pauses, and when they are back after 3 s it has one of its 10 attempts left, for one
            model, which may say something else this time. That is rare, callers ask again after
            it, and 20 attempts would be as many requests at providers that have no use for them.
            10 is the reference's number, too.
            """
        ),
    }


def _prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False) + "\n"
