"""A transport of our own, on the event loop's sockets and llhttp's parser. HTTP/1.1 only.

    send ─▶ origin ─▶ pool ──idle one──────────────▶ wire ──headers──▶ answer ──chunks──▶ end
            what the    │                             ▲ │                                  │
            URL means   └─turn─▶ dial ────────────────┘ └─closed without a word: once      │
                                 names, proxy, TLS        more, on a new connection        │
                        ▲                                                                  │
                        └── given back if whole and clean, else closed at once ◀───────────┘

Decisions are plain calls (`origin`, `pool`, `wire`); only `dial` and `transport` wait. Nothing is
parsed twice, and what came in one read is handed on in one piece.
"""

from manyways.upstream.native.transport import NativeTransport

__all__ = ["NativeTransport"]
