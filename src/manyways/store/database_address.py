"""What a `database.url` names. Known without importing SQLAlchemy, and without a connection."""

from pathlib import Path

from msgspec import Struct

from manyways.errors import ConfigError, StoreError


class PostgresAddress(Struct, frozen=True):
    """A PostgreSQL database: `parameters` are libpq's, the password among them; `name` is for
    messages, and without it: `manyways at db.example.com:5432`."""

    name: str
    parameters: dict[str, str]

    def __repr__(self) -> str:
        return f"<PostgresAddress {self.name}>"


def is_postgres(url: str) -> bool:
    """Whether it names PostgreSQL, well or badly."""
    return url.partition("://")[0].partition("+")[0] in ("postgresql", "postgres")


def sqlite_path(url: str) -> Path:
    """The absolute path of the file that a `database.url` names, links followed.

    Raises `ConfigError` for whatever else the URL asks for, without repeating passwords, and
    `StoreError` where the links lead nowhere.
    """
    scheme, separator, rest = url.partition("://")
    if is_postgres(url):
        raise ConfigError("database.url names PostgreSQL, where an SQLite file is asked for.")
    if scheme != "sqlite" or not separator:
        raise ConfigError(
            "database.url is not an address this program knows. Write sqlite:///manyways.db for "
            "a file beside you, sqlite:////var/lib/manyways/manyways.db for an absolute path, or "
            "postgresql://user:password@host/name."
        )
    if rest in ("", "/", "/:memory:", ":memory:"):
        raise ConfigError(
            "database.url names a database in memory, which would forget every key at the next "
            "start. Name a file: sqlite:///manyways.db"
        )
    if not rest.startswith("/"):
        raise ConfigError(
            f"database.url has too few slashes: sqlite:///{rest} is a relative path, "
            f"sqlite:////{rest} an absolute one."
        )
    if "?" in rest or "\0" in rest:
        raise ConfigError("database.url takes a path and nothing more: sqlite:///manyways.db")
    try:
        return Path(rest[1:]).resolve()
    except (OSError, RuntimeError) as error:  # which of the two, depends on Python
        raise StoreError(
            "database.url names a path whose links lead in a circle. Choose another."
        ) from error


def postgres_address(url: str) -> PostgresAddress:
    """What a `postgresql://user:password@host:port/name?option=value` says.

    All of libpq's form is understood: several hosts, sockets, its options
    (https://www.postgresql.org/docs/current/libpq-connect.html). Raises `ConfigError`, which
    repeats nothing of what could be a password.
    """
    try:
        from psycopg import Error
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigError(
            "database.url names PostgreSQL, and the package for it cannot be loaded. Install it: "
            'pip install "psycopg[binary]"'
        ) from error
    scheme, _, rest = url.partition("://")
    if "+" in scheme:
        raise ConfigError("database.url begins with postgresql://, and names no driver.")
    authority, _, behind = rest.partition("/")
    try:
        # libpq takes a stray @ for a part of the host or the name, which are told in messages.
        if authority.count("@") > 1 or "@" in behind or "\0" in url:
            raise ValueError
        found = conninfo_to_dict(f"postgresql://{rest}")
        parameters = {name: str(value) for name, value in found.items()}
        ports = [int(port or 5432) for port in parameters.get("port", "").split(",")]
    except (Error, ValueError):
        raise ConfigError(
            "database.url is not an address of PostgreSQL: write postgresql://user:password@"
            "host:5432/name. In the password, the letters @ : / ? # % are written %40 %3A %2F "
            "%3F %23 %25, and a blank %20; behind a question mark stand options of libpq, like "
            "sslmode=require."
        ) from None
    if not parameters.get("dbname"):
        raise ConfigError("database.url names no database: postgresql://user:password@host/name")
    hosts = (parameters.get("host") or parameters.get("hostaddr") or "localhost").split(",")
    if len(ports) < len(hosts):
        ports *= len(hosts)
    places = ", ".join(map(_place, hosts, ports))
    return PostgresAddress(f"{parameters['dbname']} at {places}", parameters)


def checked(url: str) -> None:
    """Raises `ConfigError` or `StoreError` for a `database.url` that cannot be used."""
    if is_postgres(url):
        postgres_address(url)
    else:
        sqlite_path(url)


def _place(host: str, port: int) -> str:
    if host.startswith("/"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
