from pathlib import Path

import pytest

from manyways.errors import ConfigError, StoreError
from manyways.store.database_address import checked, postgres_address, sqlite_path


class TestSqlite:
    def test_three_slashes_name_a_file_beside_us(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert sqlite_path("sqlite:///some/keys.db") == tmp_path.resolve() / "some" / "keys.db"

    def test_four_slashes_name_an_absolute_path(self) -> None:
        assert sqlite_path("sqlite:////var/lib/keys.db") == Path("/var/lib/keys.db").resolve()

    def test_two_names_of_one_file_are_one_database(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "real.db")
        assert sqlite_path(f"sqlite:///{tmp_path}/link") == sqlite_path(
            f"sqlite:///{tmp_path}/real.db"
        )

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("mysql://user:hunter2@host/db", "postgresql://user:password@host"),
            ("mysql://user:hunter2@host/db", "sqlite:///manyways.db"),
            ("user:hunter2@host", "sqlite:///manyways.db"),
            ("sqlite+aiosqlite:///x.db", "sqlite:///manyways.db"),
            ("sqlite:x.db", "sqlite:///manyways.db"),
            ("", "sqlite:///manyways.db"),
            ("sqlite:///:memory:", "in memory"),
            ("sqlite://", "in memory"),
            ("sqlite:///", "in memory"),
            ("sqlite://x.db", "sqlite:///x.db is a relative path"),
            ("sqlite:///x.db?mode=ro", "nothing more"),
        ],
    )
    def test_any_other_address_is_refused_in_plain_words_and_without_its_password(
        self, url: str, words: str
    ) -> None:
        with pytest.raises(ConfigError) as refused:
            checked(url)
        assert words in str(refused.value)
        assert "hunter2" not in str(refused.value)

    def test_where_a_file_is_wanted_a_server_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="names PostgreSQL") as refused:
            sqlite_path("postgresql://user:hunter2@host/db")
        assert "hunter2" not in str(refused.value)

    def test_links_that_lead_in_a_circle_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "a.db").symlink_to("b.db")
        (tmp_path / "b.db").symlink_to("a.db")
        with pytest.raises(StoreError):
            checked(f"sqlite:///{tmp_path}/a.db")


class TestPostgres:
    @pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
    def test_an_address_is_libpqs(self, scheme: str) -> None:
        checked(f"{scheme}://host/db")
        address = postgres_address(f"{scheme}://ann:p%40ss%2F@host:6432/db?sslmode=require")
        assert address.name == "db at host:6432"
        assert address.parameters == {
            "user": "ann",
            "password": "p@ss/",
            "host": "host",
            "port": "6432",
            "dbname": "db",
            "sslmode": "require",
        }

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("postgresql://user:hunter2@host/db", "db at host:5432"),
            ("postgresql://[::1]:6000/db", "db at [::1]:6000"),
            ("postgresql://a:1,b:2/db", "db at a:1, b:2"),
            ("postgresql://a,b/db", "db at a:5432, b:5432"),
            ("postgresql:///db", "db at localhost:5432"),
            ("postgresql:///db?host=/run/postgresql", "db at /run/postgresql"),
            ("postgresql://host?dbname=db&password=hunter2", "db at host:5432"),
        ],
    )
    def test_it_is_told_by_name_and_place(self, url: str, name: str) -> None:
        address = postgres_address(url)
        assert address.name == name
        assert repr(address) == f"<PostgresAddress {name}>"

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("postgresql+asyncpg://user:hunter2@host/db", "names no driver"),
            ("postgresql://user:hunter2@host", "names no database"),
            ("postgresql://user:hunter2@host/", "names no database"),
            ("postgresql://user:hunt@er2@host/db", "%40"),
            ("postgresql://user:hunter2/@host/db", "%2F"),
            ("postgresql://user:12/hunter2@host/db", "%2F"),
            ("postgresql://host/db?password=hunter2@", "%40"),
            ("postgresql://user:hunter2%zz@host/db", "%25"),
            ("postgresql://user:hunt er2@host/db", "a blank %20"),
            ("postgresql://user:hunter2:@host:port/db", "write postgresql://"),
            ("postgresql://user:hunter2@host/db?colour=red", "options of libpq"),
            ("postgresql:user:hunter2@host/db", "postgresql://user:password@"),
        ],
    )
    def test_any_other_is_refused_in_plain_words_and_without_its_password(
        self, url: str, words: str
    ) -> None:
        with pytest.raises(ConfigError) as refused:
            checked(url)
        assert words in str(refused.value)
        for part in ("hunt", "er2"):
            assert part not in str(refused.value)
