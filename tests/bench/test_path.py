"""The requests that are taken apart within the process are real ones."""

import pytest
import uvloop

from bench import path


@pytest.mark.parametrize("work", path.WORKS)
def test_every_work_is_answered_and_tells_what_it_called(work: str) -> None:
    calls = [function.split()[0] for _, function in uvloop.run(path.calls(work))]
    answered = "Exchange.end" if path.WORKS[work].stream else "Exchange.answer"
    assert {"Edge.__call__", "Flow.chat", answered, "Journal.write"} <= set(calls)
    assert ("LocalLimits.admit" in calls) == (work == "limited")
