"""What several processes and nodes share: one Redis or Valkey, a cluster, or what Sentinel watches.

Nobody waits for it when it is away: whoever asks hears `Away` at once, and a task in the
background looks twice a second whether it is back. It finds the new master, too, when another
server takes over. A question takes two seconds at most, whatever happens.

All keys begin with `manyways:`. Keys that are used together carry the same `{tag}`, so that a
cluster keeps them together.
"""

import asyncio
import binascii
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Self

import structlog
from hiredis import ReplyError

from manyways.store.redis_address import Address, Server, parse
from manyways.store.redis_cure import cure
from manyways.store.redis_link import Away, Link, Word

__all__ = ["PREFIX", "Away", "Script", "Shared", "key"]

PREFIX: Final = "manyways:"
PROBE: Final = 0.5
"""Seconds between two looks whether it is there."""
COMPLAINTS: Final = 5.0
"""Seconds between two lines in the log about what it refuses."""
REDIRECTS: Final = 3
"""So often a question may be sent on by a cluster that moves its slots."""
SLOTS: Final = 16384

log = structlog.get_logger("manyways")


class Script:
    """A Lua script, which runs as one step. A constant of a module: every server that is asked is
    told all of them first."""

    __slots__ = ("digest", "source")

    known: ClassVar[list["Script"]] = []

    def __init__(self, source: str) -> None:
        self.known.append(self)
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.digest[:8]}>"


def key(*parts: str) -> str:
    """A key of ours: `key("{a}", "slots")` is `manyways:{a}:slots`."""
    return PREFIX + ":".join(parts)


class Shared:
    """The shared memory. Made by `open`, ended by `aclose`; in between it heals by itself."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._links: dict[Server, Link] = {}
        self._only: Link | None = None  # where there is no cluster
        self._slots: list[Server | None] = []
        self._away = "not asked yet"  # or why, in words
        self._look_now = asyncio.Event()
        self._back: list[Callable[[], None]] = []
        self._heard: dict[bytes, Callable[[bytes], None]] = {}
        self._listening: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._complained = -COMPLAINTS

    def __repr__(self) -> str:
        return f"<Shared {self._address!r} {self._away or 'there'}>"

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect. Where nobody answers it begins away, and goes on trying.

        Raises `ValueError` for an address that cannot be read.
        """
        self = cls(parse(url))
        await self._look()
        if self.away and not cure(self.why):
            log.warning("redis is away", why=self.why)
        self._begin()
        return self

    @classmethod
    async def masters(cls, url: str) -> list[Link]:
        """A connection to each server that has keys, for a look: whoever asks closes them.

        Raises `Away`, and `ValueError` for an address that cannot be read.
        """
        self = cls(parse(url))
        try:
            await self._find()
        except BaseException:
            await self.aclose()
            raise
        return list(self._links.values())

    async def aclose(self) -> None:
        """End it. What was posted before has happened then, if Redis answers."""
        if self._restart is not None:
            self._restart.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        # What was posted is answered in order: behind it, nothing is lost.
        flushing = (link.ask("PING") for link in self._links.values())
        await asyncio.gather(*flushing, return_exceptions=True)
        links, self._links = self._links, {}
        self._away = "closed"
        await asyncio.gather(*(link.aclose() for link in links.values()))

    @property
    def away(self) -> bool:
        """Whether it does not answer, or a part of it."""
        return bool(self._away)

    @property
    def why(self) -> str:
        """Why it is away, in words; empty while it is there."""
        return self._away

    def on_back(self, callback: Callable[[], None]) -> None:
        """Called whenever it is there again after it was away, or another server took over."""
        self._back.append(callback)

    async def ask(self, *words: Word) -> Any:
        """The answer to a command whose second word is its key (or channel). Strings are bytes.

        Raises `Away`, also where it answers with an error.
        """
        answer = await self._answer(str(words[1]), words)
        if isinstance(answer, Exception):
            raise self._translated(answer)
        return answer

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: Word,
        orphaned: Callable[[Any], None] | None = None,
    ) -> Any:
        """What a script returns. All keys carry one tag. Raises `Away` as `ask` does.

        `orphaned` is called with what it returned, or with `Away`, where the one who asked was
        cancelled: then nobody else hears whether it has happened.
        """
        rest = (len(keys), *keys, *arguments)
        answer = await self._answer(keys[0], ("EVALSHA", script.digest, *rest), orphaned)
        if isinstance(answer, ReplyError) and str(answer).startswith("NOSCRIPT"):
            answer = await self._answer(keys[0], ("EVAL", script.source, *rest), orphaned)
        if isinstance(answer, Exception):
            raise self._translated(answer)
        return answer

    def post(
        self,
        script: Script,
        keys: Sequence[str],
        *arguments: Word,
        failed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Run a script without waiting for it. It is on its way when this returns, before anything
        that is said to a caller afterwards: whoever hears that and asks elsewhere comes behind it.
        `failed` is called where it has not happened, with `True` where it may have."""
        rest = (len(keys), *keys, *arguments)
        source: tuple[Word, ...] | None = ("EVAL", script.source, *rest)

        def send(words: tuple[Word, ...]) -> None:
            link = self._link(keys[0])
            if link is None:
                failed(False)
            else:
                link.send(words).add_done_callback(done)
                link.flush()

        def done(future: "asyncio.Future[Any]") -> None:
            nonlocal source
            answer = future.result()
            if not isinstance(answer, Exception):
                return
            if source is not None and str(answer).startswith("NOSCRIPT"):
                words, source = source, None
                send(words)
            else:
                self._translated(answer)
                failed(isinstance(answer, Away))

        send(("EVALSHA", script.digest, *rest))

    def listen(self, channel: str, heard: Callable[[bytes], None]) -> None:
        """`heard` is called with what is said on a channel. What is said while this is away, or
        another server takes over, is lost: `on_back` tells when."""
        self._heard[channel.encode()] = heard
        if self._listening is not None:
            self._listening.listen(channel)

    def _translated(self, answer: Exception) -> Away:
        """An error as `Away`. One that Redis itself says is told in the log, once a while."""
        if isinstance(answer, Away):
            return answer
        now = asyncio.get_running_loop().time()
        if now >= self._complained + COMPLAINTS:
            self._complained = now
            log.error("redis refuses", why=str(answer))
        return Away(f"Redis says: {answer}")

    # Who is asked

    def _link(self, name: str) -> Link | None:
        """The open connection to whoever has a key."""
        if self._address.kind != "cluster":
            link = self._only
        else:
            server = self._slots[_slot(name)] if self._slots else None
            link = None if server is None else self._links.get(server)
        return None if link is None or link.lost else link

    async def _answer(
        self,
        name: str,
        words: tuple[Word, ...],
        orphaned: Callable[[Any], None] | None = None,
    ) -> Any:
        link = self._link(name)
        for _ in range(REDIRECTS + 1):
            if link is None:
                return Away(self._away or "a part of the cluster is away")
            sent = link.send(words)
            try:
                answer = await (sent if orphaned is None else asyncio.shield(sent))
            except asyncio.CancelledError:
                if orphaned is not None:
                    sent.add_done_callback(partial(_adopt, orphaned))
                raise
            if not isinstance(answer, ReplyError):
                return answer
            kind, _, rest = str(answer).partition(" ")
            if kind in {"MOVED", "ASK"}:
                server = _redirected(rest, link.server)
                link = self._links.get(server)
                if kind == "MOVED":
                    self._slots[_slot(name)] = server
                    self._look_now.set()
                elif link is not None:
                    link.send(("ASKING",))
            elif kind in {"READONLY", "MASTERDOWN"} and self._address.kind != "cluster":
                link.drop("is no master any more")
                return Away(link.lost)
            else:
                return answer
        return Away("the cluster is moving its slots")

    # Whether it is there

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._keep_looking())
        self._task.add_done_callback(self._fell)

    def _fell(self, task: "asyncio.Task[None]") -> None:
        """Nothing may end the looking but the end: else it would never heal."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("looking for redis failed, and is begun again", exc_info=error)
            self._restart = asyncio.get_running_loop().call_later(PROBE, self._begin)

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE):
                    await self._look_now.wait()
            self._look_now.clear()
            await self._look()
            if self._away:  # whatever wakes us, nobody is asked more often
                await asyncio.sleep(PROBE / 2)

    async def _look(self) -> None:
        try:
            await self._find()
            changed = await self._listen()
        except Away as away:
            self._gone(str(away))
            return
        if self._away:
            log.info("redis is there", server=str(self._address))
        changed, self._away = changed or bool(self._away), ""
        if changed:
            for callback in self._back:
                callback()

    async def _find(self) -> None:
        """Open connections to whoever is to be asked, and see that they answer."""
        kind = self._address.kind
        if kind == "cluster":
            await self._find_cluster()
            return
        link = self._only
        if link is None or link.lost:
            if kind == "single":
                server = self._address.servers[0]
            else:
                server = await self._master_by_sentinel()
            self._links.clear()
            link = await self._open(server)
        if kind == "single":
            await link.ask("PING")
        else:
            role = await link.ask("ROLE")
            if role[0] != b"master":
                link.drop("is no master any more")
                raise Away(link.lost)
        self._only = link

    async def _master_by_sentinel(self) -> Server:
        why = "no Sentinel answers"
        for sentinel in self._address.servers:
            try:
                found = await self._ask_sentinel(sentinel)
            except Away as away:
                why = str(away)
                continue
            if found is not None:
                return found
            why = f"Sentinel {sentinel} knows no master {self._address.name}"
        raise Away(why)

    async def _ask_sentinel(self, sentinel: Server) -> Server | None:
        address = self._address
        link = await Link.open(sentinel, Address(kind="single", servers=(), tls=address.tls))
        try:
            question = ("SENTINEL", "get-master-addr-by-name", address.name)
            answer = await link.send(question)
            if isinstance(answer, ReplyError) and str(answer).startswith("NOAUTH"):
                await link.ask("AUTH", address.user or "default", address.password)
                answer = await link.send(question)
        finally:
            await link.aclose()
        if isinstance(answer, Exception):
            raise Away(f"Sentinel {sentinel} says: {answer}")
        return None if answer is None else Server(answer[0].decode(), int(answer[1]))

    async def _find_cluster(self) -> None:
        whole = bool(self._slots) and None not in self._slots
        needed = set(self._slots) if whole else set()
        alive = {server for server, link in self._links.items() if not link.lost}
        if not needed or needed - alive:
            await self._read_slots([*alive, *self._address.servers])
        masters = {server for server in self._slots if server is not None}
        for server in set(self._links) - masters:
            await self._links.pop(server).aclose()
        await _all(self._reach(server) for server in masters)
        if None in self._slots:
            raise Away("the cluster has nobody for some of its slots")

    async def _reach(self, server: Server) -> None:
        link = self._links.get(server)
        if link is None or link.lost:
            link = await self._open(server)
        state: bytes = await link.ask("CLUSTER", "INFO")
        if b"cluster_state:ok" not in state:
            raise Away(f"{server} says that the cluster is down")

    async def _read_slots(self, servers: Sequence[Server]) -> None:
        """Who has which slots, from whoever tells it first."""
        why = Away("no server of the cluster answers")
        for server in servers:
            try:
                link = self._links.get(server)
                if link is None or link.lost:
                    link = await self._open(server)
                ranges = await link.ask("CLUSTER", "SLOTS")
            except Away as away:
                why = away
                continue
            slots: list[Server | None] = [None] * SLOTS
            for first, last, master, *_ in ranges:
                host = master[0].decode() if master[0] not in (None, b"", b"?") else server.host
                slots[first : last + 1] = [Server(host, master[1])] * (last + 1 - first)
            self._slots = slots
            return
        raise why

    async def _open(self, server: Server) -> Link:
        link = await Link.open(server, self._address, pushed=self._pushed, ended=self._ended)
        for script in Script.known:
            link.send(("SCRIPT", "LOAD", script.source))
        self._links[server] = link
        return link

    def _ended(self, link: Link) -> None:
        """A connection was lost: look at once."""
        if self._links.get(link.server) is link:
            self._gone(link.lost)
            self._look_now.set()

    def _gone(self, why: str) -> None:
        cured = cure(why)
        if cured and why != self._away:  # it does not pass by itself: somebody has to know
            log.error("redis is away", why=why, cure=cured)
        elif not self._away:
            log.warning("redis is away", why=why)
        self._away = why

    # What is heard

    async def _listen(self) -> bool:
        """Listen on one connection. Whether it is another than before."""
        if self._listening is not None and not self._listening.lost:
            return False
        link = self._only or next(iter(self._links.values()))
        for channel in self._heard:
            link.listen(channel)
        await link.ask("PING")
        self._listening = link
        return True

    def _pushed(self, channel: bytes, words: bytes) -> None:
        heard = self._heard.get(channel)
        if heard is not None:
            heard(words)


def _adopt(orphaned: Callable[[Any], None], sent: "asyncio.Future[Any]") -> None:
    if not sent.cancelled() and not isinstance(sent.result(), ReplyError):
        orphaned(sent.result())


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """All of it; the first failure is raised once all have ended."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _slot(name: str) -> int:
    """Where a cluster keeps a key: by its tag in braces, else by all of it."""
    opened = name.find("{")
    if opened >= 0:
        closed = name.find("}", opened + 1)
        if closed > opened + 1:
            name = name[opened + 1 : closed]
    return binascii.crc_hqx(name.encode(), 0) % SLOTS


def _redirected(rest: str, told_by: Server) -> Server:
    """`3999 127.0.0.1:6381`, the host left out where it is the same."""
    host, _, port = rest.rpartition(" ")[2].rpartition(":")
    return Server(host.strip("[]") or told_by.host, int(port))
