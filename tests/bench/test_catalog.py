"""The benchmark of the catalog asks for what there is, and says when a goal is missed."""

import pytest
from bench.comparison import Comparison
from rich.console import Console

from bench import catalog
from manyways.catalog.discovery import parse


def test_the_providers_tell_every_model_that_is_asked_for() -> None:
    asked = [model_id for number in range(catalog.PROVIDERS) for model_id in catalog._ids(number)]
    told = [
        model.id for number in range(catalog.PROVIDERS) for model in parse(catalog._told(number))
    ]
    assert told == asked
    assert len(set(asked)) == catalog.MODELS


@pytest.mark.parametrize(
    ("unchanged", "whole", "verdicts"),
    [
        (20_000.0, 250.0, ["met", "met"]),
        (19_000.0, 250.0, ["missed", "met"]),
        (20_000.0, 240.0, ["met", "missed"]),
    ],
)
def test_a_goal_is_met_or_missed_and_what_was_not_measured_is_neither(
    unchanged: float, whole: float, verdicts: list[str]
) -> None:
    compared = Comparison(catalog._METRICS)
    compared.keep(catalog.NGINX, {"unchanged": 90_000.0, "whole": 1000.0})
    compared.keep(catalog.OURS, {"unchanged": unchanged, "whole": whole})
    console = Console(width=140)
    with console.capture() as captured:
        console.print(catalog._goals(compared))
    words = [word for word in captured.get().split() if word in ("met", "missed")]
    assert words == verdicts
