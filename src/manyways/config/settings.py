"""Everything that can be set, in one frozen value composed of the stages' own."""

from msgspec import Struct

from manyways.access.keys import Settings as KeySettings
from manyways.access.settings import Settings as LimitSettings
from manyways.catalog.settings import Settings as CatalogSettings
from manyways.edge.settings import Settings as ServerSettings
from manyways.logs import Settings as LogSettings
from manyways.routing.settings import Settings as RoutingSettings
from manyways.store.database import Settings as DatabaseSettings
from manyways.types import Allowance, Provider
from manyways.upstream.settings import Settings as UpstreamSettings
from manyways.usage.settings import Settings as UsageSettings


class Cluster(Struct, frozen=True, kw_only=True):
    """The `[cluster]` section: where several processes meet. Empty: there is only one."""

    redis: str = ""


class Defaults(Struct, frozen=True, kw_only=True):
    """The `[defaults]` section: sampling parameters sent for callers who name none.

    `None` sends nothing and leaves the choice to the provider.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """The effective configuration: what was given, over the built-in defaults.

    `file` is the file it was read from, `None` where there is none. `origins` tells for each
    given setting (`server.port`) where it stands: `line 3`, `env:PORT` or the name of the
    variable that overrides it. `not_yet` says in words which given settings are accepted but
    steer nothing so far.
    """

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    cluster: Cluster = Cluster()
    usage: UsageSettings = UsageSettings()
    routing: RoutingSettings = RoutingSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    catalog: CatalogSettings = CatalogSettings()
    keys: KeySettings = KeySettings()
    accounts: Allowance = Allowance()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    defaults: Defaults = Defaults()
    providers: tuple[Provider, ...] = ()
    file: str | None = None
    origins: dict[str, str] = {}
    not_yet: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(provider.name for provider in self.providers)
        return f"<Settings from {self.file or 'built-in defaults'}, providers: {names}>"


SECTIONS: tuple[str, ...] = tuple(
    name for name in Settings.__struct_fields__ if name not in {"file", "origins", "not_yet"}
)
"""The top-level tables of the file, in the order they are documented and shown."""
