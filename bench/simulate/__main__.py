"""`python -m bench.simulate`, the same as `python -m bench simulate`."""

from bench.cli import main

if __name__ == "__main__":
    main(["simulate"])
