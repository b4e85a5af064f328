"""Whether providers can be reached, believe our keys, and have the models we offer: what
`manyways doctor` asks them, and what their answers mean in plain words."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from manyways.catalog.discovery import BadModelList, parse
from manyways.cli import called
from manyways.cli.checks import Finding
from manyways.cli.provider_faults import Verdict, Way, unreachable, way_to
from manyways.config.shown import without_password
from manyways.errors import ManywaysError, TransportError
from manyways.types import Provider
from manyways.upstream import local_child
from manyways.upstream.local import LocalModel
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.pages import same_origin
from manyways.upstream.settings import Settings
from manyways.upstream.transport import Limits, Transport

WHOLE_LIMIT: Final = 15.0
"""Seconds for everything that is asked of one provider."""

LOCAL_LIMIT: Final = 30.0
"""Seconds for the embedded model, which has to be read from the disk first."""

LIMITS: Final = Limits(connect=5.0, headers=10.0, idle=10.0)
AT_ONCE: Final = 16
"""Requests under way at the same time."""

_MAX_BODY: Final = 32 * 1024 * 1024
_SHOWN_MODELS: Final = 5
_SHOWN_WORDS: Final = 200
_OF_PROXIES: Final = frozenset({403, 502, 503, 504})
"""Statuses that a proxy may answer by itself, where no TLS shows who speaks."""


class _Answer(NamedTuple):
    """What came to `GET /models`; `took` is in milliseconds, to the answer's headers."""

    status: int
    location: str
    body: bytes
    took: int


class ProviderChecks:
    """Checks providers, each by its own way, at most `AT_ONCE` requests at a time."""

    def __init__(self, way: Callable[[Provider], Transport], settings: Settings) -> None:
        self._way = way
        self._settings = settings
        self._places = asyncio.Semaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"<ProviderChecks over {self._settings.transport}>"

    async def check(self, provider: Provider) -> Finding:
        """Never raises for what a provider does, and never names a secret."""
        if provider.protocol == "local":
            verdict = await self._local(provider)
        else:
            verdict = await self._remote(provider)
        return Finding(
            name=f"provider {provider.name}",
            status=verdict.status,
            detail=_without_secrets(verdict.detail, provider),
            advice=_without_secrets(verdict.advice, provider),
        )

    async def _remote(self, provider: Provider) -> Verdict:
        where = without_password(provider.base_url)
        host = urlsplit(provider.base_url).hostname or ""
        try:
            async with asyncio.timeout(WHOLE_LIMIT):
                if not way_to(provider, self._settings).proxy:  # a proxy looks names up itself
                    await _resolve(host)
                keys: Sequence[str | None] = provider.api_keys or (None,)
                verdicts = await asyncio.gather(*(self._ask(provider, key) for key in keys))
        except TimeoutError:
            return Verdict(
                "error",
                f"{where} said nothing useful within {WHOLE_LIMIT:g} s",
                "Try again; if it lasts, ask the provider, or take it out.",
            )
        except socket.gaierror:
            return Verdict(
                "error",
                f"the name {host} leads nowhere (DNS)",
                "See that base_url is spelt right and this machine can look up names.",
            )
        return _together(verdicts)

    async def _ask(self, provider: Provider, key: str | None) -> Verdict:
        """Ask for the list of models with one key."""
        url = provider.models_url or f"{provider.base_url}/models"
        headers = [("Accept", "application/json")]
        if same_origin(url, provider.base_url):  # nobody else is told secrets
            headers += provider.headers.items()
            if key is not None:
                headers.append(("Authorization", f"Bearer {key}"))
        try:
            async with self._places:
                begun = time.monotonic()
                asked = self._way(provider).send("GET", url, headers, b"", LIMITS)
                async with await asked as response:
                    took = round((time.monotonic() - begun) * 1000)
                    body = await response.body(_MAX_BODY)
        except TransportError as error:
            return unreachable(error, provider, self._settings)
        location = response.headers.get("Location", "")
        answer = _Answer(response.status, location, body, took)
        return _with_way(_judged(answer, provider), way_to(provider, self._settings), answer, url)

    async def _local(self, provider: Provider) -> Verdict:
        """Start a child of our own, and ask it for one token."""
        if (cure := local_child.missing()) is not None:
            return Verdict("error", "the embedded model is not installed", cure)
        child = LocalModel()
        asked = OpenAIProvider(
            provider, self._way(provider), address=child, api_keys=(child.api_key,)
        )
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        limits = Limits(connect=LOCAL_LIMIT, headers=LOCAL_LIMIT, idle=LOCAL_LIMIT)
        begun = time.monotonic()
        child.start()
        try:
            async with asyncio.timeout(LOCAL_LIMIT):
                await child.address(LOCAL_LIMIT)
                started = time.monotonic() - begun
                answered = await asked.chat(msgspec.json.encode(body), limits, stream=False)
                async with answered as response:
                    await response.body(_MAX_BODY)
        except TimeoutError:
            return Verdict(
                "error",
                f"the embedded model did not answer within {LOCAL_LIMIT:g} s",
                "See that this machine has memory and processor time left (about 300 MB).",
            )
        except ManywaysError as error:
            return Verdict("error", str(error), "Install it anew: make install")
        finally:
            await child.stop()
        took = round((time.monotonic() - begun - started) * 1000)
        return Verdict("ok", f"starts in {started:.1f} s, answers in {took} ms")


async def _resolve(host: str) -> None:
    """Raises `socket.gaierror` where the name has no address."""
    async with asyncio.timeout(LIMITS.connect):
        await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)


def _with_way(verdict: Verdict, way: Way, answer: _Answer, url: str) -> Verdict:
    """A verdict on an answer that may have come by way of a proxy, or from it."""
    if way.proxy is None:
        return verdict
    advice = verdict.advice
    if not way.proxy.socks and url.startswith("http://") and answer.status in _OF_PROXIES:
        advice = f"{advice} Or it is the proxy that says so: then the cure is there.".lstrip()
    return verdict._replace(detail=f"{verdict.detail} ({way})", advice=advice)


def _judged(answer: _Answer, provider: Provider) -> Verdict:
    """What an answer to `GET /models` means."""
    match answer.status:
        case 200:
            return _judged_list(answer, provider)
        case 401 | 402 | 403:
            return _unbelieved(answer.status, provider)
        case 404 | 405 | 501:
            return _without_list(answer, provider)
        case 429:
            return Verdict(
                "warning",
                f"answers in {answer.took} ms, but wants fewer requests now (HTTP 429)",
                "Wait, or give it several keys to use in turn: api_key = [...]",
            )
        case status if 300 <= status < 400:
            return Verdict(
                "error",
                f"sends us elsewhere (HTTP {status}), to {answer.location or 'nowhere'}",
                "Put the address that it names into base_url, without /models.",
            )
    return Verdict(
        "error",
        f"answers HTTP {answer.status}: {_excerpt(answer.body)}",
        "The fault is the provider's if base_url is right; try again later.",
    )


def _unbelieved(status: int, provider: Provider) -> Verdict:
    if not provider.api_keys:
        return Verdict(
            "error",
            f"wants a key (HTTP {status}), and none is configured",
            'Set api_key = "env:NAME" for it, and the key in that variable.',
        )
    what = "its credit is used up" if status == 402 else "does not accept the key"
    return Verdict(
        "error",
        f"{what} (HTTP {status})",
        "See that the key is right, still valid and paid for; then set it as api_key.",
    )


def _without_list(answer: _Answer, provider: Provider) -> Verdict:
    listed_at = provider.models_url or f"{without_password(provider.base_url)}/models"
    where = f"{listed_at} (HTTP {answer.status})"
    if provider.models is None:
        return Verdict(
            "error",
            f"has no list of models at {where}",
            "See that base_url is whole (most end in /v1); a provider without such a list needs"
            " its models in the configuration: [[providers.models]]",
        )
    return Verdict(
        "warning",
        f"answers in {answer.took} ms, but has no list of models at {where}: key and models are"
        " not proven",
        f"Ask one of its models: {called.line('chat --model NAME Hello')}",
    )


def _judged_list(answer: _Answer, provider: Provider) -> Verdict:
    try:
        found = parse(answer.body)
    except BadModelList as error:
        return Verdict(
            "error",
            f"answers, but with no list of models: {error}",
            "See that base_url is whole (most end in /v1), and that no login page or portal is"
            " between.",
        )
    believed = ", accepts the key" if provider.api_keys else ""
    count = f"{len(found)} model{'' if len(found) == 1 else 's'}"
    reached = f"answers in {answer.took} ms{believed}, has {count}"
    ids = {name for model in found for name in model.names}
    wanted = [entry.upstream_id or entry.id for entry in provider.models or ()]
    missing = [model for model in wanted if model not in ids]
    if provider.models is None and not found:
        return Verdict("warning", reached, "Nothing can be asked of it until it has one.")
    if missing:
        named = ", ".join(missing[:_SHOWN_MODELS])
        more = f" and {len(missing) - _SHOWN_MODELS} more" if len(missing) > _SHOWN_MODELS else ""
        return Verdict(
            "warning",
            f"{reached}, but does not list {named}{more}",
            "See that these are the provider's own names; if not, add upstream_id.",
        )
    return Verdict("ok", reached)


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict on a provider that was asked with each of its keys."""
    bad = [(number, one) for number, one in enumerate(verdicts, 1) if one.status == "error"]
    if len(verdicts) == 1 or not bad:
        return max(verdicts, key=lambda one: ("ok", "warning", "error").index(one.status))
    good = [one for one in verdicts if one.status != "error"]
    if not good:
        return bad[0][1]._replace(detail=f"{bad[0][1].detail}, with each of its {len(bad)} keys")
    which = ", ".join(str(number) for number, _ in bad)
    return Verdict(
        "warning",
        f"{good[0].detail}; but with key {which} of {len(verdicts)}: {bad[0][1].detail}",
        bad[0][1].advice,
    )


def _excerpt(body: bytes) -> str:
    """The beginning of what was said, on one line."""
    text = re.sub(r"\s+", " ", body[:4096].decode(errors="replace")).strip()
    text = "".join(letter for letter in text if letter.isprintable())
    if not text:
        return "an empty answer"
    return text if len(text) <= _SHOWN_WORDS else f"{text[:_SHOWN_WORDS]}…"


def _without_secrets(text: str, provider: Provider) -> str:
    """Providers like to quote the key they don't accept."""
    for secret in sorted({*provider.api_keys, *provider.headers.values()}, key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return text
