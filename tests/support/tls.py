"""A certificate authority for servers of tests, made anew in each run."""

import ssl
from functools import cached_property

import trustme


class Authority:
    """Signs a certificate for 127.0.0.1 and localhost, and vouches for it."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @cached_property
    def server(self) -> ssl.SSLContext:
        """For a server at 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context

    @cached_property
    def client(self) -> ssl.SSLContext:
        """For a client that trusts this authority, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context
