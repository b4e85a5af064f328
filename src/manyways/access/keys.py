"""Keys: their shape, their types, and who a presented secret belongs to."""

from msgspec import Struct


class KeyType(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[keys.types.NAME]` table. Durations in seconds; an absent limit is no limit."""

    requests: int | None = None
    window: float | None = None
    lifetime: float | None = None
    tokens: int | None = None
    tokens_window: float | None = None
    concurrent: int | None = None
    quota: int | None = None
    admin: bool = False


class Settings(Struct, frozen=True, kw_only=True):
    """The `[keys]` section: `length` counts the prefix too."""

    prefix: str = "rvf_"
    length: int = 75
    types: dict[str, KeyType] = {
        "test": KeyType(requests=30, window=3600.0, lifetime=3600.0),
        "full": KeyType(requests=30, window=60.0, lifetime=30 * 86400.0),
        "admin": KeyType(admin=True),
    }
