"""The providers that are asked, and the way their bytes take."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from manyways.config import Settings
from manyways.types import Provider
from manyways.upstream import outlets, transport
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.public import public

Ask = Callable[[Provider], Awaitable[bytes]]
"""Asks a provider for its list of models."""


class Upstreams(NamedTuple):
    """Every provider by its name, how one is asked for its models, and what leads nowhere
    but to the public internet."""

    providers: dict[str, OpenAIProvider]
    ask: Ask
    outside: transport.Transport


_LIST_HEADERS = 10.0
"""Seconds for the headers of a list of models."""


@contextlib.asynccontextmanager
async def upstreams(settings: Settings) -> AsyncIterator[Upstreams]:
    """What reaches models, embedded ones as children of this process. Providers that are reached
    the same way share a transport."""
    ways = outlets.Outlets(settings.upstream)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(ways.aclose)
        outside = outlets.transport(settings.upstream, resolver=public())
        stack.push_async_callback(outside.aclose)
        providers: dict[str, OpenAIProvider] = {}
        for provider in settings.providers:
            carrier = ways.to(provider)
            if provider.protocol == "local":
                from manyways.upstream.local import LocalModel, LocalProvider

                child = LocalModel()
                child.start()
                stack.push_async_callback(child.stop)
                providers[provider.name] = LocalProvider(provider, carrier, child)
            else:
                providers[provider.name] = OpenAIProvider(provider, carrier)
        limits = transport.Limits(
            connect=settings.routing.connect_timeout,
            headers=_LIST_HEADERS,
            idle=settings.routing.idle_timeout,
        )

        async def ask(provider: Provider) -> bytes:
            return await providers[provider.name].list_models(limits)

        yield Upstreams(providers, ask, outside)
