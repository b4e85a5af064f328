"""The questions that are asked, and how the answers are shown."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.simulate import scenarios
from bench.simulate.play import Counts, Scenario, Variant, play

Column = tuple[str, Callable[[Counts, Scenario], str]]


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


ANSWERED: Final[Column] = ("answered", lambda c, _: f"{c.success:.1%}")
P50: Final[Column] = ("p50, s", lambda c, _: _seconds(c.percentile(0.5)))
P95: Final[Column] = ("p95, s", lambda c, _: _seconds(c.percentile(0.95)))
P99: Final[Column] = ("p99, s", lambda c, _: _seconds(c.percentile(0.99)))
FIDELITY: Final[Column] = ("by the asked model", lambda c, _: f"{c.fidelity:.1%}")
LOAD: Final[Column] = ("attempts a request", lambda c, _: f"{c.load:.2f}")
LATE: Final[Column] = ("over 5 s", lambda c, _: f"{c.later_than(5.0):.1%}")
DEAD: Final[Column] = ("attempts at the dead, an outage", lambda c, s: f"{probes(c, s):.1f}")
BACK: Final[Column] = (
    "back after, s (mean, worst)",
    lambda c, _: f"{_seconds(_mean(c.back))}, {_seconds(max(c.back, default=math.nan))}",
)
BURST: Final[Column] = (
    "most probes in half a second",
    lambda c, _: str(c.busiest(15.0, 65.0)),
)


def probes(counts: Counts, scenario: Scenario) -> float:
    """Attempts at a provider that was down, by outage."""
    return len(counts.dead) / scenario.seeds


@dataclass(frozen=True, slots=True)
class Study:
    """One question: some settings in some scenarios."""

    title: str
    setting: str
    variants: Mapping[str, Variant]
    scenarios: Sequence[str]
    columns: Sequence[Column]


STUDIES: Final = {
    "orders": Study(
        "Orders",
        "`order`",
        scenarios.ORDERS,
        ("crash", "model down", "silence", "silent model", "half broken", "limited", "two down"),
        (ANSWERED, P50, P99, FIDELITY, LOAD),
    ),
    "memory": Study(
        "Memory",
        "memory",
        scenarios.MEMORIES,
        (
            "crash", "model down", "silence", "slow errors", "strays", "half broken", "limited",
            "equals, crash", "equals, brown-out",
        ),
        (ANSWERED, P95, P99, FIDELITY, LOAD, DEAD),
    ),
    "rests": Study(
        "Rests",
        "`rest` to `rest_limit`",
        scenarios.RESTS,
        ("quiet hours, crash", "quiet hours, silence", "model down", "blips", "half broken"),
        (P99, FIDELITY, LOAD, DEAD, BACK),
    ),
    "probes": Study(
        "Probes",
        "a silent probe is",
        scenarios.PROBES,
        (
            "silence", "silent model", "long silence", "slow errors", "quiet hours, silence",
            "quiet hours, long silence",
        ),
        (P50, P95, P99, LATE, LOAD, DEAD, BACK),
    ),
    "jitter": Study(
        "Jitter",
        "jitter",
        scenarios.JITTERS,
        ("fleet, crash",),
        (P99, LOAD, DEAD, BURST),
    ),
    "hedging": Study(
        "Hedging",
        "begins at, budget",
        scenarios.HEDGES,
        ("calm", "long tail", "brown-out", "silence", "silent model", "crash"),
        (P50, P95, P99, FIDELITY, LOAD),
    ),
    "attempts": Study(
        "Attempts",
        "`max_attempts`",
        scenarios.ATTEMPTS,
        ("everything shaky", "two down", "all down"),
        (ANSWERED, P50, P99, LOAD),
    ),
}  # fmt: skip


@dataclass(slots=True)
class Findings:
    """What came of every scenario in every setting; each pair is played once."""

    _known: dict[tuple[str, Variant], Counts] = field(default_factory=dict)

    def of(self, scenario: str, variant: Variant = scenarios.DEFAULT) -> Counts:
        """Played now, if it was not yet."""
        found = self._known.get((scenario, variant))
        if found is None:
            found = play(scenarios.SCENARIOS[scenario], variant)
            self._known[scenario, variant] = found
        return found


def table(study: Study, findings: Findings) -> Iterator[str]:
    """A Markdown table, one row for a scenario and a setting."""
    heads = ["scenario", study.setting, *(name for name, _ in study.columns)]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * 2}{'--:|' * len(study.columns)}"
    for name in study.scenarios:
        for i, (label, variant) in enumerate(study.variants.items()):
            counts = findings.of(name, variant)
            cells = [show(counts, scenarios.SCENARIOS[name]) for _, show in study.columns]
            shown = f"**{label}**" if variant == scenarios.DEFAULT else label
            yield f"| {'' if i else name} | {shown} | {' | '.join(cells)} |"
