"""`manyways` and `python -m manyways`."""


def main() -> None:
    """Run the command line."""
    from manyways.cli import app, output

    with output.guarded():
        app()


if __name__ == "__main__":
    main()
