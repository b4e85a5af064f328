"""Manyways: one API key, many ways to an answer."""

__version__ = "0.1.0"
