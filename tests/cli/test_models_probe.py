"""What `manyways models probe` shows of what a model says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manyways.catalog.verified import Check
from manyways.cli.models_probe import conclusions, show
from manyways.types import Usage
from tests.cli.listing import on_terminal
from tests.support.gateway import run_command

ANSWERS = Check(
    name="answers",
    verdict="passed",
    prompt="Say ready.",
    answer="ready",
    ms=1250,
    usage=Usage(prompt_tokens=12, completion_tokens=3, source="upstream"),
)
STREAMING = Check(name="streaming", verdict="passed", ms=900, first_token_ms=210)
TOOLS = Check(
    name="tools",
    verdict="failed",
    reason="it answered in prose",
    prompt="What is the weather in Riga?\nUse the tool.",
    answer="\x1b[2JSunny, [bold]I think[/bold].",
    ms=700,
)
SEARCH = Check(name="web_search", verdict="unsure", reason="HTTP 429")


async def told(*checks: Check) -> AsyncIterator[Check]:
    for one in checks:
        yield one


async def test_each_check_is_a_line_with_all_that_was_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: list[Check] = []
    await show(told(ANSWERS, TOOLS), made, silent=False)

    assert made == [ANSWERS, TOOLS]
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == [
        ["check", "verdict", "ms", "tokens", "reason", "prompt", "answer"],
        ["answers", "passed", "1250", "15", "", "Say ready.", "ready"],
        [
            "tools", "failed", "700", "", "it answered in prose",
            "What is the weather in Riga? Use the tool.",
            "[2JSunny, [bold]I think[/bold].",
        ],
    ]  # fmt: skip


async def test_what_becomes_json_is_not_shown_before(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[Check] = []
    await show(told(ANSWERS), made, silent=True)

    assert made == [ANSWERS]
    assert capsys.readouterr().out == ""


async def test_on_a_terminal_one_reads_question_answer_and_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch, 60)
    await show(told(ANSWERS, STREAMING, TOOLS, SEARCH), [], silent=False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]

    assert lines[-11:] == [
        "✓ answers 1.2 s, 12 + 3 tokens",
        "  asked Say ready.",
        "  said  ready",
        "✓ streaming 900 ms, first token 210 ms",
        "✗ tools 700 ms",
        "  failed: it answered in prose",
        "  asked What is the weather in Riga?",
        "        Use the tool.",
        "  said   [2JSunny, [bold]I think[/bold].",
        "? web_search",
        "  unsure: HTTP 429",
    ]


async def test_a_long_answer_is_cut_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch, 60)
    poem = Check(name="answers", verdict="passed", answer="\n".join(map(str, range(40))))
    await show(told(poem), [], silent=False)
    shown = capsys.readouterr().out

    assert "        11\n" in shown
    assert "        12\n" not in shown
    assert "and 28 more lines" in shown


def test_what_follows_is_what_it_can_and_what_it_cannot() -> None:
    assert conclusions([ANSWERS, STREAMING, TOOLS, SEARCH]) == {
        "proven": ["streaming"],
        "withdrawn": {"tools": "it answered in prose"},
        "latency_ms": 210,
    }


def test_without_a_stream_one_waits_for_the_whole_answer() -> None:
    assert conclusions([ANSWERS, TOOLS])["latency_ms"] == 1250
    assert conclusions([TOOLS])["latency_ms"] is None


def test_a_name_that_is_not_there_gets_the_command_that_lists_names_and_no_heading(
    tmp_path: Path,
) -> None:
    done = run_command(tmp_path, "models", "probe", "nope")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("There is no model 'nope'. These there are: ")
    assert done.stderr.endswith(" manyways models list --status all\n")


def test_a_provider_that_is_down_leaves_it_unsure_without_lines_of_a_log(
    tmp_path: Path, closed_port: int
) -> None:
    away = f'protocol = "openai"\nbase_url = "http://127.0.0.1:{closed_port}/v1"\n'
    (tmp_path / "manyways.toml").write_text(
        f'[[providers]]\nname = "Capi"\n{away}[[providers.models]]\nid = "gpt-4o"\n'
        f'[[providers]]\nname = "Ollama"\n{away}'
    )
    done = run_command(tmp_path, "models", "probe", "Capi/gpt-4o", "--check", "tools")

    heading, told = (line.split("\t") for line in done.stdout.splitlines())
    assert (told[0], told[1], told[heading.index("reason")]) == (
        "tools", "unsure", "cannot be reached",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "Checks: 1 unsure.\n")

    missing = run_command(tmp_path, "models", "probe", "Ollama/qwen3")
    assert missing.returncode == 1
    assert missing.stderr.startswith("There is no model 'Ollama/qwen3'. ")
    assert missing.stderr.endswith(
        "Ollama could not be asked for models, and may have it: `manyways doctor` says why.\n"
    )
