"""A SOCKS5 proxy for tests (RFC 1928), which may want a user and a password (RFC 1929)."""

import asyncio
import socket

from tests.support.proxy import Relay

_NAMED, _IPV4, _IPV6 = 3, 1, 4


class Socks(Relay):
    """A SOCKS5 proxy.

    `log` holds `host:port` of each connection that was asked for, names as they were told;
    `credentials` who asked. A `refusal` is the reply's code in place of a connection. It takes
    a `user` only with the right `password`. From step `silent_at` on (0: the greeting, 1: the
    connection) it says nothing.
    """

    def __init__(
        self, *, user: str = "", password: str = "", refusal: int = 0, silent_at: int | None = None
    ) -> None:
        super().__init__()
        self.credentials: list[tuple[str, str]] = []
        self._wanted = (user, password)
        self._refusal = refusal
        self._silent_at = silent_at

    @property
    def url(self) -> str:
        user, password = self._wanted
        before = f"{user}:{password}@" if user else ""
        return f"socks5://{before}127.0.0.1:{self.port}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if self._silent_at == 0:
            await reader.read()
            return
        method = 2 if self._wanted[0] else 0
        if method not in methods:
            writer.write(b"\x05\xff")
            await writer.drain()
            return
        writer.write(bytes([5, method]))
        if method:
            _, length = await reader.readexactly(2)
            user = (await reader.readexactly(length)).decode()
            length = (await reader.readexactly(1))[0]
            password = (await reader.readexactly(length)).decode()
            self.credentials.append((user, password))
            good = (user, password) == self._wanted
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                await writer.drain()
                return
        host, port = await self._asked(reader)
        self.log.append(f"{host}:{port}")
        if self._silent_at == 1:
            await reader.read()
            return
        if self._refusal:
            writer.write(bytes([5, self._refusal, 0, 1, 0, 0, 0, 0, 0, 0]))
            await writer.drain()
            return
        consent = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"
        await self._join(reader, writer, host, port, consent=consent)

    @staticmethod
    async def _asked(reader: asyncio.StreamReader) -> tuple[str, int]:
        kind = (await reader.readexactly(4))[3]
        if kind == _NAMED:
            length = (await reader.readexactly(1))[0]
            host = (await reader.readexactly(length)).decode()
        elif kind == _IPV4:
            host = socket.inet_ntop(socket.AF_INET, await reader.readexactly(4))
        else:
            assert kind == _IPV6
            host = socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
        return host, int.from_bytes(await reader.readexactly(2), "big")
