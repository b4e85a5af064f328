"""The command line: one file a noun. Nothing heavy is imported before it is needed."""

from manyways.cli.main import app

__all__ = ["app"]
