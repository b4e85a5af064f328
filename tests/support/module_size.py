"""A module over 600 lines fails the build: nobody decides to write one, it just happens."""

import statistics
import sys
from pathlib import Path

CAP = 600


def main() -> int:
    """Print the median and the largest; exit status 1 when one is over the cap."""
    sizes = {
        file: len(file.read_text().splitlines())
        for folder in ("src", "tests", "bench")
        for file in Path(folder).rglob("*.py")
        if "node_modules" not in file.parts and not any(part.startswith(".") for part in file.parts)
    }
    source = sorted(size for file, size in sizes.items() if file.parts[0] == "src" and size > 1)
    largest = max(source)
    print(
        f"modules: {len(source)}, median {statistics.median(source):.0f}, largest {largest} lines"
    )
    over = {file: size for file, size in sizes.items() if size > CAP}
    for file, size in over.items():
        print(f"{file}: {size} lines; the cap is {CAP}: divide it", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
