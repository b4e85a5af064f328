"""The page on configuration tells of every setting, its true default, and examples that work."""

import re
import tomllib
from pathlib import Path

import pytest

from manyways.access.keys import KeyType
from manyways.config import Settings, load, show
from manyways.config.settings import SECTIONS
from manyways.types import ModelEntry, Provider

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
SNIPPETS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def rows(heading: str) -> dict[str, str]:
    """The keys of the table after `heading`, each with its default as written there."""
    _, _, rest = PAGE.partition(f"\n{heading}\n")
    table = re.search(r"\n\| key .*?\n\n", f"{rest}\n\n", re.DOTALL)
    assert table is not None
    cells = (re.split(r"(?<!\\)\|", line) for line in table.group().splitlines()[3:] if line)
    return {one[1].strip(" `"): one[3].strip() for one in cells}


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "providers"])
def test_every_setting_is_documented_with_its_default(section: str) -> None:
    documented = rows(f"## `[{section}]`")
    settings = getattr(Settings(), section)
    in_effect = tomllib.loads(show(Settings()))[section]

    assert set(documented) == set(settings.__struct_fields__)
    for key, default in documented.items():
        if isinstance(in_effect.get(key), dict):
            assert re.findall("`(.*?)`", default) == list(in_effect[key])
        elif key in in_effect:
            assert tomllib.loads(f"it = {default.strip('`')}") == {"it": in_effect[key]}
        else:
            assert default == "not set"


def test_every_key_of_a_key_type_is_documented() -> None:
    documented = rows("built-in one.")

    assert set(documented) == set(KeyType.__struct_fields__)


def test_every_key_of_a_provider_and_a_model_is_documented() -> None:
    names = {field.replace("api_keys", "api_key") for field in Provider.__struct_fields__}

    assert set(rows("## `[[providers]]`")) == names
    assert set(rows("Each `[[providers.models]]`:")) == set(ModelEntry.__struct_fields__)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_every_documented_example_loads(snippet: str, tmp_path: Path) -> None:
    file = tmp_path / "manyways.toml"
    file.write_text(snippet, encoding="utf-8")
    variables = dict.fromkeys(re.findall(r'"env:(\w+)"', snippet), "1234")

    assert load(file, variables).file == str(file)


def test_there_are_examples() -> None:
    assert [file.name for file in EXAMPLES] == ["rvfreellm.toml", "viberouter.toml"]
    assert len(SNIPPETS) >= 8


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_file_starts_without_an_environment(file: Path) -> None:
    settings = load(file, {})

    assert settings.providers


def test_the_commented_lines_of_examples_are_right_too(tmp_path: Path) -> None:
    for example in EXAMPLES:
        text = re.sub(
            r"^# (api_key = )", r"\1", example.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        file = tmp_path / example.name
        file.write_text(text, encoding="utf-8")
        variables = dict.fromkeys(re.findall(r'"env:(\w+)"', text), "1234")

        assert any(provider.api_keys for provider in load(file, variables).providers)
