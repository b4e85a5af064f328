"""The ring, its database and time, against a model with no memory at all."""

import asyncio
import tempfile
from collections.abc import Callable
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
from msgspec import Struct
from msgspec.structs import replace

from manyways.access.keys import KeyRing, KeyType, Settings, new_secret
from manyways.errors import Refusal
from manyways.operations import (
    CreatedKey,
    Mistake,
    create_account,
    create_key,
    find_keys,
    list_keys,
    resume_account,
    revoke_key,
    rotate_key,
    suspend_account,
)
from manyways.store.database import open_database
from tests.support.databases import migrated

SHAPE = Settings(types={"short": KeyType(lifetime=10.0), "endless": KeyType()})
NAMES = ("Ada", "Bob")


class State(Struct, frozen=True):
    """What the database has at one moment: by secret, the id, the account, and the end."""

    ids: dict[str, str] = {}
    accounts: dict[str, str | None] = {}
    ends: dict[str, float] = {}
    revoked: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()
    suspended: frozenset[str] = frozenset()

    def says(self, secret: str, now: float) -> str:
        if secret not in self.ids:
            return "invalid_api_key"
        if secret in self.revoked:
            return "revoked_api_key"
        if now >= self.ends[secret]:
            return "expired_api_key"
        if self.accounts[secret] in self.suspended:
            return "account_not_active"
        return self.ids[secret]

    def also(self, made: CreatedKey) -> "State":
        end = float("inf") if made.expires_at is None else float(made.expires_at)
        return replace(
            self,
            ids=self.ids | {made.key: made.id},
            accounts=self.accounts | {made.key: made.account},
            ends=self.ends | {made.key: end},
        )


class RingAndModel(RuleBasedStateMachine):
    """Two programs: the server with its ring, and a command line that changes keys.

    What the ring says is what the model says now, or (until the ring has polled after a
    change) what it said at the last poll or later.
    """

    secrets: Bundle[str] = Bundle("secrets")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        address = migrated(Path(self.folder.name) / "model.db")
        self.loop = asyncio.new_event_loop()
        self.server = open_database(address)
        self.command_line = open_database(address)
        self.ring = KeyRing(self.server, SHAPE, max_known=3, max_unknown=2)
        self.now = 1_800_000_000.0
        self.states = [State()]  # since the last poll, the newest last
        self.account_ids = {
            name: create_account(self.command_line, name=name, now=self.now).id for name in NAMES
        }
        self.loop.run_until_complete(self.ring.poll())

    def teardown(self) -> None:
        self.server.close()
        self.command_line.close()
        self.loop.close()
        self.folder.cleanup()

    @property
    def state(self) -> State:
        return self.states[-1]

    def change(self, change: Callable[[State], State]) -> None:
        self.states.append(change(self.state))

    @rule(
        target=secrets,
        kind=st.sampled_from(sorted(SHAPE.types)),
        account=st.sampled_from([None, *NAMES]),
    )
    def create(self, kind: str, account: str | None) -> str:
        made = create_key(self.command_line, SHAPE, kind, account=account, now=self.now)
        lifetime = SHAPE.types[kind].lifetime
        assert made.expires_at == (None if lifetime is None else int(self.now + lifetime))
        self.change(lambda state: state.also(made))
        return made.key

    @rule(target=secrets)
    def a_stranger_turns_up(self) -> str:
        return new_secret(SHAPE)

    @rule(secret=secrets)
    def revoke(self, secret: str) -> None:
        if secret in self.state.ids:
            key_id = self.state.ids[secret]
            revoke_key(self.command_line, key_id, reason="a test", now=self.now)
            self.change(lambda state: replace(state, revoked=state.revoked | {secret}))

    @rule(target=secrets, secret=secrets, overlap=st.sampled_from([0.0, 3.0]))
    def rotate(self, secret: str, overlap: float) -> str:
        before = self.state
        if secret not in before.ids:
            return secret
        ended = secret in before.revoked or self.now >= before.ends[secret]
        try:
            made = rotate_key(
                self.command_line, SHAPE, before.ids[secret], overlap=overlap, now=self.now
            )
        except Mistake:
            assert ended or secret in before.replaced
            return secret
        assert made is not None
        assert not ended
        end = min(before.ends[secret], float(int(self.now + overlap)))
        self.change(
            lambda state: replace(
                state.also(made),
                ends=state.also(made).ends | {secret: end},
                replaced=state.replaced | {secret},
            )
        )
        return made.key

    @rule(name=st.sampled_from(NAMES))
    def suspend(self, name: str) -> None:
        suspend_account(self.command_line, self.account_ids[name], now=self.now)
        self.change(lambda state: replace(state, suspended=state.suspended | {name}))

    @rule(name=st.sampled_from(NAMES))
    def resume(self, name: str) -> None:
        resume_account(self.command_line, self.account_ids[name], now=self.now)
        self.change(lambda state: replace(state, suspended=state.suspended - {name}))

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 9.75, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def poll(self) -> None:
        self.loop.run_until_complete(self.ring.poll())
        self.states = [self.state]

    @rule()
    def forget(self) -> None:
        self.ring.forget()
        self.states = [self.state]

    @rule(secret=secrets)
    def authenticate(self, secret: str) -> None:
        allowed = {state.says(secret, self.now) for state in self.states}
        known = self.ring.known(secret, self.now)
        assert known is None or known.key_id in allowed
        try:
            said = self.loop.run_until_complete(self.ring.authenticate(secret, self.now)).key_id
        except Refusal as refused:
            said = refused.code
        assert said in allowed

    @rule(secret=secrets)
    def an_operator_finds_a_key_by_all_its_names(self, secret: str) -> None:
        found = find_keys(self.command_line, secret)
        ids = self.state.ids
        assert [key.id for key in found] == ([ids[secret]] if secret in ids else [])
        if found:
            assert found == find_keys(self.command_line, found[0].id)
            assert found[0] in find_keys(self.command_line, secret[-4:])

    @invariant()
    def the_list_is_the_model(self) -> None:
        state = self.state
        alive = {key.id for key in list_keys(self.command_line, alive_at=self.now)}
        # To the second: that is how finely expiry is kept.
        assert alive == {
            state.ids[secret]
            for secret in state.ids.keys() - state.revoked
            if int(self.now) < state.ends[secret]
        }
        assert {key.id for key in list_keys(self.command_line)} == set(state.ids.values())

    @invariant()
    def each_account_in_memory_has_its_keys_and_no_others(self) -> None:
        held = {
            (found.caller.account_id, key)
            for key, found in self.ring._known.items()
            if found.caller.account_id is not None
        }
        listed = {(name, key) for name, keys in self.ring._of_account.items() for key in keys}
        assert held == listed
        assert all(self.ring._of_account.values())


RingAndModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRingAndModel = RingAndModel.TestCase
