"""`GET /readyz`: whether this process can serve requests now, and what it waits for."""

from typing import Any

from manyways.catalog.catalog import Catalog
from manyways.dialects import json_text
from manyways.edge.exchange import JSON, Exchange
from manyways.store.shared import Shared
from manyways.usage.journal import Journal
from manyways.usage.ledger import Ledger

_BRIEFLY = (b"retry-after", b"1")


class ReadinessPage:
    """200 while requests can be served, though something may be amiss; else 503."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        journal: Journal,
        ledger: Ledger,
        shared: Shared | None,
    ) -> None:
        self._catalog = catalog
        self._journal = journal
        self._ledger = ledger
        self._shared = shared

    async def ready(self, exchange: Exchange) -> None:
        """`{"status", "models", "usage": {...}}`, and `redis` where there is one."""
        count = len(self._catalog.snapshot.models)
        backlog = self._ledger.backlog
        told: dict[str, Any] = {
            "status": "ready",
            "models": count,
            "usage": {
                "backlog": backlog.lines,
                "oldest_s": round(backlog.age, 1),
                "unwritten": self._journal.waiting,
            },
        }
        if self._shared is not None:
            told["redis"] = "away" if self._shared.away else "connected"
        if not count:
            told["status"] = "no models"
        elif self._journal.refuses:
            told["status"] = "records cannot be written"
        if told["status"] == "ready":
            await exchange.answer(json_text.encode(told))
        else:
            await exchange.answer(json_text.encode(told), 503, [JSON, _BRIEFLY])
