"""A gateway that begins beside a journal which it cannot move yet hands nothing out anew."""

import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.chat_wall import GOOD_WHOLE, chat_wall
from tests.support.gateway import Answer, Gateway, provider, running_gateway
from tests.support.valkey import until

pytestmark = pytest.mark.process

CHAT = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
TYPES = "[keys.types.open]\n[keys.types.counted]\ntokens = 1\ntokens_window = '1h'\n"
MAY = 6
LIMITS = {
    "quota": {"quota": [{"requests": MAY, "per": "month"}]},
    "window": {"requests": MAY, "window": "1h"},
    "both": {"requests": 100, "window": "1h", "quota": [{"requests": MAY, "per": "ever"}]},
}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else can write to the database."""
    with closing(sqlite3.connect(folder / "manyways.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def made(gateway: Gateway, limits: object) -> str:
    answer = gateway.ask("/admin/v1/keys", {"type": "open", "limits": limits})
    assert answer.status == 201, answer.body
    return str(answer.json()["key"])


def asked(gateway: Gateway, key: str, count: int) -> list[int]:
    return [gateway.chat(CHAT, key=key).status for _ in range(count)]


def served(gateway: Gateway, key: str) -> Answer:
    """The first answer that is no 503."""
    answers: list[Answer] = []

    def known() -> bool:
        answers.append(gateway.chat(CHAT, key=key))
        return answers[-1].status != 503

    until(known, 30.0, "what was used stays unknown")
    return answers[-1]


def test_what_the_journal_still_holds_is_not_handed_out_anew(tmp_path: Path) -> None:
    """The database is locked before the kill and over the next start: what it knows is too
    little. Whoever has no limits is served as ever, and all others once the lock is gone."""
    with chat_wall() as chats, contextlib.ExitStack() as lock:
        chats.answer = GOOD_WHOLE
        config = TYPES + provider(chats.wall.url, "m")
        with running_gateway(tmp_path, config) as gateway:
            keys = {name: made(gateway, limits) for name, limits in LIMITS.items()}
            unused, free = made(gateway, LIMITS["window"]), made(gateway, {})
            for key in keys.values():
                assert asked(gateway, key, 2) == [200] * 2
            lock.enter_context(locked(tmp_path))
            for key in keys.values():
                assert asked(gateway, key, 3) == [200] * 3
            gateway.stop(signal.SIGKILL)
        with running_gateway(tmp_path, config) as gateway:
            for key in (*keys.values(), unused):
                refused = gateway.chat(CHAT, key=key)
                assert (refused.status, refused.error["code"]) == (503, "server_error")
                assert int(refused.headers["retry-after"]) > 0
            assert asked(gateway, free, 2) == [200] * 2
            lock.close()
            for key in keys.values():
                assert served(gateway, key).status == 200
                assert asked(gateway, key, 2) == [429] * 2
            assert asked(gateway, unused, MAY + 1) == [200] * MAY + [429]
