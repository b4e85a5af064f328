"""The ring, its database and time, against a model with no memory at all."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from manyways.access.keys import KeyRing, KeyType, Settings, new_secret
from manyways.errors import Refusal
from manyways.operations import create_key, find_keys, list_keys, revoke_key
from manyways.store.database import Settings as DatabaseSettings
from manyways.store.database import open_database

SHAPE = Settings(types={"short": KeyType(lifetime=10.0), "endless": KeyType()})


class RingAndModel(RuleBasedStateMachine):
    """Two programs: the server with its ring, and a command line that changes keys.

    What the ring says is what the model says now, or (until the ring has polled after a
    change) what it said at the last poll or later.
    """

    secrets: Bundle[str] = Bundle("secrets")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        address = DatabaseSettings(url=f"sqlite:///{Path(self.folder.name) / 'model.db'}")
        self.loop = asyncio.new_event_loop()
        self.server = open_database(address)
        self.command_line = open_database(address)
        self.ring = KeyRing(self.server, SHAPE, max_known=3, max_unknown=2)
        self.now = 1_800_000_000.0
        self.expiry: dict[str, float] = {}
        self.ids: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.changed_since_poll: set[str] = set()
        self.loop.run_until_complete(self.ring.poll())

    def teardown(self) -> None:
        self.server.close()
        self.command_line.close()
        self.loop.close()
        self.folder.cleanup()

    @rule(target=secrets, kind=st.sampled_from(sorted(SHAPE.types)))
    def create(self, kind: str) -> str:
        made = create_key(self.command_line, SHAPE, kind, now=self.now)
        lifetime = SHAPE.types[kind].lifetime
        assert made.expires_at == (None if lifetime is None else int(self.now + lifetime))
        self.ids[made.key] = made.id
        self.expiry[made.key] = float("inf") if made.expires_at is None else made.expires_at
        return made.key

    @rule(target=secrets)
    def a_stranger_turns_up(self) -> str:
        return new_secret(SHAPE)

    @rule(secret=secrets)
    def revoke(self, secret: str) -> None:
        if secret in self.ids:
            revoke_key(self.command_line, self.ids[secret], reason="a test", now=self.now)
            if secret not in self.revoked:
                self.changed_since_poll.add(secret)
            self.revoked.add(secret)

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 9.75, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def poll(self) -> None:
        self.loop.run_until_complete(self.ring.poll())
        self.changed_since_poll.clear()

    @rule()
    def forget(self) -> None:
        self.ring.forget()
        self.changed_since_poll.clear()

    @rule(secret=secrets)
    def authenticate(self, secret: str) -> None:
        expected = self.model(secret)
        allowed = {expected}
        if secret in self.changed_since_poll:
            allowed.add(self.model(secret, unrevoked=True))
        known = self.ring.known(secret, self.now)
        assert known is None or known.key_id in allowed
        try:
            said = self.loop.run_until_complete(self.ring.authenticate(secret, self.now)).key_id
        except Refusal as refused:
            said = refused.code
        assert said in allowed

    def model(self, secret: str, *, unrevoked: bool = False) -> str:
        if secret not in self.ids:
            return "invalid_api_key"
        if secret in self.revoked and not unrevoked:
            return "revoked_api_key"
        if self.now >= self.expiry[secret]:
            return "expired_api_key"
        return self.ids[secret]

    @rule(secret=secrets)
    def an_operator_finds_a_key_by_all_its_names(self, secret: str) -> None:
        found = find_keys(self.command_line, secret)
        assert [key.id for key in found] == ([self.ids[secret]] if secret in self.ids else [])
        if found:
            assert found == find_keys(self.command_line, found[0].id)
            assert found[0] in find_keys(self.command_line, secret[-4:])

    @invariant()
    def the_list_is_the_model(self) -> None:
        alive = {key.id for key in list_keys(self.command_line, alive_at=self.now)}
        # To the second: that is how finely expiry is kept.
        assert alive == {
            self.ids[secret]
            for secret in self.ids.keys() - self.revoked
            if int(self.now) < self.expiry[secret]
        }
        assert {key.id for key in list_keys(self.command_line)} == set(self.ids.values())


RingAndModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRingAndModel = RingAndModel.TestCase
