"""The embedded model, verified for real at the first start: nobody has asked for it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, running_gateway

LIMIT = 150.0
EMBEDDED = '[catalog]\nprobe = true\nprobe_pause = "0s"\n'


def first_run(gateway: Gateway) -> dict[str, Any]:
    """The first verification, once it is over."""
    deadline = time.monotonic() + LIMIT
    while True:
        runs = gateway.ask("/admin/v1/catalog/refresh").json()["data"]
        if runs and runs[0]["status"] != "running":
            (run,) = runs
            return dict(run)
        assert time.monotonic() < deadline, gateway.log
        time.sleep(0.2)


def row_of(gateway: Gateway) -> dict[str, Any]:
    """The model's row, with what was found out: every process hears of it within a second."""
    deadline = time.monotonic() + 20
    while True:
        (row,) = gateway.ask("/v1/models", key=None).json()["data"]
        if row["last_verified"] is not None:
            return dict(row)
        assert time.monotonic() < deadline, gateway.log
        time.sleep(0.1)


@pytest.mark.process
@pytest.mark.model
def test_the_embedded_model_is_verified_at_the_first_start_and_what_is_told_is_true(
    tmp_path: Path,
) -> None:
    with running_gateway(tmp_path, EMBEDDED) as gateway:
        run = first_run(gateway)
        assert (run["reason"], run["status"]) == ("first start", "done")
        row = row_of(gateway)
        assert row["capabilities"] == ["json_schema", "streaming", "prefill"]
        assert row["status"] == "active"
        assert 0 < row["latency_ms"] < 10_000
        assert 0 <= row["quality_score"] <= 3, "it is a small one"

        page = gateway.ask("/admin/v1/catalog/verifications?provider=local").json()
        (told,) = page["data"]
        low, high = told["quality_interval"]
        assert low <= told["quality_score"] <= high
        assert (told["verdict"], told["flags"]) == ("passed", {})

        assert "is new" in gateway.command("models", "diff").stdout

        probed = gateway.command("models", "probe", row["id"], "--check", "tools", "--json")
        assert probed.returncode == 1, "it cannot call tools"
        (check,) = json.loads(probed.stdout)["checks"]
        assert check["verdict"] == "failed"
        assert check["answer"]
        assert check["prompt"]
