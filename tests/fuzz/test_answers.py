"""The fuzzing of `answers.py`, briefly: each of its inputs keeps every promise.

FUZZ=1000000 makes it long (it counts in tens of thousands). The bytes are others each time; those
that break a promise are written to the folder that the failure names, to be run again with
`python -m tests.fuzz.answers FILE`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="there is no wheel of atheris for this Python")

RUNS = max(20_000, int(os.environ.get("FUZZ") or 0))
HERE = Path(__file__).parent


def test_whatever_a_provider_sends_no_promise_is_broken_and_nothing_grows(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.answers",
            f"-runs={RUNS}",
            "-max_len=4096",
            f"-dict={HERE / 'http.dict'}",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=60 + RUNS / 1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    growth = re.findall(r" inputs.*grown by (-?[\d.]+) MiB", done.stderr)
    assert len(growth) >= RUNS // 10_000, done.stderr[-4000:]
    assert float(growth[-1]) < 8.0
