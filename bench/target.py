"""Whom a load asks: the upstream itself, or a gateway before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench import wire


@dataclass(frozen=True, kw_only=True)
class Target:
    """An address on loopback and what it wants to hear."""

    port: int
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = wire.MODEL

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
