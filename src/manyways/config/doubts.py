"""What may well be meant otherwise, though it can be used as it stands."""

from typing import Final
from urllib.parse import urlsplit

from manyways.config.document import dotted
from manyways.config.positions import Path
from manyways.config.quantities import write_seconds
from manyways.config.settings import Settings

_ENDPOINTS: Final = ("/chat/completions", "/models")


def doubts(settings: Settings) -> tuple[str, ...]:
    """What deserves a look, a sentence each; none of them holds a secret."""
    said = []

    def say(path: Path, sentence: str) -> None:
        origin = settings.origins.get(dotted(path))
        said.append(f"{dotted(path)}{f' ({origin})' if origin else ''} {sentence}")

    deadline = settings.routing.deadline
    for limit in ("first_token_timeout", "answer_timeout"):
        if (seconds := getattr(settings.routing, limit)) > deadline:
            say(
                ("routing", limit),
                f"is {write_seconds(seconds)}, but routing.deadline ends everything after"
                f" {write_seconds(deadline)}",
            )
    folded: dict[str, str] = {}
    for index, provider in enumerate(settings.providers):
        path = ("providers", index)
        other = folded.setdefault(provider.name.casefold(), provider.name)
        if other != provider.name:
            say((*path, "name"), f'differs from "{other}" only in upper and lower case')
        for endpoint in _ENDPOINTS:
            if urlsplit(provider.base_url).path.endswith(endpoint):
                say((*path, "base_url"), f"ends in {endpoint}, which the gateway adds itself")
        for number, key in enumerate(provider.api_keys):
            if key in provider.api_keys[:number]:
                say((*path, "api_key", number), "is a key that stands before it already")
    return tuple(said)
