"""What gateways tell each other about the health of providers, by way of Redis.

News goes out on a channel as it happens. What rests stands in a hash beside it, too, until its
rest is over, for gateways that have only just begun or were cut off. While Redis is away, every
gateway remembers by itself.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from manyways.routing.breaker import News
from manyways.routing.health import Health
from manyways.store.shared import Away, Script, Shared, key

CHANNEL: Final = key("{health}", "news")
RESTS: Final = key("{health}", "rests")

# Both keys carry one tag, so that one server of a cluster has them. A field is what rests; its
# value the second its rest is over, a space, and the news.
_TELL: Final = Script("""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local name, seconds, news = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if seconds > 0 then
    redis.call('HSET', KEYS[1], name, string.format('%.3f ', now + seconds) .. news)
    redis.call('PEXPIRE', KEYS[1], 7200000)
elseif seconds == 0 then
    redis.call('HDEL', KEYS[1], name)
end
redis.call('PUBLISH', KEYS[2], news)
""")

_READ: Final = Script("""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local found, all = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local till, news = string.match(all[i + 1], '^([%d.]+) (.*)$')
    if tonumber(till) > now then
        found[#found + 1] = string.format('%.3f', till - now)
        found[#found + 1] = news
    else
        redis.call('HDEL', KEYS[1], all[i])
    end
end
return found
""")


class _Told(msgspec.Struct, frozen=True):
    """News, and the node it came from."""

    node: str
    news: News


_decode = msgspec.json.Decoder(_Told).decode
_encode = msgspec.json.Encoder().encode


class SharedHealth:
    """Takes news from and to `health`. `node` is this process's name. `run` has to go on in the
    background."""

    def __init__(
        self,
        shared: Shared,
        health: Health,
        node: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is the one that `health` is told."""
        self._shared = shared
        self._health = health
        self._node = node
        self._clock = clock
        self._missed = asyncio.Event()
        self._missed.set()
        health.share(self._tell)
        shared.listen(CHANNEL, self._heard)
        shared.on_back(self._missed.set)

    def __repr__(self) -> str:
        return f"<SharedHealth of {self._node}>"

    async def run(self) -> None:
        """Read what others have told already, now and whenever some of it was missed; until
        cancelled."""
        while True:
            await self._missed.wait()
            self._missed.clear()
            try:
                found = await self._shared.run(_READ, [RESTS])
            except Away:
                continue  # there will be a way back, and that is told
            for left, told in zip(found[::2], found[1::2], strict=True):
                self._heard(told, float(left))

    def _tell(self, news: News) -> None:
        # What is probed rests anyway: only those who listen need to know.
        seconds = -1.0 if news.probing else news.seconds or 0.0
        name = msgspec.json.encode(news.name)
        told = _encode(_Told(self._node, news))
        self._shared.post(_TELL, [RESTS, CHANNEL], name, round(seconds, 3), told)

    def _heard(self, told: bytes, left: float | None = None) -> None:
        try:
            heard = _decode(told)
        except msgspec.MsgspecError:
            return  # a newer gateway says what we do not know
        news = heard.news
        if heard.node == self._node:
            return
        if left is not None:
            news = msgspec.structs.replace(news, seconds=left)
        self._health.heard(news, self._clock())
