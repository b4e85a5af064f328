"""llm-comply, an independent conformance suite, in front of a provider that can satisfy it."""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway

pytestmark = pytest.mark.process

CASES = (
    "chat-basic-response",
    "chat-system-prompt",
    "chat-multi-turn",
    "chat-tool-calling",
    "chat-streaming-response",
    "chat-streaming-usage",
    "chat-image-input",
    "chat-reasoning-summary",
    "chat-error-handling",
)

SKIPPED = {
    "gpt-4o": {
        "chat-reasoning-summary": "the suite asks it only of models whose names promise reasoning",
    },
    "o3-scripted": {},
}
"""By model: which cases are not run, and why. The second model's name makes it run them all."""


def comply(gateway: Gateway, mount: str, model: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and each case's result by its id."""
    ran = subprocess.run(
        [
            str(Path(sysconfig.get_path("scripts")) / "llm-comply"),
            *("--format", "openai-chat", "-u", gateway.root + mount),
            *("-k", gateway.key, "-m", model, "--json", "--timeout", "20"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    start = ran.stdout.find("{")
    assert start >= 0, ran.stderr
    results = json.loads(ran.stdout[start:])["results"]
    return ran.returncode, {result["id"]: result for result in results}


@pytest.mark.parametrize("mount", ["/v1", "/webhook/v1"])
@pytest.mark.parametrize("model", list(SKIPPED))
def test_every_case_passes_without_a_warning(gateway: Gateway, mount: str, model: str) -> None:
    status, results = comply(gateway, mount, model)
    assert status == 0
    assert tuple(results) == CASES
    outcome = {name: result["status"] for name, result in results.items()}
    assert outcome == {name: "skipped" if name in SKIPPED[model] else "passed" for name in CASES}
    assert {name: r["warnings"] for name, r in results.items() if r.get("warnings")} == {}
