"""The composition root: settings in, a running gateway out."""

from manyways.app.gateway import Worker
from manyways.app.server import CannotListen, listen, serve, url_of

__all__ = ["CannotListen", "Worker", "listen", "serve", "url_of"]
