"""What may well be meant otherwise, though it can be used as it stands."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from manyways.config.document import dotted
from manyways.config.positions import Path
from manyways.config.quantities import write_seconds
from manyways.config.settings import Settings
from manyways.types import NO_USAGE, Allowance
from manyways.usage.pricing import cost

_ENDPOINTS: Final = ("/chat/completions", "/models")
_SHOWN: Final = 5

_Doubts = Iterator[tuple[Path, str]]


def doubts(settings: Settings) -> tuple[str, ...]:
    """What deserves a look, a sentence each; none of them holds a secret."""

    def said(path: Path, sentence: str) -> str:
        origin = settings.origins.get(dotted(path))
        return f"{dotted(path)}{f' ({origin})' if origin else ''} {sentence}"

    found = (
        *_of_times(settings),
        *_of_upstream(settings),
        *_of_quotas(settings),
        *_of_providers(settings),
    )
    return tuple(said(path, sentence) for path, sentence in found)


def _of_times(settings: Settings) -> _Doubts:
    deadline = settings.routing.deadline
    for limit in ("first_token_timeout", "answer_timeout"):
        if (seconds := getattr(settings.routing, limit)) > deadline:
            yield (
                ("routing", limit),
                (
                    f"is {write_seconds(seconds)}, but routing.deadline ends everything after"
                    f" {write_seconds(deadline)}"
                ),
            )


def _of_upstream(settings: Settings) -> _Doubts:
    if settings.upstream.transport == "aiohttp":
        for key in ("max_age", "dns_ttl"):
            if f"upstream.{key}" in settings.origins:
                yield ("upstream", key), 'has no effect with upstream.transport = "aiohttp"'


def _of_quotas(settings: Settings) -> _Doubts:
    bearers: dict[Path, Allowance] = {
        ("keys", "types", name): kind for name, kind in settings.keys.types.items()
    }
    bearers["accounts",] = settings.accounts
    unpriced = _unpriced(settings)
    for path, bearer in bearers.items():
        for index, quota in enumerate(bearer.quota):
            if quota.cost and unpriced:
                yield (
                    (*path, "quota", index, "cost"),
                    f"counts what has a price. Models without `pricing` cost nothing: {unpriced}",
                )


def _unpriced(settings: Settings) -> str:
    """The models that are configured without a price, some of many by name."""
    names = [
        f"{provider.name}/{model.id}"
        for provider in settings.providers
        for model in provider.models or ()
        if cost(model.pricing, NO_USAGE) is None
    ]
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _of_providers(settings: Settings) -> _Doubts:
    folded: dict[str, str] = {}
    for index, provider in enumerate(settings.providers):
        path = ("providers", index)
        other = folded.setdefault(provider.name.casefold(), provider.name)
        if other != provider.name:
            yield (*path, "name"), f'differs from "{other}" only in upper and lower case'
        for endpoint in _ENDPOINTS:
            if urlsplit(provider.base_url).path.endswith(endpoint):
                yield (*path, "base_url"), f"ends in {endpoint}, which the gateway adds itself"
        for number, key in enumerate(provider.api_keys):
            if key in provider.api_keys[:number]:
                yield (*path, "api_key", number), "is a key that stands before it already"
