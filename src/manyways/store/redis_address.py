"""Where Redis or Valkey is, as one address says it.

    redis://user:password@host:6379/0            one server
    redis+cluster://host:6379,host2:6379         a cluster: any of its servers
    redis+sentinel://host:26379,host2:26379/name the Sentinels that watch the master called `name`

`rediss` in place of `redis` means TLS. User and password are optional, and percent-encoded.
"""

import re
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

from msgspec import Struct

Kind = Literal["single", "cluster", "sentinel"]

_FORM: Final = re.compile(
    r"(?P<scheme>rediss?)(?:\+(?P<kind>cluster|sentinel))?://"
    r"(?:(?P<user>[^@/]*)@)?(?P<hosts>[^/@?#]+)(?:/(?P<path>[^/?#]*))?"
)
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::(?P<port>\d{1,5}))?")


class Server(NamedTuple):
    """One server's own address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(Struct, frozen=True, kw_only=True):
    """`servers` are where to begin: the server itself, some of a cluster, or the Sentinels.
    `name` is what Sentinels call the master."""

    kind: Kind
    servers: tuple[Server, ...]
    tls: bool = False
    user: str = ""
    password: str = ""
    db: int = 0
    name: str = ""

    def __repr__(self) -> str:
        """Without the password: whatever is printed ends in a log."""
        return f"<Address {self}>"

    def __str__(self) -> str:
        """As it is written, without user and password."""
        scheme = "rediss" if self.tls else "redis"
        kind = "" if self.kind == "single" else f"+{self.kind}"
        path = {"single": f"/{self.db}", "cluster": "", "sentinel": f"/{self.name}"}[self.kind]
        return f"{scheme}{kind}://{','.join(map(str, self.servers))}{path}"


def parse(url: str) -> Address:
    """What an address says. Raises `ValueError` with words that follow a setting's name."""
    form = _FORM.fullmatch(url)
    if form is None:
        raise ValueError(
            'should be "redis://host:6379/0" (or rediss://, redis+cluster://, redis+sentinel://),'
            " or empty"
        )
    kind: Kind = "single"
    if form["kind"]:
        kind = "cluster" if form["kind"] == "cluster" else "sentinel"
    usual = 26379 if kind == "sentinel" else 6379
    servers = tuple(_server(one, usual) for one in form["hosts"].split(","))
    user, colon, password = (form["user"] or "").partition(":")
    path = form["path"] or ""
    if kind == "single" and len(servers) > 1:
        raise ValueError("names several servers: say redis+cluster:// or redis+sentinel://")
    if kind == "sentinel" and not path:
        raise ValueError("does not say what Sentinel calls the master: .../name")
    if kind == "cluster" and path not in {"", "0"}:
        raise ValueError("names a database: a cluster has no other than 0")
    if kind == "single" and not re.fullmatch(r"\d{0,5}", path):
        raise ValueError('should end in the number of a database, like "/0"')
    if form["user"] and not colon:
        raise ValueError('should say ":password@" or "user:password@" before the host')
    return Address(
        kind=kind,
        servers=servers,
        tls=form["scheme"] == "rediss",
        user=unquote(user),
        password=unquote(password),
        db=int(path or 0) if kind == "single" else 0,
        name=unquote(path) if kind == "sentinel" else "",
    )


def _server(text: str, port: int) -> Server:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError(f'has a host that cannot be read: "{text}"')
    number = int(found["port"] or port)
    if not 0 < number < 65536:
        raise ValueError(f"has a port that is none: {number}")
    return Server(found["host"].strip("[]"), number)
