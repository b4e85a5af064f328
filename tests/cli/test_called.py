"""A line that is shown to be copied works where it is pasted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manyways.cli import called

SCRIPT = f"#!{sys.executable}\nfrom manyways.__main__ import main\nmain()\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program as `make install` puts it: into a folder that no shell looks through."""
    script = tmp_path / "its own.venv" / "bin" / "manyways"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT)
    script.chmod(0o755)
    return script


def shell(folder: Path, line: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """A line in a shell that finds what is in `path`, and else no program of ours."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env={"PATH": f"{path}:/usr/bin:/bin" if path else "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_that_is_suggested_can_be_pasted(tmp_path: Path, program: Path) -> None:
    (tmp_path / "a b.toml").write_text('[database]\nurl = "sqlite:///other.db"\n')
    command = "'its own.venv/bin/manyways' keys list --config 'a b.toml'"
    _, _, suggested = shell(tmp_path, command).stderr.strip().partition("Make one: ")
    assert suggested == ("'its own.venv/bin/manyways' keys create --type full --config 'a b.toml'")
    made = shell(tmp_path, suggested)
    assert made.returncode == 0
    assert made.stdout.startswith("rvf_")
    assert shell(tmp_path, command).stdout.count("full") == 1


def test_it_is_a_bare_name_where_the_shell_finds_it(tmp_path: Path, program: Path) -> None:
    told = shell(tmp_path, "manyways keys list", str(program.parent)).stderr
    assert told.strip().endswith("Make one: manyways keys create --type full")
    misused = shell(tmp_path, "manyways keys lst", str(program.parent)).stderr
    assert "Try 'manyways keys -h' for help." in misused


def test_as_a_module_it_is_called_with_its_own_python(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m manyways keys list"
    _, _, suggested = shell(tmp_path, command).stderr.strip().partition("Make one: ")
    assert suggested.endswith(" -m manyways keys create --type full")
    assert shell(tmp_path, suggested).stdout.startswith("rvf_")


@pytest.mark.parametrize(
    ("argv0", "told"),
    [("here/manyways", "./manyways"), ("there/manyways", "../there/manyways"), ("x", "manyways")],
)
def test_the_shorter_path_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv0: str, told: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / argv0)])
    assert called.program() == told
