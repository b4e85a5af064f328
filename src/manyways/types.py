"""What two or more stages share: plain frozen values, no behaviour worth a test of its own.

Durations are seconds (float), sizes are bytes (int), moments are Unix seconds unless a
field says otherwise. `None` means "not known", never "zero".
"""

from typing import Literal

from msgspec import Struct

Category = Literal["text", "image", "audio", "video", "embedding"]
CATEGORIES: tuple[Category, ...] = ("text", "image", "audio", "video", "embedding")

Capability = Literal[
    "tools", "vision", "json_schema", "reasoning", "web_search", "streaming", "prefill"
]

Status = Literal["active", "degraded", "down"]


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[providers.models]]` table of the configuration. Only `id` is required."""

    id: str
    upstream_id: str | None = None
    category: Category | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[Capability, ...] | None = None
    modalities: tuple[str, ...] | None = None
    pricing: dict[str, float] | None = None


class Provider(Struct, frozen=True, kw_only=True):
    """Where answers come from: an ordinary provider is a row of data.

    `models` is `None` where the provider's own list is to be asked for; a given list is the
    whole list. `base_url` has no trailing slash, and is empty for `protocol = "local"`,
    whose address is known only once its child process listens. With `drain`, an answer that
    its caller has left is read to its end: the provider bills it anyway, and tells its usage.
    """

    name: str
    protocol: str
    base_url: str = ""
    api_keys: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    models: tuple[ModelEntry, ...] | None = None
    drain: bool = False

    def __repr__(self) -> str:
        """Without keys and headers: whatever is printed ends in a log."""
        return f"<Provider {self.name} {self.protocol} {self.base_url}>"


class Model(Struct, frozen=True, kw_only=True):
    """One model at one provider: a row of the catalog, and what routing chooses between.

    `id` is what callers say, `upstream_id` what the provider is asked for. `created` is Unix
    seconds. Measured values (`latency_ms`, `quality_score`, `last_verified`, `uptime_24h`)
    are `None` until they have been measured.
    """

    id: str
    provider: str
    upstream_id: str
    created: int
    category: Category = "text"
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    pricing: dict[str, float] | None = None
    status: Status = "active"
    latency_ms: int | None = None
    quality_score: float | None = None
    last_verified: str | None = None
    uptime_24h: float | None = None


class Needs(Struct, frozen=True, kw_only=True):
    """What a model must be able to do to serve a request.

    `capabilities` are of `tools`, `vision`, `json_schema`. `prompt_tokens` is a lower bound:
    the prompt is surely no shorter.
    """

    category: Category = "text"
    capabilities: tuple[Capability, ...] = ()
    prompt_tokens: int = 0


NO_NEEDS = Needs()


class Caller(Struct, frozen=True, kw_only=True):
    """Who is asking: what authentication found out about a key. Never holds the secret."""

    key_id: str
    key_type: str
    last4: str
