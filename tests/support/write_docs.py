"""`make docs`: writes the generated parts of the documentation anew.

The benchmark's page and plot come from `bench/results.json`; its table of ratios is copied into
both READMEs.
"""

import subprocess
import sys
from pathlib import Path

READMES = (Path("README.md"), Path("README.ru.md"))
PAGE = Path("docs/benchmark.md")
FIRST = "|  | nginx"


def table(text: str, after: str = "") -> list[str]:
    """The lines of the table that begins with the names of the peers, behind `after`."""
    start = text.index(FIRST, text.index(after))
    return text[start : text.index("\n\n", start)].splitlines()


def with_figures(old: str, measured: str) -> str:
    """A line with the figures of another: what is measured keeps its name, in any language."""
    return f"| {old.split('|')[1].strip()} |{measured.split('|', 2)[2]}"


def main() -> None:
    """Write the page, then both READMEs."""
    subprocess.run([sys.executable, "-m", "bench", "report"], check=True)
    ratios = table(PAGE.read_text(), "## In ratios")
    for readme in READMES:
        text = readme.read_text()
        head, rule, *rows = table(text)
        new = [with_figures(row, line) for row, line in zip(rows, ratios[2:], strict=True)]
        old_table = "\n".join((head, rule, *rows))
        readme.write_text(text.replace(old_table, "\n".join((head, rule, *new))))


if __name__ == "__main__":
    main()
