import pytest

from manyways.cli.models_progress import EVERY, telling, words
from manyways.operations.catalog import Progress


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress(status="running"), "waiting for its turn"),
        (Progress(status="running", models=1), "0 of 1 model"),
        (
            Progress(status="running", models=3400, done=1200, failed=3, cost=0.012),
            "1,200 of 3,400 models, 3 failed, $0.0120",
        ),
        (
            Progress(status="running", models=9, current=("C/a", "C/b")),
            "0 of 9 models; asking C/a, C/b",
        ),
        (
            Progress(status="running", models=9, current=("C/a", "C/b", "C/c", "C/d", "C/e")),
            "0 of 9 models; asking C/a, C/b, C/c and 2 more",
        ),
    ],
)
def test_how_far_it_is_in_words(progress: Progress, said: str) -> None:
    assert words(progress) == said


def test_off_a_terminal_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    with telling(lambda: now) as tell:
        tell(Progress(status="running", models=9))
        tell(Progress(status="running", models=9, done=1))  # too soon
        now += EVERY
        tell(Progress(status="running", models=9, done=2))
        now += EVERY
        tell(Progress(status="running", models=9, done=2))  # nothing new
        tell(Progress(status="done", models=9, done=9))  # the end is told at once
    told = capsys.readouterr()

    assert told.out == ""
    assert told.err.splitlines() == ["0 of 9 models", "2 of 9 models", "9 of 9 models"]
