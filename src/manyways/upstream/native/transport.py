"""`NativeTransport`: from a request to the headers of its answer."""

import asyncio
import math
import ssl
from collections.abc import Callable, Sequence
from copy import copy
from functools import lru_cache, partial
from typing import Final

from yarl import URL

from manyways.errors import ConnectFailed, Phase, TimedOut, TransportError
from manyways.upstream.decoded import decoded
from manyways.upstream.names import system_addresses
from manyways.upstream.native.answer import Answer
from manyways.upstream.native.dial import Dialer
from manyways.upstream.native.names import Names
from manyways.upstream.native.origin import Origin, Route
from manyways.upstream.native.pool import Pool
from manyways.upstream.native.wire import Wire
from manyways.upstream.transport import STALE, Limits, Lookup, Response, untold
from manyways.watch import TimeLimit

_URLS: Final = 1024
"""URLs whose meaning is remembered."""
_JOINED: Final = 64 * 1024
"""Bytes of a body that are written together with the headers."""


class NativeTransport:
    """Implements `transport.Transport`. To be built inside the running event loop.

    `ssl_context` is for every TLS peer (default: the system's authorities). `proxy` is the URL
    of an HTTP or SOCKS5 proxy, user and password included where it wants them. `pool_size` bounds
    the connections to one origin (0: no bound). An unused connection is kept for `keepalive`
    seconds, and none is used again once it is `max_age` seconds old. `resolver` looks up the
    names of hosts (default: the system), whose addresses are remembered for `dns_ttl` seconds.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        pool_size: int = 0,
        keepalive: float = 15,
        max_age: float = math.inf,
        resolver: Lookup | None = None,
        dns_ttl: float = 30,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._names = Names(resolver or system_addresses, dns_ttl)
        self._dialer = Dialer(self._names, ssl_context, proxy)
        self._origin = lru_cache(_URLS)(partial(Origin, proxy=URL(proxy) if proxy else None))
        self._pools: dict[Route, Pool] = {}
        self._new_pool = partial(
            Pool,
            loop=self._loop,
            bound=pool_size,
            keepalive=keepalive,
            max_age=max_age,
            emptied=lambda route: self._pools.pop(route, None),
        )
        self._connecting: set[asyncio.Task[object]] = set()
        self._closed = False

    def __repr__(self) -> str:
        pools = self._pools.values()
        in_use, idle = sum(pool.in_use for pool in pools), sum(pool.idle for pool in pools)
        return f"<NativeTransport in_use={in_use} idle={idle}>"

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        on_resend: Callable[[], object] = untold,
    ) -> Response:
        """As `transport.Transport.send` promises.

        Raises `ValueError` for headers that cannot be sent: line breaks, or the framing that
        is ours to write.
        """
        if self._closed:
            raise ConnectFailed("the transport is closed")
        try:
            origin = self._origin(url)
        except ValueError:
            raise ConnectFailed("the provider's address is not an HTTP URL") from None
        head = origin.head(method, headers, len(body))
        request = (head + body,) if len(body) < _JOINED else (head, body)
        ends = self._loop.time() + limits.whole
        pool = self._pools.get(origin.route) or self._open(origin.route)
        wire = pool.take() or await self._connect(pool, limits, ends)
        while True:
            began = self._loop.time()
            left = ends - began
            limit = TimeLimit(min(limits.headers, left), "headers")
            try:
                with limit:
                    wire.begin(request, bodiless=method == "HEAD")
                    if wire.blocked and limits.write < limit.seconds:
                        await self._written(wire, limit, limits)
                    while not wire.answering:
                        if wire.failure is not None:
                            raise copy(wire.failure)  # which must not know who waited for it
                        await wire.wait()
                if wire.status == 407 and origin.asked is not None:  # no provider's to say
                    raise ConnectFailed(origin.asked.answered(407))
            except TransportError:
                if wire.stale and limit.awake < STALE and not self._closed:
                    on_resend()
                    wire = await self._connect(pool, limits, ends, instead_of=wire)
                    continue
                pool.discard(wire)
                raise
            except TimeoutError:
                pool.discard(wire)
                raise _late(wire, limit, limits, whole=left < limits.headers) from None
            except BaseException:  # cancelled, above all: the provider must notice at once
                # Its answer may have come in this very moment, and be whole: it was not for the
                # next request.
                pool.discard(wire)
                raise
            return decoded(
                Answer(wire, pool, self._loop, idle=limits.idle, whole=limits.whole, ends=ends)
            )

    async def aclose(self) -> None:
        self._closed = True
        for pool in tuple(self._pools.values()):
            pool.close()
        while self._connecting:
            self._connecting.pop().cancel()
        self._names.close()
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    def _open(self, route: Route) -> Pool:
        pool = self._pools[route] = self._new_pool(route)
        return pool

    async def _connect(
        self, pool: Pool, limits: Limits, ends: float, *, instead_of: Wire | None = None
    ) -> Wire:
        """A connection that has a place in the pool: its turn, or that of another one."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("connections are made for a task")
        cancelled = task.cancelling()
        stages = _Stages(self._loop, limits, ends)
        placed = instead_of is not None
        if instead_of is not None:
            pool.replace(instead_of)
        self._connecting.add(task)
        try:
            with stages.limit:
                if not placed:
                    stages.begin("pool")
                    wire = await pool.turn()
                    if wire is not None:
                        return wire
                    placed = True
                wire = await self._dialer.dial(
                    pool.route, lambda: Wire(self._loop, pool.route, pool.drop), stages.begin
                )
                if self._closed:
                    wire.abort()
                    raise ConnectFailed("the transport was closed")
                pool.busy.add(wire)
                return wire
        except BaseException as error:
            if placed:
                pool.gone()
            if isinstance(error, TimeoutError) and stages.limit.expired:
                raise stages.late() from None
            ours = isinstance(error, asyncio.CancelledError) and task not in self._connecting
            if ours and task.uncancel() <= cancelled:  # by `aclose`, and by nobody else
                raise ConnectFailed("the transport was closed") from None
            raise
        finally:
            self._connecting.discard(task)

    async def _written(self, wire: Wire, limit: TimeLimit, limits: Limits) -> None:
        """Until the system has taken the request, or something else has happened."""
        until = self._loop.time() + limit.seconds
        limit.restart(limits.write, "write")
        while wire.blocked and not wire.answering and wire.failure is None:
            await wire.wait()
        limit.restart(until - self._loop.time(), "headers")


class _Stages:
    """What a request without a connection waits for, and how long it may."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, ends: float) -> None:
        self._now = loop.time
        self._limits = limits
        self._ends = min(ends, loop.time() + limits.connect)
        self._whole = self._ends == ends
        self._parts: dict[Phase, float] = {
            "pool": limits.pool, "dns": limits.dns, "connect": limits.dial, "tls": limits.tls,
        }  # fmt: skip
        self.limit = TimeLimit(limits.connect, "connect")
        self._late: tuple[Phase, float] = "connect", limits.connect

    def __repr__(self) -> str:
        return f"<_Stages {self.limit.why}>"

    def begin(self, phase: Phase) -> None:
        """The next stage."""
        left, part = self._ends - self._now(), self._parts[phase]
        self.limit.restart(min(left, part), phase)
        if part < left:
            self._late = phase, part
        elif self._whole:
            self._late = "whole", self._limits.whole
        else:
            self._late = phase, self._limits.connect

    def late(self) -> TimedOut:
        """What it means that the time of this stage, or that of all of them, has run out."""
        return TimedOut(*self._late)


def _late(wire: Wire, limit: TimeLimit, limits: Limits, *, whole: bool) -> TimedOut:
    if limit.why == "write":
        return TimedOut("write", limits.write)
    if whole:
        return TimedOut("whole", limits.whole)
    return TimedOut("write" if wire.blocked else "headers", limits.headers)
