"""The operator's pages about keys and accounts, on a database of their own."""

from typing import Any

from manyways.access.keys import KeyRing, KeyType, Settings
from manyways.edge.admin_accounts import AccountPages
from manyways.edge.admin_keys import KeyPages
from manyways.edge.clerk import Clerk
from manyways.edge.exchange import Exchange
from manyways.errors import Refusal
from manyways.store.database import Database
from manyways.types import Caller
from tests.edge.pages import Page, ask, authenticate, edge

NOON = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""
KEYS, ACCOUNTS = "/admin/v1/keys", "/admin/v1/accounts"


class Office:
    """Who has the key `admin` may do everything here. `now` moves as it is told to."""

    def __init__(self, database: Database, limit: float = 2.0) -> None:
        self.now = NOON
        self.database = database
        self.settings = Settings(
            types={
                "full": KeyType(requests=30, window=60.0, lifetime=86400.0),
                "admin": KeyType(admin=True),
            }
        )
        self.ring = KeyRing(database, self.settings)
        self.clerk = Clerk(database, admit=_admit, changed=self.ring.poll, limit=limit)
        keys = KeyPages(self.clerk, self.settings, clock=lambda: self.now)
        accounts = AccountPages(self.clerk, clock=lambda: self.now)
        self.edge = edge(
            {
                KEYS: {"GET": keys.list, "POST": keys.create},
                ACCOUNTS: {"GET": accounts.list, "POST": accounts.create},
            },
            {
                f"{KEYS}/{{id}}": {"GET": keys.show, "PATCH": keys.change},
                f"{KEYS}/{{id}}/revoke": {"POST": keys.revoke},
                f"{KEYS}/{{id}}/rotate": {"POST": keys.rotate},
                f"{ACCOUNTS}/{{id}}": {"GET": accounts.show, "PATCH": accounts.change},
                f"{ACCOUNTS}/{{id}}/suspend": {"POST": accounts.suspend},
                f"{ACCOUNTS}/{{id}}/resume": {"POST": accounts.resume},
            },
        )

    def close(self) -> None:
        self.clerk.close()

    async def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = "admin"
    ) -> Page:
        return await ask(self.edge, path, key=key, method=method, body=body)

    async def done(self, method: str, path: str, body: object = None) -> Any:
        """The page's content, where it went well."""
        page = await self.ask(method, path, body)
        assert page.status in {200, 201}, page.body
        assert page.headers["cache-control"] == "no-store"
        return page.json()

    async def refused(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, str, str | None]:
        """Status, code and field of the error."""
        page = await self.ask(method, path, body)
        assert page.status >= 400, page.body
        return page.status, page.code, page.json()["error"]["param"]

    async def opens(self, secret: str) -> str:
        """What a key gets: `open`, or why it gets nothing."""
        try:
            await self.ring.authenticate(secret, self.now)
        except Refusal as refusal:
            return refusal.code
        return "open"


async def _admit(exchange: Exchange) -> Caller:
    caller = await authenticate(exchange)
    if caller.key_type != "admin":
        raise Refusal("admin_required", "No.")
    return caller
