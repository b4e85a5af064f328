"""What the ring says about a key's account and limits, and how it hears of changes."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyways.access.keys import KeyRing, KeyType, Settings, digest, new_secret
from manyways.errors import Refusal
from manyways.operations import (
    CreatedKey,
    create_account,
    create_key,
    resume_account,
    revoke_key,
    rotate_key,
    set_account_limits,
    set_key_limits,
    suspend_account,
)
from manyways.store import changes, keys
from manyways.store.accounts import AccountRow
from manyways.store.database import Database, open_database
from manyways.store.keys import KeyRow
from manyways.types import Allowance, Caller, Quota, Scope
from tests.support.databases import migrated

NOW = 1_800_000_000.0
OF_TYPE = Allowance(requests=9, window=60.0, concurrent=2)
OF_ACCOUNTS = Allowance(quota=(Quota(cost=5.0, per="day"),))
OWN = Allowance(tokens=7, tokens_window=3600.0)
SETTINGS = Settings(
    types={
        "team": KeyType(requests=9, window=60.0, concurrent=2, lifetime=1e6),
        "free": KeyType(),
        "boss": KeyType(admin=True, concurrent=2),
    }
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "ring.db"))
    yield database
    database.close()


@pytest.fixture
def ring(database: Database) -> KeyRing:
    return KeyRing(database, SETTINGS, accounts=OF_ACCOUNTS)


@pytest.fixture
def ada(database: Database) -> AccountRow:
    return create_account(database, name="Ada", now=NOW)


def key(database: Database, kind: str = "team", account: str | None = None) -> CreatedKey:
    return create_key(database, SETTINGS, kind, account=account, now=NOW)


async def refusal(ring: KeyRing, secret: str) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await ring.authenticate(secret, NOW)
    return refused.value


class TestScopes:
    async def test_a_key_bears_the_limits_of_its_type(
        self, ring: KeyRing, database: Database
    ) -> None:
        made = key(database)
        caller = await ring.authenticate(made.key, NOW)
        assert caller.scopes == (Scope(id=f"key:{made.id}", allowance=OF_TYPE),)
        assert type(caller.scopes[0].allowance) is Allowance
        assert caller.account_id is None
        assert not caller.admin

    async def test_or_its_own_and_its_account_bears_those_of_the_configuration_or_its_own(
        self, ring: KeyRing, database: Database, ada: AccountRow
    ) -> None:
        made = key(database, account="Ada")
        mine, ours = f"key:{made.id}", f"account:{ada.id}"
        caller = await ring.authenticate(made.key, NOW)
        assert caller.account_id == ada.id
        assert caller.scopes == (
            Scope(id=mine, allowance=OF_TYPE),
            Scope(id=ours, allowance=OF_ACCOUNTS),
        )
        set_key_limits(database, made.id, OWN, now=NOW)
        set_account_limits(database, ada.id, OF_TYPE, now=NOW)
        await ring.poll()
        caller = await ring.authenticate(made.key, NOW)
        assert caller.scopes == (
            Scope(id=mine, allowance=OWN),
            Scope(id=ours, allowance=OF_TYPE),
        )

    async def test_what_limits_nothing_is_no_scope(
        self, ring: KeyRing, database: Database, ada: AccountRow
    ) -> None:
        assert (await ring.authenticate(key(database, "free").key, NOW)).scopes == ()
        made = key(database, account="Ada")
        set_key_limits(database, made.id, Allowance(), now=NOW)
        set_account_limits(database, ada.id, Allowance(), now=NOW)
        assert (await ring.authenticate(made.key, NOW)).scopes == ()

    async def test_keys_that_replaced_each_other_are_counted_together(
        self, ring: KeyRing, database: Database
    ) -> None:
        first = key(database)
        second = rotate_key(database, SETTINGS, first.id, overlap=60.0, now=NOW)
        assert second is not None
        third = rotate_key(database, SETTINGS, second.id, overlap=60.0, now=NOW)
        assert third is not None
        callers = [await ring.authenticate(one.key, NOW) for one in (first, second, third)]
        assert {caller.scopes for caller in callers} == {
            (Scope(id=f"key:{first.id}", allowance=OF_TYPE),)
        }
        assert [caller.key_id for caller in callers] == [first.id, second.id, third.id]

    async def test_only_types_that_say_so_may_administer(
        self, ring: KeyRing, database: Database
    ) -> None:
        kinds = ("team", "free", "boss")
        callers = [await ring.authenticate(key(database, kind).key, NOW) for kind in kinds]
        assert [caller.admin for caller in callers] == [False, False, True]

    async def test_a_type_that_is_gone_limits_nothing_and_administers_nothing(
        self, database: Database
    ) -> None:
        ring = KeyRing(database, Settings())
        caller = await ring.authenticate(key(database, "boss").key, NOW)
        assert (caller.scopes, caller.admin) == ((), False)


class TestSuspension:
    async def test_all_its_keys_stop_and_go_on_when_it_is_resumed(
        self, ring: KeyRing, database: Database, ada: AccountRow
    ) -> None:
        made = [key(database, account="Ada") for _ in range(2)]
        other = key(database)
        await ring.poll()
        for one in (*made, other):
            await ring.authenticate(one.key, NOW)
        suspend_account(database, ada.id, reason="secretly a cat", now=NOW)
        await ring.poll()
        for one in made:
            assert ring.known(one.key, NOW) is None
            refused = await refusal(ring, one.key)
            assert refused.code == "account_not_active"
            assert one.last4 in refused.message
            assert "cat" not in refused.message
            assert ring.known(one.key, NOW) is None, "remembered as what it is"
        assert ring.known(other.key, NOW)
        resume_account(database, ada.id, now=NOW)
        await ring.poll()
        for one in made:
            assert (await ring.authenticate(one.key, NOW)).key_id == one.id

    async def test_of_several_reasons_the_one_that_nobody_can_mend_is_told(
        self, ring: KeyRing, database: Database, ada: AccountRow
    ) -> None:
        made = key(database, account="Ada")
        suspend_account(database, ada.id, now=NOW)
        with pytest.raises(Refusal) as refused:
            await ring.authenticate(made.key, NOW + 1e6)
        assert refused.value.code == "expired_api_key"
        revoke_key(database, made.id, now=NOW)
        await ring.poll()
        assert (await refusal(ring, made.key)).code == "revoked_api_key"


class TestFollowing:
    async def test_only_what_has_changed_is_forgotten(
        self, ring: KeyRing, database: Database, ada: AccountRow
    ) -> None:
        made = [key(database, account=account) for account in (None, None, "Ada", "Ada")]
        await ring.poll()
        for one in made:
            await ring.authenticate(one.key, NOW)
        revoke_key(database, made[0].id, now=NOW)
        assert await ring.poll() is True
        assert [bool(ring.known(one.key, NOW)) for one in made] == [False, True, True, True]
        set_account_limits(database, ada.id, OWN, now=NOW)
        key(database)
        assert await ring.poll() is True
        assert [bool(ring.known(one.key, NOW)) for one in made] == [False, True, False, False]

    async def test_what_is_dropped_for_room_is_forgotten_as_an_accounts_too(
        self, database: Database, ada: AccountRow
    ) -> None:
        ring = KeyRing(database, SETTINGS, max_known=2)
        made = [key(database, account="Ada") for _ in range(5)]
        await ring.poll()
        for one in made:
            await ring.authenticate(one.key, NOW)
        assert len(ring._of_account[ada.id]) == 2
        for one in (key(database), key(database)):
            await ring.authenticate(one.key, NOW)
        assert ring._of_account == {}
        suspend_account(database, ada.id, now=NOW)
        assert await ring.poll() is True

    async def test_a_strangers_key_that_is_made_works_after_one_poll(
        self, ring: KeyRing, database: Database
    ) -> None:
        await ring.poll()
        secret, other = new_secret(SETTINGS), new_secret(SETTINGS)
        for one in (secret, other):
            await refusal(ring, one)
        row = KeyRow(id="1", last4=secret[-4:], type="free", created_at=1)
        changes.in_turn(database, lambda connection: keys.add(connection, row, digest(secret)))
        await ring.poll()
        assert (await ring.authenticate(secret, NOW)).key_id == "1"
        assert repr(ring) == "<KeyRing 1 known, 1 unknown, 0 asked>"

    async def test_what_was_asked_before_its_account_changed_is_not_remembered(
        self, ring: KeyRing, database: Database, ada: AccountRow
    ) -> None:
        made = key(database, account="Ada")
        await ring.poll()
        gate = threading.Event()
        held = asyncio.create_task(database.call(lambda _: gate.wait(10), limit=20.0))
        await asyncio.sleep(0)
        polling = asyncio.create_task(ring.poll())
        await asyncio.sleep(0)
        suspend_account(database, ada.id, now=NOW)
        early: asyncio.Task[Caller] = asyncio.create_task(ring.authenticate(made.key, NOW))
        for _ in range(3):
            await asyncio.sleep(0)
        assert repr(ring) == "<KeyRing 0 known, 0 unknown, 1 asked>"
        gate.set()
        await polling
        with pytest.raises(Refusal):
            await early
        assert repr(ring) == "<KeyRing 0 known, 0 unknown, 0 asked>"
        await held
