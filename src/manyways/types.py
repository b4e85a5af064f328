"""What two or more stages share: plain frozen values, no behaviour worth a test of its own.

Durations are seconds (float), sizes are bytes (int), moments are Unix seconds unless a
field says otherwise. `None` means "not known", never "zero".
"""

from typing import Final, Literal

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
    `models_url` is where its list of models is, where that is not below `base_url`. Without
    `probe`, its models are asked nothing unasked; `probe_pause` seconds lie between two
    requests that verify them, where it is not to be as everywhere. `proxy` and the files about
    TLS go before those of the section `[upstream]`.
    """

    name: str
    protocol: str
    base_url: str = ""
    api_keys: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    models: tuple[ModelEntry, ...] | None = None
    models_url: str = ""
    drain: bool = False
    probe: bool = True
    probe_pause: float | None = None
    proxy: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""

    def __repr__(self) -> str:
        """Without keys and headers: whatever is printed ends in a log."""
        return f"<Provider {self.name} {self.protocol} {self.base_url}>"


class Model(Struct, frozen=True, kw_only=True):
    """One model at one provider: a row of the catalog, and what routing chooses between.

    `id` is what callers say, `upstream_id` what the provider is asked for. `created` is Unix
    seconds. Measured values (`latency_ms`, `quality_score`, `last_verified`, `uptime_24h`)
    are `None` until they have been measured. `status` is what callers see of it now.
    `asked_last`: it failed its last verification, or its provider lists it no more, and nobody
    has had an answer of it since; so it is asked when nobody else is left.
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
    asked_last: bool = False


class Needs(Struct, frozen=True, kw_only=True):
    """What a model must be able to do to serve a request.

    `capabilities` are of `tools`, `vision`, `json_schema`. `prompt_tokens` is a lower bound:
    the prompt is surely no shorter.
    """

    category: Category = "text"
    capabilities: tuple[Capability, ...] = ()
    prompt_tokens: int = 0


NO_NEEDS = Needs()


Period = Literal["day", "month", "ever"]
"""What a quota is for: a calendar day or month, UTC, or all time."""


class Quota(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """So much in a period, each absent amount without limit. `cost` is in USD."""

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None
    per: Period = "ever"


class Allowance(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be used at most; what is absent is not limited.

    `requests` in any span of `window` seconds, `tokens` in any span of `tokens_window`,
    `concurrent` requests at once, and any number of quotas.
    """

    requests: int | None = None
    window: float | None = None
    tokens: int | None = None
    tokens_window: float | None = None
    concurrent: int | None = None
    quota: tuple[Quota, ...] = ()

    @property
    def limits(self) -> bool:
        """Whether anything is limited."""
        return bool(self.requests or self.tokens or self.concurrent or self.quota)

    @property
    def reach(self) -> float:
        """How far back it counts single requests, in seconds: its longest window."""
        return max(
            (self.window or 0.0) if self.requests else 0.0,
            (self.tokens_window or 0.0) if self.tokens else 0.0,
        )


class Scope(Struct, frozen=True, kw_only=True):
    """Who bears an allowance: a key with all that replaced it (`key:<first id>`), or an account
    (`account:<id>`). Equal scopes are counted together, on all nodes."""

    id: str
    allowance: Allowance


class Caller(Struct, frozen=True, kw_only=True):
    """Who is asking: what authentication found out about a key. Never holds the secret.

    `line` is the id of the first of the keys that replaced each other, this one among them.
    `scopes` are what its use is counted against: the key's own first, then its account's.
    Empty where nothing limits it.
    """

    key_id: str
    key_type: str
    last4: str
    line: str = ""
    account_id: str | None = None
    admin: bool = False
    scopes: tuple[Scope, ...] = ()


UsageSource = Literal["upstream", "estimated", "none"]


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """Tokens that one answer, or a part of it, came to. `cached_tokens` are a part of the prompt,
    `reasoning_tokens` of the completion. `upstream`: the provider's own figures."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    source: UsageSource = "none"

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NO_USAGE: Final = Usage()
