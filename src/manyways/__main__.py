"""`manyways` and `python -m manyways`."""


def main() -> None:
    """Run the command line."""
    from manyways.cli import app, called, output

    with output.guarded():
        app(prog_name=called.program())


if __name__ == "__main__":
    main()
