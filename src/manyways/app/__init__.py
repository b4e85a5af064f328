"""The composition root: settings in, a running gateway out."""

from manyways.app.server import CannotListen, listen, serve, url_of

__all__ = ["CannotListen", "listen", "serve", "url_of"]
