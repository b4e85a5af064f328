"""A folder with a configuration in it, to be loaded or refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from manyways.config import ConfigProblems, Settings, load

PROVIDER = '[[providers]]\nname = "A"\nprotocol = "openai"\nbase_url = "http://a.test/v1"\n'


class Folder:
    """A folder with a configuration file in it."""

    def __init__(self, path: Path) -> None:
        self.file = path / "manyways.toml"

    def load(self, text: str, environ: Mapping[str, str] | None = None) -> Settings:
        self.file.write_text(text, encoding="utf-8")
        return load(self.file, environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """What is wrong, a line each, the file's name left out."""
        with pytest.raises(ConfigProblems) as caught:
            self.load(text, environ)
        return str(caught.value).replace(f"{self.file}:", "").splitlines()
