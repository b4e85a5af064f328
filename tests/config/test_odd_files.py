"""However odd the file: problems, no traceback."""

from pathlib import Path

import pytest

from manyways.config import load
from manyways.errors import ConfigError

from .folder import PROVIDER, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class TestWhatNobodyWouldWrite:
    """However odd the file: problems, no traceback."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a = " + "[" * 2000 + "]" * 2000, "nested too deeply"),
            ("a = " + "{a=" * 2000 + "1" + "}" * 2000, "nested too deeply"),
            ("server.port = " + "9" * 5000, "a number in it that is far too long"),
            ("server.port = 0x" + "f" * 5000, "server.port must be between 0 and 65535"),
            ("server.drain = " + "9" * 400, "not a number that is far too large"),
            ("server.drain = 0x" + "f" * 5000, "not a number that is far too large"),
            ("server.drain = inf", "not the number inf"),
            ("server.drain = nan", "not the number nan"),
            ('server.drain = "' + "9" * 400 + 's"', "server.drain must be between 0s and 1d"),
            ('server.max_body = "' + "9" * 400 + 'MB"', "server.max_body should be"),
            ('server.host = "127.0.0.1\\u0000"', "server.host should be"),
            ('database.url = "sqlite://:memory:"', "a database in memory"),
            ('database.url = "sqlite:///a?mode=ro"', "takes a path and nothing more"),
            ('database.url = "sqlite://a.db"', "too few slashes"),
            (PROVIDER.replace("a.test", "a.test\\u0007"), "should be an address like"),
            (PROVIDER.replace("a.test", "a.test\\u200b"), "should be an address like"),
            (
                PROVIDER + '[[providers.models]]\nid = "m"\npricing = { prompt = -1e-6 }',
                "0 or more",
            ),
        ],
    )
    def test_it_is_told(self, folder: Folder, text: str, words: str) -> None:
        (problem,) = folder.problems(text)
        assert words in problem
        assert len(problem) < 400

    @pytest.mark.parametrize("depth", [50, 100, 150, 200, 250, 300, 400])
    def test_no_depth_is_too_much_for_what_comes_after_the_parser(
        self, folder: Folder, depth: int
    ) -> None:
        (problem,) = folder.problems("odd = " + "[" * depth + "]" * depth)
        assert "is not a section" in problem or "nested too deeply" in problem

    def test_a_link_that_leads_nowhere_is_not_the_same_as_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("manyways.toml").symlink_to("gone.toml")
        with pytest.raises(ConfigError, match=r"manyways\.toml: is a link to a file"):
            load(environ={})

    def test_a_variable_that_misspells_a_name_of_ours_is_named(self, folder: Folder) -> None:
        variable = "MANYWAYS__KEYS__TYPES__ADMN__REQUESTS"
        (problem,) = folder.problems("", {variable: "5"})
        assert problem.startswith(f"{variable}: keys.types.admn has requests without window")
