"""What `manyways doctor` finds out about Redis, from real servers."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyways.cli import redis_check
from tests.support.valkey import Valkey, running_cluster, running_sentinel, running_valkey

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("redis")) as valkey:
        valkey.ask("ACL", "SETUSER", "reader", "on", ">sesame", "~*", "+@all", "-@scripting")
        yield valkey


async def test_one_that_is_well_is_told_with_version_and_latency(valkey: Valkey) -> None:
    found = await redis_check.look(valkey.url)

    assert (found.status, found.advice) == ("ok", "")
    assert found.detail.startswith(f"127.0.0.1:{valkey.port} (Valkey ")
    assert found.detail.endswith(" ms away)")
    assert valkey.ask("DBSIZE") == 0, "looking leaves nothing behind"


@pytest.mark.parametrize(
    ("url", "detail", "advice"),
    [
        ("redis://u:hunter2@127.0.0.1:{port}", "says: WRONGPASS", "Mend user and password"),
        ("redis://reader:sesame@127.0.0.1:{port}", "says: NOPERM", "ACL SETUSER"),
        ("redis://127.0.0.1:{port}/99", "says: ERR DB index", "a lower number"),
        ("redis+cluster://127.0.0.1:{port}", "cluster support disabled", "It is no cluster"),
        ("redis+sentinel://127.0.0.1:{port}/main", "'SENTINEL'", "That is no Sentinel"),
        ("rediss://127.0.0.1:{port}", "does not answer within 2 s", "rediss:// is for TLS"),
        ("redis://127.0.0.1:1", "127.0.0.1:1 cannot be reached: connection refused", "Start it"),
        ("redis://nowhere.invalid", "its host name leads nowhere (DNS)", "Mend the host"),
    ],
)
async def test_what_is_wrong_is_told_with_a_cure(
    valkey: Valkey, url: str, detail: str, advice: str
) -> None:
    found = await redis_check.look(url.format(port=valkey.port))

    assert found.status == "error"
    assert detail in found.detail
    assert advice in found.advice
    assert "hunter2" not in found.detail


async def test_one_that_wants_a_password_is_told(valkey: Valkey) -> None:
    with _set(valkey, "requirepass", "sesame"):
        found = await redis_check.look(valkey.url)

    assert (found.status, found.advice[:22]) == ("error", "It wants a password. W")


async def test_one_that_hangs_is_told_in_time(valkey: Valkey) -> None:
    valkey.pause()
    try:
        found = await redis_check.look(valkey.url)
    finally:
        valkey.resume()

    assert found.status == "error"
    assert found.detail == f"127.0.0.1:{valkey.port} does not answer within 2 s"


async def test_another_program_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1000)

        _, found = await asyncio.gather(
            asyncio.to_thread(answer), redis_check.look(f"redis://127.0.0.1:{port}")
        )
    assert "does not speak Redis" in found.detail
    assert "Another program listens there" in found.advice


async def test_one_that_throws_keys_away_deserves_a_look(valkey: Valkey) -> None:
    with _set(valkey, "maxmemory", "100mb"), _set(valkey, "maxmemory-policy", "allkeys-lru"):
        found = await redis_check.look(valkey.url)

    assert found.status == "warning"
    assert "noeviction" in found.advice


async def test_all_masters_of_a_cluster_are_looked_at(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as servers:
        whole = await redis_check.look(f"redis+cluster://127.0.0.1:{servers[1].port}")
        part = await redis_check.look(servers[0].url)

    assert (whole.status, len(whole.detail.splitlines())) == ("ok", 3)
    assert (part.status, part.advice[:22]) == ("error", "Write redis+cluster://")


async def test_the_master_that_sentinel_knows_is_looked_at(tmp_path: Path) -> None:
    with running_sentinel(tmp_path) as (master, replica, sentinel):
        found = await redis_check.look(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        other = await redis_check.look(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
        follows = await redis_check.look(replica.url)
        itself = await redis_check.look(f"redis://127.0.0.1:{sentinel.port}")

    assert (found.status, f":{master.port} (" in found.detail) == ("ok", True)
    assert "knows no master other" in other.detail
    assert "redis+sentinel://host:26379/name" in other.advice
    assert "is a replica" in follows.detail
    assert (itself.status, "is a Sentinel" in itself.detail) == ("error", True)


@contextlib.contextmanager
def _set(valkey: Valkey, name: str, value: str) -> Iterator[None]:
    """A setting of the server, for a while."""
    usual = valkey.ask("CONFIG", "GET", name)[1]
    valkey.ask("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        _as_admin(valkey, value if name == "requirepass" else "", name, usual)


def _as_admin(valkey: Valkey, password: str, name: str, usual: str) -> None:
    """`Valkey.ask` knows no password."""
    with socket.create_connection(("127.0.0.1", valkey.port), timeout=5.0) as connection:
        hello = f"AUTH {password}\r\n" if password else ""
        connection.sendall(f'{hello}CONFIG SET {name} "{usual}"\r\n'.encode())
        answer = b""
        while answer.count(b"+OK\r\n") < 1 + bool(password):
            answer += connection.recv(1000)
            assert b"-" not in answer, answer
