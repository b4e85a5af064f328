"""Whom a load asks: the upstream itself, or a gateway before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from bench import wire


@dataclass(frozen=True, kw_only=True)
class Target:
    """An address on loopback and what it wants to hear. `secrets` is a file of keys, one a line,
    with which a load asks in turn; then `headers` has the first of them."""

    port: int
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = wire.MODEL
    secrets: Path | None = None

    def asked_with(self, secret: str, *, secrets: Path | None = None) -> Self:
        """The same address, asked with a key, or with all of a file, of which it is the first."""
        headers = {**self.headers, "Authorization": f"Bearer {secret}"}
        return replace(self, headers=headers, secrets=secrets)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def request(self, body: bytes) -> bytes:
        """A whole HTTP request, as it goes over the wire."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
