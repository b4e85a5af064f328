"""A certificate authority for servers of tests, made anew in each run."""

import datetime as dt
import ssl
from functools import cached_property
from pathlib import Path

import trustme


class Authority:
    """Signs certificates, for 127.0.0.1 and localhost above all, and vouches for them."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @cached_property
    def server(self) -> ssl.SSLContext:
        """For a server at 127.0.0.1."""
        return self._server("127.0.0.1", "localhost")

    @cached_property
    def elsewhere(self) -> ssl.SSLContext:
        """For a server at another name."""
        return self._server("elsewhere.test")

    @cached_property
    def expired(self) -> ssl.SSLContext:
        """For a server at 127.0.0.1 whose certificate was good until yesterday."""
        ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        return self._server("127.0.0.1", not_after=ended)

    @cached_property
    def mutual(self) -> ssl.SSLContext:
        """For a server at 127.0.0.1 that wants a certificate of its clients, too."""
        context = self._server("127.0.0.1")
        context.verify_mode = ssl.CERT_REQUIRED
        self._authority.configure_trust(context)
        return context

    @cached_property
    def client(self) -> ssl.SSLContext:
        """For a client that trusts this authority, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context

    @cached_property
    def known_client(self) -> ssl.SSLContext:
        """For a client that has a certificate to show, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        self._authority.issue_cert("client@example.com").configure_cert(context)
        return context

    def write(self, folder: Path, name: str = "client") -> tuple[Path, Path, Path]:
        """Files in PEM form: the authority's certificate, a client's, and that one's key."""
        issued = self._authority.issue_cert(f"{name}@example.com")
        files = (folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        self._authority.cert_pem.write_to_path(str(files[0]))
        issued.cert_chain_pems[0].write_to_path(str(files[1]))
        issued.private_key_pem.write_to_path(str(files[2]))
        return files

    def _server(self, *names: str, not_after: dt.datetime | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names, not_after=not_after).configure_cert(context)
        return context
