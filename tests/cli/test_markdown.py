"""Markdown on a terminal while it grows."""

import io
from collections.abc import Iterable

import pytest
from rich.console import Console
from rich.markdown import Markdown

from manyways.cli.markdown import LiveMarkdown, blocks, printable, settled

TEXT = """# Title

A paragraph
of two lines.

1. one

2. two
   more of two

   - inner

Setext
------

| a | b |
|---|---|
| 1 | 2 |

```python
x = 1

y = 2
```
> quoted

last"""


def parsed(text: str) -> list[str]:
    """The top-level blocks, each as its tokens are."""
    found: list[str] = []
    for token in Markdown(text).parsed:
        if token.level == 0 and token.nesting >= 0:
            found.append("")
        found[-1] += f"{token.type} {token.content}\n"
    return found


@pytest.mark.parametrize("size", range(len(TEXT) + 1))
def test_what_is_settled_is_never_changed_by_what_follows(size: int) -> None:
    over = parsed(TEXT[: settled(TEXT[:size])])

    assert parsed(TEXT)[: len(over)] == over


def test_all_blocks_but_the_last_are_settled_once_their_lines_are_whole() -> None:
    assert TEXT[settled(TEXT + "\n") :] == "last"


@pytest.mark.parametrize("text", ["", "\n", "one", "one\n\n", TEXT, TEXT + "\n", "\n\n" + TEXT])
def test_the_blocks_of_a_text_are_the_text(text: str) -> None:
    assert "".join(blocks(text)) == text


def test_everything_fed_is_printed_once_however_it_comes() -> None:
    def drawn(pieces: Iterable[str]) -> str:
        out = io.StringIO()
        with LiveMarkdown(Console(file=out, width=80), "waiting") as shown:
            for piece in pieces:
                shown.feed(piece)
                shown.frame()
        return out.getvalue()

    assert drawn(TEXT) == drawn([TEXT])
    assert "last\n" in drawn(TEXT)


def test_control_characters_are_taken_out() -> None:
    assert printable("a\x1b[31mb\x9b\x00\x7f\r\n\tü") == "a[31mb\n\tü"
