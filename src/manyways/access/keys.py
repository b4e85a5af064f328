"""Keys: their shape, their types, and who a presented secret belongs to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import string
import sys
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from msgspec import Struct, field

from manyways.access.throttle import Throttle, origin_of
from manyways.errors import Refusal, StoreError
from manyways.store.database import Database
from manyways.types import Allowance, Caller, Scope

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from manyways.store.changes import Changes
    from manyways.store.keys import Held

# Digests held in memory: of keys, and of secrets that lately turned out to be nobody's.
MAX_KNOWN = 100_000
MAX_UNKNOWN = 10_000
# Seconds for which a secret stays nobody's without asking again.
UNKNOWN_LIFE = 5.0
# Seconds a look-up may take.
LOOK_UP_LIMIT = 5.0
# Keys of those that have changed since the last look that are read anew at once.
RENEWED = 50

ALPHABET = string.ascii_letters + string.digits

_UNLIMITED = Allowance()

log = logging.getLogger(__name__)


class KeyType(Allowance, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[keys.types.NAME]` table. Durations in seconds; an absent limit is no limit."""

    lifetime: float | None = None
    admin: bool = False


def _usual_types() -> dict[str, KeyType]:
    return {
        "test": KeyType(requests=30, window=3600.0, lifetime=3600.0),
        "full": KeyType(requests=30, window=60.0, lifetime=30 * 86400.0),
        "admin": KeyType(admin=True),
    }


class Settings(Struct, frozen=True, kw_only=True):
    """The `[keys]` section: `length` counts the prefix too.

    A key of another shape than this is nobody's, so changing it ends every key made before.
    The configuration sees to it that the shape can travel in a header and cannot be guessed.
    `wrong_a_minute` is how many wrong keys one address may try.
    """

    prefix: str = "rvf_"
    length: int = 75
    wrong_a_minute: int = 30
    types: dict[str, KeyType] = field(default_factory=_usual_types)


def new_secret(settings: Settings) -> str:
    """A new key: the prefix, then letters and digits from the system's randomness."""
    count = settings.length - len(settings.prefix)
    return settings.prefix + "".join(secrets.choice(ALPHABET) for _ in range(count))


def digest(secret: str) -> bytes:
    """What is kept of a key: its SHA-256, 32 bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def well_formed(secret: str, settings: Settings) -> bool:
    """Whether this could be a key at all: only then is the database worth asking."""
    count = settings.length - len(settings.prefix)
    shape = f"{re.escape(settings.prefix)}[A-Za-z0-9]{{{count}}}"
    return re.fullmatch(shape, secret) is not None


class _Known(Struct, frozen=True):
    """A key in memory. `works_until` is when `known` stops taking it: minus infinity where it
    does not work at all."""

    caller: Caller
    works_until: float
    expires_at: float  # infinity where it never does
    revoked: bool
    suspended: bool


class KeyRing:
    """Authentication from memory, the database on a miss only.

    Secrets are looked up by their SHA-256 and never compared: how long a look-up takes says
    something about the digest at most, and nobody can steer a digest towards a stored one.

    Memory follows the database: `poll` forgets the keys and accounts that have changed since.
    Who changes any in this very process calls it at once, and what was changed bites before the
    call returns; `follow` calls it twice a second, for what others change. While the database is
    away, keys in memory go on working.

    An address that has sent `wrong_a_minute` wrong keys is told to wait, and nothing is looked
    up for it meanwhile. Keys in memory go on working from there: it may be the address of many.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        accounts: Allowance = _UNLIMITED,
        max_known: int = MAX_KNOWN,
        max_unknown: int = MAX_UNKNOWN,
    ) -> None:
        """`accounts` is what an account without limits of its own may use."""
        # Here and not above: reading settings is no reason to import SQLAlchemy.
        from manyways.store import changes, keys

        self._by_digest = keys.by_digest
        self._changes = changes.since
        self._database = database
        self._settings = settings
        self._length = settings.length
        self._types = {name: _limits_of(kind) for name, kind in settings.types.items()}
        self._accounts = accounts
        self._max_known = max_known
        self._max_unknown = max_unknown
        # Every key in `_known` is as the database had it at or after the last poll that found it
        # changed. The one used last stands last, and the first is dropped when there are too many.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        # The keys in `_known` of each account.
        self._of_account: dict[str, set[bytes]] = {}
        # Until when a digest is nobody's, oldest first.
        self._unknown: dict[bytes, float] = {}
        # Look-ups under way that nothing has overtaken: one a digest, shared by all who wait.
        self._asked: dict[bytes, asyncio.Task[_Known | None]] = {}
        self._throttle = Throttle(settings.wrong_a_minute)
        # Unknown secrets of one origin are looked up one after the other: however many come at
        # once, no more than the throttle allows turn out to be wrong. Kept while in use.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._counter: int | None = None  # the database's count of changes, as last seen
        self._away = False  # whether the last poll found no database

    def __repr__(self) -> str:
        return (
            f"<KeyRing {len(self._known)} known, {len(self._unknown)} unknown, "
            f"{len(self._asked)} asked{', database away' if self._away else ''}>"
        )

    def known(self, secret: str | None, now: float) -> Caller | None:
        """Whose key this is, if memory knows it and it works at this moment.

        `None` says nothing yet: ask `authenticate`.
        """
        if secret is None or len(secret) != self._length:
            return None
        key = digest(secret)
        found = self._known.get(key)
        if found is None or now >= found.works_until:
            return None
        self._known.move_to_end(key)
        return found.caller

    async def authenticate(self, secret: str | None, now: float, address: str = "") -> Caller:
        """Whose key this is. `now` is in Unix seconds; `address` is the caller's, and empty where
        wrong keys are not to be counted.

        Raises `Refusal` (`invalid_api_key`, `expired_api_key`, `revoked_api_key`,
        `account_not_active`, `rate_limit_exceeded`), and `StoreError` where the database is
        needed and cannot answer.
        """
        if not secret:
            raise Refusal(
                "invalid_api_key",
                "No API key was sent. Send yours in the header 'Authorization: Bearer <key>'.",
            )
        found = await self._find(secret, now, origin_of(address) if address else "")
        if found is None:
            raise Refusal("invalid_api_key", "This API key is not known here. Check it for typos.")
        last4 = found.caller.last4
        if found.revoked:
            raise Refusal("revoked_api_key", f"The API key ending in {last4} has been revoked.")
        if now >= found.expires_at:
            raise Refusal("expired_api_key", f"The API key ending in {last4} has expired.")
        if found.suspended:
            raise Refusal(
                "account_not_active",
                f"The account of the API key ending in {last4} is suspended. Ask whoever gave you"
                " the key.",
            )
        return found.caller

    def forget(self) -> None:
        """Empty the memory. Look-ups under way answer those who wait, and nobody else."""
        self._known.clear()
        self._of_account.clear()
        self._unknown.clear()
        self._asked.clear()

    async def poll(self) -> bool:
        """Look once what has changed, and forget that; keys are read anew at once, so that they
        go on working though the database may go. Says whether anything had changed.

        A database that cannot answer changes nothing; the log is told when that begins and
        when it is over.
        """
        seen = self._counter
        try:
            changed, renewed = await self._database.call(
                partial(self._changed, seen=seen), limit=LOOK_UP_LIMIT
            )
        except StoreError as error:
            if not self._away:
                log.warning("Keys already in memory go on working, others do not: %s", error)
            self._away = True
            return False
        if self._away:
            log.info("The database answers again.")
            self._away = False
        if changed is None:
            return False
        self._counter = changed.counter
        if changed.everything:
            self.forget()
            return True
        wanted = [key for key in renewed if key in self._known or key in self._asked]
        if changed.account_ids:
            # Nobody knows whose the keys are that are being looked up.
            self._asked.clear()
        for account_id in changed.account_ids:
            for key in self._of_account.pop(account_id, ()):
                del self._known[key]
        for key in changed.digests:
            self._forget_one(key)
        for key in wanted:
            self._remember(key, self._as_known(renewed[key]))
        return True

    def _changed(
        self, connection: Connection, seen: int | None
    ) -> tuple[Changes | None, dict[bytes, Held]]:
        """What has changed, and how the keys stand now, where they are few. Runs in the
        database's thread."""
        changed = self._changes(connection, seen=seen)
        keys = () if changed is None else changed.digests
        found = {key: self._by_digest(connection, key) for key in keys[:RENEWED]}
        return changed, {key: held for key, held in found.items() if held is not None}

    async def follow(self, interval: float = 0.5) -> None:
        """Poll every `interval` seconds until cancelled.

        A failure that nobody foresaw is logged and empties the memory: a key must not go on
        working because nobody looks any more.
        """
        while True:
            try:
                await self.poll()
            except Exception:  # whatever it is: who looks no more must not trust what it knew
                log.exception("Following the keys failed; all are asked for anew.")
                self.forget()
            await asyncio.sleep(interval)

    def _is_unknown(self, key: bytes, now: float) -> bool:
        until = self._unknown.get(key)
        # A clock that was set back must not make "lately" last for hours.
        return until is not None and until - UNKNOWN_LIFE <= now < until

    async def _find(self, secret: str, now: float, origin: str) -> _Known | None:
        """The key, or `None` for a wrong one, which counts against its origin."""
        if well_formed(secret, self._settings):
            key = digest(secret)
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
                return found
            if not origin:
                return None if self._is_unknown(key, now) else await self._look_up(key, now)
            found = await self._find_in_turn(key, now, origin)
            if found is not None:
                return found
        elif origin:
            self._let_try(origin, now)
        if origin:
            self._throttle.failed(origin, now)
        return None

    async def _find_in_turn(self, key: bytes, now: float, origin: str) -> _Known | None:
        """Raises `Refusal` where the origin has sent too many wrong keys meanwhile."""
        self._let_try(origin, now)
        if self._is_unknown(key, now):
            return None
        turn = self._turns.get(origin)
        if turn is None:
            turn = self._turns[origin] = asyncio.Lock()
        try:
            async with asyncio.timeout(LOOK_UP_LIMIT):
                await turn.acquire()
        except TimeoutError:
            raise StoreError("The database is too slow: too many keys wait for it.") from None
        try:
            self._let_try(origin, now)
            if self._is_unknown(key, now):
                return None
            return self._known.get(key) or await self._look_up(key, now)
        finally:
            turn.release()

    def _let_try(self, origin: str, now: float) -> None:
        wait = self._throttle.wait(origin, now)
        if wait:
            raise Refusal(
                "rate_limit_exceeded",
                f"Too many wrong API keys came from your address. Try again in {wait} s.",
                retry_after=wait,
            )

    async def _look_up(self, key: bytes, now: float) -> _Known | None:
        task = self._asked.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, now))
            self._asked[key] = task
            task.add_done_callback(_heard)
        # Whoever leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, now: float) -> _Known | None:
        me = asyncio.current_task()
        try:
            held = await self._database.call(
                lambda connection: self._by_digest(connection, key), limit=LOOK_UP_LIMIT
            )
        finally:
            # Asked before something was forgotten: too old to be kept.
            current = self._asked.get(key) is me
            if current:
                del self._asked[key]
        if held is None:
            if current:
                self._unknown.pop(key, None)
                self._unknown[key] = now + UNKNOWN_LIFE
                if len(self._unknown) > self._max_unknown:
                    del self._unknown[next(iter(self._unknown))]
            return None
        found = self._as_known(held)
        if current:
            self._remember(key, found)
        return found

    def _as_known(self, held: Held) -> _Known:
        row, account = held
        kind = self._settings.types.get(row.type)
        # A type that is gone from the configuration limits nothing any more.
        own = self._types.get(row.type, _UNLIMITED) if row.limits is None else row.limits
        scopes = [Scope(id=f"key:{row.line or row.id}", allowance=own)] if own.limits else []
        if account is not None:
            shared = self._accounts if account.limits is None else account.limits
            if shared.limits:
                scopes.append(Scope(id=f"account:{account.id}", allowance=shared))
        revoked = row.revoked_at is not None
        suspended = account is not None and not account.active
        expires_at = float("inf") if row.expires_at is None else float(row.expires_at)
        return _Known(
            caller=Caller(
                key_id=row.id,
                key_type=sys.intern(row.type),
                last4=row.last4,
                line=row.line or row.id,
                account_id=row.account_id,
                admin=kind is not None and kind.admin,
                scopes=tuple(scopes),
            ),
            works_until=float("-inf") if revoked or suspended else expires_at,
            expires_at=expires_at,
            revoked=revoked,
            suspended=suspended,
        )

    def _remember(self, key: bytes, found: _Known) -> None:
        self._known[key] = found
        account_id = found.caller.account_id
        if account_id is not None:
            self._of_account.setdefault(account_id, set()).add(key)
        if len(self._known) > self._max_known:
            self._forget_one(next(iter(self._known)))

    def _forget_one(self, key: bytes) -> None:
        self._asked.pop(key, None)
        self._unknown.pop(key, None)
        found = self._known.pop(key, None)
        if found is not None and found.caller.account_id is not None:
            siblings = self._of_account[found.caller.account_id]
            siblings.discard(key)
            if not siblings:
                del self._of_account[found.caller.account_id]


def _limits_of(kind: KeyType) -> Allowance:
    """What a type limits, without the rest of it."""
    return Allowance(**{name: getattr(kind, name) for name in Allowance.__struct_fields__})


def _heard(task: asyncio.Task[_Known | None]) -> None:
    """An error nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()
