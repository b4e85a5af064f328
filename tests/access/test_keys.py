import asyncio
import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.access.keys import (
    ALPHABET,
    UNKNOWN_LIFE,
    KeyRing,
    KeyType,
    Settings,
    digest,
    new_secret,
    well_formed,
)
from manyways.errors import Refusal, StoreError
from manyways.operations import CreatedKey, create_key, revoke_key
from manyways.store.changes import counted
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings
from manyways.store.ids import new_id
from manyways.store.keys import KeyRow, add
from manyways.types import Allowance, Caller, Scope
from tests.support.databases import migrated

SETTINGS = Settings()
NOW = 1_800_000_000.0

shapes = st.builds(
    lambda prefix, more: Settings(prefix=prefix, length=len(prefix) + more),
    st.text("abcXYZ019_-.", max_size=12),
    st.integers(min_value=1, max_value=90),
)


class TestSecrets:
    @given(shapes)
    def test_a_new_secret_has_the_configured_shape(self, settings: Settings) -> None:
        secret = new_secret(settings)
        assert len(secret) == settings.length
        assert secret.startswith(settings.prefix)
        assert set(secret[len(settings.prefix) :]) <= set(ALPHABET)
        assert well_formed(secret, settings)

    def test_the_usual_shape_is_the_published_one(self) -> None:
        secret = new_secret(SETTINGS)
        assert secret.startswith("rvf_")
        assert len(secret) == 75

    def test_no_two_are_alike(self) -> None:
        assert len({new_secret(SETTINGS) for _ in range(1000)}) == 1000

    @given(st.text(max_size=100))
    def test_whatever_else_is_not_well_formed(self, text: str) -> None:
        letters = text.removeprefix("rvf_")
        right = text.startswith("rvf_") and len(letters) == 71 and set(letters) <= set(ALPHABET)
        assert well_formed(text, SETTINGS) is right

    @pytest.mark.parametrize("spoilt", ["{}\n", " {}", "{}x", "{:.74}", "{:.74}é", "{:.74}٣"])
    def test_a_near_miss_is_not_well_formed(self, spoilt: str) -> None:
        assert not well_formed(spoilt.format(new_secret(SETTINGS)), SETTINGS)

    @given(st.text())
    def test_the_digest_is_the_sha256_of_the_text(self, text: str) -> None:
        assert digest(text) == hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "ring.db"))
    yield database
    database.close()


@pytest.fixture
def made(database: Database) -> CreatedKey:
    return create_key(database, SETTINGS, "full", now=NOW)


@pytest.fixture
def ring(database: Database) -> KeyRing:
    return KeyRing(database, SETTINGS)


async def refusal(ring: KeyRing, secret: str | None, now: float = NOW) -> str:
    with pytest.raises(Refusal) as refused:
        await ring.authenticate(secret, now)
    if secret:
        assert secret not in str(refused.value)
    return refused.value.code


class TestAuthentication:
    async def test_a_key_is_its_owners(self, ring: KeyRing, made: CreatedKey) -> None:
        caller = await ring.authenticate(made.key, NOW)
        assert caller == Caller(
            key_id=made.id,
            key_type="full",
            last4=made.key[-4:],
            line=made.id,
            scopes=(Scope(id=f"key:{made.id}", allowance=Allowance(requests=30, window=60.0)),),
        )

    async def test_memory_answers_from_the_second_time_on(
        self, ring: KeyRing, database: Database, made: CreatedKey
    ) -> None:
        assert ring.known(made.key, NOW) is None
        caller = await ring.authenticate(made.key, NOW)
        database.close()
        assert ring.known(made.key, NOW) == caller
        assert await ring.authenticate(made.key, NOW) == caller

    @pytest.mark.parametrize("secret", [None, "", "sk-1", "rvf_", "é" * 75, "\ud800" * 75])
    async def test_what_can_be_no_key_is_refused_without_asking_the_database(
        self, ring: KeyRing, database: Database, secret: str | None
    ) -> None:
        database.close()
        assert ring.known(secret, NOW) is None
        assert await refusal(ring, secret) == "invalid_api_key"

    async def test_a_strangers_key_is_asked_for_once_in_a_while_only(
        self, ring: KeyRing, database: Database
    ) -> None:
        stranger = new_secret(SETTINGS)
        assert await refusal(ring, stranger) == "invalid_api_key"
        database.close()
        for now in (NOW, NOW + UNKNOWN_LIFE - 0.001):
            assert await refusal(ring, stranger, now) == "invalid_api_key"
        for now in (NOW + UNKNOWN_LIFE, NOW - 3600):
            with pytest.raises(StoreError):
                await ring.authenticate(stranger, now)

    async def test_a_key_works_up_to_its_last_moment(self, ring: KeyRing, made: CreatedKey) -> None:
        assert made.expires_at == NOW + 30 * 86400
        await ring.authenticate(made.key, made.expires_at - 0.001)
        assert ring.known(made.key, made.expires_at) is None
        assert await refusal(ring, made.key, made.expires_at) == "expired_api_key"

    async def test_a_revoked_key_is_remembered_as_such(
        self, ring: KeyRing, database: Database, made: CreatedKey
    ) -> None:
        revoke_key(database, made.id, reason="paid back", now=NOW)
        assert await refusal(ring, made.key) == "revoked_api_key"
        database.close()
        assert ring.known(made.key, NOW) is None
        assert await refusal(ring, made.key, NOW + 1e9) == "revoked_api_key"

    async def test_a_key_whose_type_is_gone_from_the_configuration_still_works(
        self, database: Database, made: CreatedKey
    ) -> None:
        ring = KeyRing(database, Settings(types={"gold": KeyType()}))
        assert (await ring.authenticate(made.key, NOW)).key_type == "full"

    async def test_no_secret_is_in_a_refusal_or_a_repr(
        self, ring: KeyRing, database: Database, made: CreatedKey
    ) -> None:
        revoke_key(database, made.id, reason="paid back", now=NOW)
        await refusal(ring, made.key)
        assert repr(ring) == "<KeyRing 1 known, 0 unknown, 0 asked>"
        assert made.key not in repr(made)

    async def test_without_a_database_an_unknown_key_gets_our_error_not_a_refusal(
        self, ring: KeyRing, database: Database, made: CreatedKey
    ) -> None:
        database.close()
        with pytest.raises(StoreError):
            await ring.authenticate(made.key, NOW)
        assert repr(ring) == "<KeyRing 0 known, 0 unknown, 0 asked>"


class TestBounds:
    async def test_the_key_used_longest_ago_is_dropped_first(self, database: Database) -> None:
        ring = KeyRing(database, SETTINGS, max_known=2)
        first, second, third = (
            create_key(database, SETTINGS, "full", now=NOW).key for _ in range(3)
        )
        await ring.authenticate(first, NOW)
        await ring.authenticate(second, NOW)
        assert ring.known(first, NOW)
        await ring.authenticate(third, NOW)
        assert [bool(ring.known(key, NOW)) for key in (first, second, third)] == [True, False, True]

    async def test_strangers_are_bounded_and_push_no_key_out(
        self, database: Database, made: CreatedKey
    ) -> None:
        ring = KeyRing(database, SETTINGS, max_known=1, max_unknown=3)
        await ring.authenticate(made.key, NOW)
        for _ in range(10):
            await refusal(ring, new_secret(SETTINGS))
        assert repr(ring) == "<KeyRing 1 known, 3 unknown, 0 asked>"
        assert ring.known(made.key, NOW)


class TestCrowds:
    """Many ask for one key at once. The database's thread is held up meanwhile."""

    @pytest.fixture
    def gate(self, database: Database) -> Iterator[threading.Event]:
        gate = threading.Event()
        yield gate
        gate.set()

    async def hold(self, database: Database, gate: threading.Event) -> "asyncio.Task[bool]":
        held = asyncio.create_task(database.call(lambda _: gate.wait(10), limit=20.0))
        await asyncio.sleep(0)
        return held

    async def start(
        self, ring: KeyRing, secret: str, count: int = 1
    ) -> "list[asyncio.Task[Caller]]":
        tasks = [asyncio.create_task(ring.authenticate(secret, NOW)) for _ in range(count)]
        await asyncio.sleep(0)
        return tasks

    async def test_they_share_one_look_up(
        self, ring: KeyRing, database: Database, made: CreatedKey, gate: threading.Event
    ) -> None:
        held = await self.hold(database, gate)
        crowd = await self.start(ring, made.key, 50)
        await asyncio.sleep(0)
        assert repr(ring) == "<KeyRing 0 known, 0 unknown, 1 asked>"
        assert repr(database) == f"<Database {database.path} open, 2 waiting>"
        gate.set()
        assert {caller.key_id for caller in await asyncio.gather(*crowd)} == {made.id}
        await held

    async def test_who_leaves_takes_nothing_from_the_others(
        self, ring: KeyRing, database: Database, made: CreatedKey, gate: threading.Event
    ) -> None:
        held = await self.hold(database, gate)
        leaving, staying = await self.start(ring, made.key, 2)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gate.set()
        assert (await staying).key_id == made.id
        await held

    async def test_what_was_asked_before_a_change_is_not_remembered(
        self, ring: KeyRing, database: Database, made: CreatedKey, gate: threading.Event
    ) -> None:
        held = await self.hold(database, gate)
        early, stranger = (
            *await self.start(ring, made.key),
            *await self.start(ring, new_secret(SETTINGS)),
        )
        await asyncio.sleep(0)
        ring.forget()
        gate.set()
        assert (await early).key_id == made.id
        with pytest.raises(Refusal):
            await stranger
        assert repr(ring) == "<KeyRing 0 known, 0 unknown, 0 asked>"
        await held

    async def test_who_comes_after_a_change_does_not_join_those_before(
        self, ring: KeyRing, database: Database, made: CreatedKey, gate: threading.Event
    ) -> None:
        held = await self.hold(database, gate)
        early = (await self.start(ring, made.key))[0]
        await asyncio.sleep(0)
        ring.forget()
        late = (await self.start(ring, made.key))[0]
        await asyncio.sleep(0)
        assert repr(database) == f"<Database {database.path} open, 3 waiting>"
        gate.set()
        assert await early == await late
        assert ring.known(made.key, NOW) == await late
        await held


class TestFollowing:
    @pytest.fixture
    def elsewhere(self, database: Database) -> Iterator[Database]:
        """The same database as another process has it open."""
        other = open_database(DatabaseSettings(url=f"sqlite:///{database.path}"))
        yield other
        other.close()

    async def test_a_revocation_elsewhere_is_seen_after_one_poll(
        self, ring: KeyRing, elsewhere: Database, made: CreatedKey
    ) -> None:
        await ring.poll()
        await ring.authenticate(made.key, NOW)
        revoke_key(elsewhere, made.id, reason="paid back", now=NOW)
        assert ring.known(made.key, NOW), "not before the poll: memory is what makes it fast"
        assert await ring.poll() is True
        assert ring.known(made.key, NOW) is None
        assert await refusal(ring, made.key) == "revoked_api_key"

    async def test_a_key_made_elsewhere_works_after_one_poll_even_if_tried_before(
        self, ring: KeyRing, elsewhere: Database
    ) -> None:
        await ring.poll()
        secret = new_secret(SETTINGS)
        assert await refusal(ring, secret) == "invalid_api_key"
        row = KeyRow(
            id=new_id(),
            last4=secret[-4:],
            type="full",
            note=None,
            created_at=int(NOW),
            expires_at=None,
            revoked_at=None,
            revoked_reason=None,
        )
        elsewhere.run(lambda connection: add(connection, row, digest(secret)), write=True)
        assert await refusal(ring, secret) == "invalid_api_key"
        assert await ring.poll() is True
        assert (await ring.authenticate(secret, NOW)).key_id == row.id

    async def test_a_poll_that_finds_no_change_keeps_the_memory(
        self, ring: KeyRing, made: CreatedKey
    ) -> None:
        await ring.poll()
        await ring.authenticate(made.key, NOW)
        assert await ring.poll() is False
        assert ring.known(made.key, NOW)

    async def test_without_a_database_known_keys_go_on_and_the_log_is_told_once(
        self,
        ring: KeyRing,
        database: Database,
        made: CreatedKey,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "manyways")
        await ring.poll()
        await ring.authenticate(made.key, NOW)
        sabotage = "ALTER TABLE changes RENAME TO changes_away"
        repair = "ALTER TABLE changes_away RENAME TO changes"
        database.run(lambda connection: connection.exec_driver_sql(sabotage), write=True)
        for _ in range(3):
            assert await ring.poll() is False
        assert ring.known(made.key, NOW)
        assert repr(ring) == "<KeyRing 1 known, 0 unknown, 0 asked, database away>"
        database.run(lambda connection: connection.exec_driver_sql(repair), write=True)
        for _ in range(3):
            assert await ring.poll() is False
        assert ring.known(made.key, NOW)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    async def test_following_polls_again_and_again_until_it_is_cancelled(
        self, ring: KeyRing, database: Database, elsewhere: Database
    ) -> None:
        following = asyncio.create_task(ring.follow(interval=0.0))
        for _ in range(3):
            made = create_key(elsewhere, SETTINGS, "full", now=NOW)
            await ring.authenticate(made.key, NOW)
            revoke_key(elsewhere, made.id, reason="paid back", now=NOW)
            for _ in range(5):  # polls wait in the same line as these calls
                await database.call(lambda _: None, limit=5.0)
            assert ring.known(made.key, NOW) is None
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    async def test_a_failure_nobody_foresaw_empties_the_memory_and_does_not_end_the_following(
        self, ring: KeyRing, database: Database, made: CreatedKey, caplog: pytest.LogCaptureFixture
    ) -> None:
        await ring.poll()
        await ring.authenticate(made.key, NOW)
        database._threads.shutdown()  # from here on, asking is a RuntimeError
        following = asyncio.create_task(ring.follow(interval=0.0))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(caplog.records) > 1
        assert not following.done()
        assert ring.known(made.key, NOW) is None
        assert "RuntimeError" in caplog.text
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following

    async def test_without_its_count_the_database_is_as_good_as_away(
        self, ring: KeyRing, database: Database, made: CreatedKey
    ) -> None:
        await ring.authenticate(made.key, NOW)
        database.run(
            lambda connection: connection.exec_driver_sql("DELETE FROM changes"), write=True
        )
        with pytest.raises(StoreError, match="its count of changes is gone"):
            database.run(counted)
        with pytest.raises(StoreError, match="its count of changes is gone"):
            revoke_key(database, made.id, reason="lost", now=NOW)
        assert await ring.poll() is False
