"""The latest exchange of bytes with a provider that failed, in words for operators: addresses are
in them, secrets are not."""

import os
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from manyways.types import Provider

_LONGEST: Final = 300
"""Letters of what is said."""
_NO_SECRET: Final = 3
"""Keys and headers of so few letters are placeholders, and parts of ordinary words."""


class Failed(NamedTuple):
    """What failed: its outcome class, what was said of it, and when (Unix seconds)."""

    code: str
    words: str
    at: float

    @classmethod
    def now(cls, code: str, error: BaseException, secrets: Iterable[str]) -> Self:
        """In one line, without `secrets`, of which the longer ones come first."""
        letters = (letter if letter.isprintable() else " " for letter in _words(error))
        said = " ".join("".join(letters).split())
        for secret in secrets:
            said = said.replace(secret, "***")
        return cls(code, said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…", time.time())


def secrets_of(provider: Provider, keys: Iterable[str]) -> tuple[str, ...]:
    """What may prove to a provider who we are, the longest first: one may be part of another."""
    found = {*keys, *provider.headers.values()}
    for address in (provider.base_url, provider.models_url):
        parts = urlsplit(address)
        found |= {parts.username or "", parts.password or "", parts.query}
    return tuple(sorted((one for one in found if len(one) > _NO_SECRET), key=len, reverse=True))


def _words(error: BaseException) -> str:
    """What an error says, and what the system says behind it where it does not."""
    said, system = str(error), ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError | socket.gaierror):
            number = cause.errno or 0  # look-ups of names have theirs below zero
            system = os.strerror(number).lower() if number > 0 else system
        cause = cause.__cause__
    return said if system in said.lower() else f"{said} ({system})"
