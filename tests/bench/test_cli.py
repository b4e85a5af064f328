"""The benchmark's command line refuses what it does not understand."""

import pytest
from bench.cli import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "manyways,apache"], "'apache' is none of nginx"),
        (["--work", "joy"], "'joy' is none of unary"),
        (["--seconds", "0"], "'0' is no number from 1 to 600"),
        (["--cores", "0,0"], "names no two of the cores"),
        (["dance"], "invalid choice"),
    ],
)
def test_misuse_is_status_2_with_the_reason(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help_names_every_gateway_and_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in (
        "tensorzero",
        "litellm",
        "unary",
        "paced",
        "profile",
        "accounts",
        '"bare": the least code',
        "bench/results.json",
    ):
        assert word in said
