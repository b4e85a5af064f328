"""Whether Redis answers, lets us in, and is fit for what is kept there. Nothing is changed."""

import asyncio
from typing import Final, NamedTuple

from manyways.cli.checks import Finding, Status
from manyways.store.redis_address import Address, parse
from manyways.store.redis_cure import cure
from manyways.store.redis_link import Away, Link
from manyways.store.shared import Shared, key

LIMIT: Final = 10.0
"""Seconds for all of it, however many servers there are."""
FAR: Final = 0.1
"""Seconds: every request with a limit waits as long."""

_PINGS: Final = 3
_OTHERWISE: Final = "Start it, or mend host and port in cluster.redis (and rediss:// is for TLS)."


class _Server(NamedTuple):
    """One server: how it is told, and what it says of itself, if it does."""

    words: str
    away: float
    facts: dict[str, str]


async def look(url: str) -> Finding:
    """Connect as the gateway does, to all servers that have keys. `url` can be read."""
    address = parse(url)
    try:
        async with asyncio.timeout(LIMIT):
            links = await Shared.masters(url)
            try:
                servers = [await _asked(link, address) for link in links]
            finally:
                await asyncio.gather(*(link.aclose() for link in links))
    except Away as away:
        return _found("error", str(away), cure(str(away)) or _OTHERWISE)
    except TimeoutError:
        where = ", ".join(map(str, address.servers))
        return _found("error", f"{where} does not answer within {LIMIT:g} s", _OTHERWISE)
    told = "\n".join(server.words for server in servers)
    if any(_forgets(server) for server in servers):
        return _found(
            "warning",
            f"{told}\nthrows keys away when its memory is full (maxmemory-policy)",
            "Set maxmemory-policy to noeviction: a limit that is thrown away begins anew.",
        )
    if max(server.away for server in servers) > FAR:
        return _found(
            "warning",
            f"{told}\nis far away: every request with a limit waits for it",
            "Have it near the gateway.",
        )
    return _found("ok", told, "")


def _found(status: Status, detail: str, advice: str) -> Finding:
    return Finding(name="redis", status=status, detail=detail, advice=advice)


async def _asked(link: Link, address: Address) -> _Server:
    """What a server is. Raises `Away` where it is not fit."""
    facts = await _facts(link)
    if address.kind != "cluster":
        if facts.get("cluster_enabled") == "1":
            raise Away(f"{link.server} is part of a cluster")
        if "sentinel" in (facts.get("redis_mode"), facts.get("server_mode")):
            raise Away(f"{link.server} is a Sentinel, which keeps nothing")
        if facts.get("role") == "slave":
            raise Away(f"{link.server} is a replica, which takes no writes")
        await link.ask("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, key("doctor"))
    else:  # which server a key is at, is another question
        await link.ask("EVAL", "return 1", 0)
    loop = asyncio.get_running_loop()
    away = LIMIT
    for _ in range(_PINGS):
        began = loop.time()
        await link.ask("PING")
        away = min(away, loop.time() - began)
    product = _product(facts)
    words = f"{link.server} ({f'{product}, ' if product else ''}{away * 1000:.1f} ms away)"
    return _Server(words, away, facts)


async def _facts(link: Link) -> dict[str, str]:
    """`INFO`, which some do not let everybody ask: nothing then."""
    answer = await link.send(("INFO",))
    if isinstance(answer, Away):
        raise answer
    if not isinstance(answer, bytes):
        return {}
    lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _product(facts: dict[str, str]) -> str:
    if version := facts.get("valkey_version"):
        return f"Valkey {version}"
    version = facts.get("redis_version")
    return f"Redis {version}" if version else ""


def _forgets(server: _Server) -> bool:
    facts = server.facts
    return facts.get("maxmemory", "0") != "0" and facts.get("maxmemory_policy") != "noeviction"
