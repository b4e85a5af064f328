"""The program on PostgreSQL: served, worked beside, examined."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from manyways.cli import checks
from manyways.config import Settings
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings
from tests.support.gateway import provider, run_command, running_gateway
from tests.support.postgres import (
    PASSWORD,
    PostgresProcess,
    empty_postgres,
    own_postgres,
    shared_server,
)
from tests.support.wall import Wall, wall_in_thread, whole

__all__ = ["empty_postgres", "own_postgres"]

pytestmark = pytest.mark.process

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def config(url: str, wall: Wall) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f'[server]\nport = {port}\n[database]\nurl = "{url}"\n{provider(wall.url)}'


def finding(url: str) -> checks.Finding:
    found = checks.database(Settings(database=DatabaseSettings(url=url)))
    assert PASSWORD not in str(found)
    return found


class TestServing:
    def test_it_is_served_and_commands_work_beside_it(
        self, tmp_path: Path, empty_postgres: str
    ) -> None:
        with (
            wall_in_thread(whole(json.dumps(ANSWER).encode())) as wall,
            running_gateway(tmp_path, config(empty_postgres, wall)) as gateway,
        ):
            assert gateway.chat(CHAT).status == 200
            made = json.loads(gateway.command("keys", "create", "--type", "full", "--json").stdout)
            assert gateway.chat(CHAT, key=made["key"]).status == 200
            gateway.command("keys", "revoke", made["id"], "--reason", "lost")
            listed = json.loads(gateway.command("keys", "list", "--all", "--json").stdout)
            assert [key["id"] for key in listed if key["type"] == "full"] == [made["id"]]
            assert gateway.stop() == 0
        assert not list(tmp_path.glob("*.db"))

    def test_known_keys_go_on_while_it_is_away_and_others_when_it_is_back(
        self, tmp_path: Path, own_postgres: PostgresProcess
    ) -> None:
        url = own_postgres.url(own_postgres.create_database())
        with (
            wall_in_thread(whole(json.dumps(ANSWER).encode())) as wall,
            running_gateway(tmp_path, config(url, wall)) as gateway,
        ):
            made = json.loads(gateway.command("keys", "create", "--type", "full", "--json").stdout)
            assert gateway.chat(CHAT).status == 200
            own_postgres.kill()
            assert gateway.chat(CHAT).status == 200
            assert gateway.chat(CHAT, key=made["key"]).status == 503
            own_postgres.start()
            assert gateway.chat(CHAT, key=made["key"]).status == 200
            assert gateway.stop() == 0

    def test_a_password_that_is_wrong_ends_the_start_in_words(self, tmp_path: Path) -> None:
        url = shared_server().url(password="wrong")
        (tmp_path / "manyways.toml").write_text(f'[database]\nurl = "{url}"\n')
        done = run_command(tmp_path, "keys", "list")
        assert done.returncode == 1
        assert "does not let this user in" in done.stderr
        assert "wrong" not in done.stderr

    def test_config_check_knows_its_address(self, tmp_path: Path) -> None:
        def check(url: str) -> tuple[int, str]:
            (tmp_path / "manyways.toml").write_text(f'[database]\nurl = "{url}"\n')
            done = run_command(tmp_path, "config", "check")
            return done.returncode, done.stdout + done.stderr

        assert check("postgresql://ann:secret@db.example.com/keys?sslmode=require")[0] == 0
        status, told = check("postgresql://ann:sec@ret@db.example.com/keys")
        assert (status, "%40" in told, "ret@" in told) == (1, True, False)


class TestDoctor:
    def test_an_empty_database_is_left_empty(self, empty_postgres: str) -> None:
        found = finding(empty_postgres)
        assert found.status == "ok"
        assert "is empty; the first start fills it" in found.detail
        name = empty_postgres.rpartition("/")[2]
        assert (
            shared_server().execute(
                "SELECT * FROM pg_tables WHERE schemaname = 'public'", database=name
            )
            == []
        )

    def test_an_open_one_is_told_with_version_latency_and_keys(self, empty_postgres: str) -> None:
        open_database(DatabaseSettings(url=empty_postgres)).close()
        found = finding(empty_postgres)
        assert found.status == "warning"
        assert "(PostgreSQL 18." in found.detail
        assert " ms away), holds no key that works" in found.detail

    def test_an_older_one_is_told_and_left_alone(self, empty_postgres: str) -> None:
        opened = open_database(DatabaseSettings(url=empty_postgres))
        stand_at(opened, "0001")
        found = finding(empty_postgres)
        assert (found.status, "by an older version" in found.detail) == ("warning", True)
        assert "pg_dump" in found.advice
        opened.close()

    def test_a_newer_one_is_told(self, empty_postgres: str) -> None:
        opened = open_database(DatabaseSettings(url=empty_postgres))
        stand_at(opened, "9999", oldest="9999")
        assert "newer version of Manyways" in finding(empty_postgres).detail
        opened.close()

    def test_one_that_cannot_be_reached_is_an_error(self) -> None:
        found = finding("postgresql://ann:secret@127.0.0.1:1/keys")
        assert found.status == "error"
        assert "cannot be reached: Connection refused" in found.detail

    def test_a_user_who_may_not_make_tables_is_told(self, empty_postgres: str) -> None:
        server = shared_server()
        server.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'")
        try:
            found = finding(
                server.url(empty_postgres.rpartition("/")[2], user="weak", password="weak")
            )
        finally:
            server.execute("DROP ROLE weak")
        assert (found.status, "may not make tables" in found.detail) == ("error", True)

    def test_a_gateway_on_it_is_found_and_the_disk_is_not_looked_at(
        self, tmp_path: Path, empty_postgres: str
    ) -> None:
        with (
            wall_in_thread(whole(b'{"data": [{"id": "m"}]}')) as wall,
            running_gateway(tmp_path, config(empty_postgres, wall)) as gateway,
        ):
            here = gateway.root.rpartition(":")[2]
            done = gateway.command("doctor", "--json")  # the port of the configuration
            env = {"MANYWAYS__SERVER__PORT": here}
            there = run_command(tmp_path, "doctor", "--json", env=env)
        found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
        names = {one["name"]: one for one in found}
        assert "disk" not in names
        assert names["server"]["detail"].startswith("does not run;")
        assert names["database"]["detail"].endswith("1 key in use")
        names = {one["name"]: one for one in json.loads(there.stdout)["checks"]}
        assert names["server"]["detail"] == f"runs at 127.0.0.1:{here}, 1 model"


def stand_at(database: Database, newest: str, oldest: str = "0001") -> None:
    def write(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = :n"), {"n": newest})
        connection.execute(text("UPDATE compatibility SET oldest = :n"), {"n": oldest})

    database.run(write, write=True)
