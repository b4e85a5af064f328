"""What a configuration means, and how it is refused."""

from pathlib import Path

import pytest

from manyways.config import Settings, load
from manyways.edge.settings import Mount
from manyways.errors import ConfigError
from manyways.types import ModelEntry, Provider

from .folder import PROVIDER, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class TestWhereItComesFrom:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_without_a_file_the_embedded_model_is_the_one_provider(self) -> None:
        settings = load(environ={})

        assert settings.file is None
        assert settings.providers == (
            Provider(
                name="local",
                protocol="local",
                models=(
                    ModelEntry(
                        id="smollm2-135m-instruct",
                        category="text",
                        context_window=8192,
                        capabilities=("streaming", "json_schema"),
                    ),
                ),
            ),
        )
        assert settings.server == Settings().server
        assert settings.keys == Settings().keys
        assert repr(settings) == "<Settings from built-in defaults, providers: local>"

    def test_a_given_path_comes_before_the_variable_and_that_before_the_folder(
        self, tmp_path: Path
    ) -> None:
        for name, port in (("given", 1), ("named", 2), ("manyways", 3)):
            (tmp_path / f"{name}.toml").write_text(f"server.port = {port}")
        named = {"MANYWAYS_CONFIG": str(tmp_path / "named.toml")}

        assert load(tmp_path / "given.toml", named).server.port == 1
        assert load(environ=named).server.port == 2
        assert load(environ={}).server.port == 3

    def test_a_named_file_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no such file"):
            load(environ={"MANYWAYS_CONFIG": str(tmp_path / "gone.toml")})

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder"):
            load(tmp_path, {})

    def test_an_editors_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "manyways.toml").write_bytes(b"\xef\xbb\xbfserver.port = 3")

        assert load(environ={}).server.port == 3

    def test_other_encodings_are_named_with_their_line(self, tmp_path: Path) -> None:
        file = tmp_path / "manyways.toml"
        file.write_bytes("[catalog]\ntitle = 'Модели'".encode("cp1251"))

        with pytest.raises(ConfigError, match=r"manyways\.toml:2: is not UTF-8"):
            load(file, {})


def test_every_name_scripts_rely_on_is_accepted(folder: Folder) -> None:
    settings = folder.load(
        """
        [server]
        host = "127.0.0.1"
        port = 8080
        mounts = ["/v1", { path = "/webhook/v1", error_format = "string" }]
        error_format = "object"
        max_body = "32MiB"
        [database]
        url = "postgresql://manyways@127.0.0.1/manyways"
        [cluster]
        redis = "redis://127.0.0.1:6379/0"
        [usage]
        journal = "/var/lib/journal"
        [routing]
        order = "same-model-first"
        max_attempts = 10
        connect_timeout = "5s"
        first_token_timeout = 10
        idle_timeout = "500ms"
        answer_timeout = "2m"
        deadline = "170s"
        retries = 0
        retry_pause = "250ms"
        rest = "1s"
        rest_limit = "1m"
        hedge = true
        hedge_budget = 0.1
        content_filter = "next"
        continuation = "best-effort"
        assemble = true
        [catalog]
        title = "Manyways"
        refresh = "02:00"
        timezone = "Europe/Moscow"
        probe = true
        [keys.types.full]
        requests = 60
        [keys.types.team]
        tokens = 1000
        tokens_window = "1d"
        concurrent = 3
        quota = 5000
        [[providers]]
        name = "Capi"
        protocol = "openai"
        base_url = "http://127.0.0.1:9900/v1/"
        api_key = "env:CAPI_KEY"
        [[providers.models]]
        id = "gpt-4o"
        upstream_id = "gpt-4o-2024-08-06"
        category = "text"
        context_window = 128000
        capabilities = ["tools", "vision"]
        """,
        {"CAPI_KEY": "sk-1"},
    )

    assert settings.server.mounts == (
        Mount(path="/v1"),
        Mount(path="/webhook/v1", error_format="string"),
    )
    assert settings.server.max_body == 32 * 1024**2
    routing = settings.routing
    assert (routing.first_token_timeout, routing.idle_timeout, routing.answer_timeout) == (
        10.0,
        0.5,
        120.0,
    )
    assert (routing.retries, routing.retry_pause, routing.rest, routing.rest_limit) == (
        0,
        0.25,
        1.0,
        60.0,
    )
    assert (routing.hedge, routing.hedge_budget, routing.assemble) == (True, 0.1, True)
    assert (routing.order, routing.content_filter) == ("same-model-first", "next")
    assert routing.continuation == "best-effort"
    assert settings.keys.types["full"].requests == 60
    assert settings.keys.types["full"].window == 60.0
    assert settings.keys.types["full"].lifetime == 30 * 86400
    assert settings.keys.types["team"].tokens_window == 86400.0
    assert set(settings.keys.types) == {"test", "full", "admin", "team"}
    assert settings.providers == (
        Provider(
            name="Capi",
            protocol="openai",
            base_url="http://127.0.0.1:9900/v1",
            api_keys=("sk-1",),
            models=(
                ModelEntry(
                    id="gpt-4o",
                    upstream_id="gpt-4o-2024-08-06",
                    category="text",
                    context_window=128000,
                    capabilities=("tools", "vision"),
                ),
            ),
        ),
    )


def test_what_is_given_without_effect_is_said(folder: Folder) -> None:
    settings = folder.load("[server]\npublic_url = 'http://here'\n[routing]\nhedge = true\n")

    assert settings.not_yet == ("server.public_url: no answer names it yet",)


def test_a_limit_that_is_built_in_can_be_lifted(folder: Folder) -> None:
    settings = folder.load('[keys.types.full]\nlifetime = "none"\nrequests = "none"')

    assert settings.keys.types["full"].lifetime is None
    assert settings.keys.types["full"].requests is None


def test_a_provider_without_models_is_asked_for_them(folder: Folder) -> None:
    assert folder.load(PROVIDER).providers[0].models is None


def test_an_empty_list_of_providers_is_not_the_embedded_model(folder: Folder) -> None:
    assert folder.problems("providers = []") == [
        "1: providers is empty; leave it out to serve the embedded model"
    ]


class TestTheEnvironment:
    def test_a_value_is_read_as_the_settings_type(self, folder: Folder) -> None:
        settings = folder.load(
            'server.port = "env:PORT"\nrouting.hedge = "env:HEDGE"\nserver.drain = "env:DRAIN"',
            {"PORT": "90", "HEDGE": "yes", "DRAIN": "5"},
        )

        assert (settings.server.port, settings.routing.hedge, settings.server.drain) == (
            90,
            True,
            5.0,
        )

    def test_a_missing_variable_is_named_with_its_line(self, folder: Folder) -> None:
        text = PROVIDER + 'api_key = ["env:ONE", "env:TWO"]\nheaders = { X-A = "env:THREE" }'

        assert folder.problems(text, {"ONE": "1"}) == [
            "5: providers[0].api_key[1] wants the environment variable TWO, which is not set",
            "6: providers[0].headers.X-A wants the environment variable THREE, which is not set",
        ]

    def test_a_wrong_value_is_never_repeated(self, folder: Folder) -> None:
        problems = folder.problems('server.port = "env:PORT"', {"PORT": "hunter2"})

        assert problems == [
            (
                "1: server.port should be a whole number, not what the variable holds"
                " (this came from the variable PORT)"
            )
        ]

    def test_every_scalar_can_be_overridden(self, folder: Folder) -> None:
        settings = folder.load(
            "[server]\nport = 1\n[keys.types.VIP]\nconcurrent = 1",
            {
                "MANYWAYS__SERVER__PORT": "2",
                "MANYWAYS__SERVER__PUBLIC_URL": "https://x.test",
                "MANYWAYS__ROUTING__DEADLINE": "1m",
                "MANYWAYS__ROUTING__CONTINUATION": "best-effort",
                "MANYWAYS__CATALOG__PROBE": "false",
                "MANYWAYS__DEFAULTS__TOP_P": "0.5",
                "MANYWAYS__KEYS__TYPES__VIP__CONCURRENT": "7",
            },
        )

        assert settings.server.port == 2
        assert settings.server.public_url == "https://x.test"
        assert settings.routing.deadline == 60.0
        assert settings.routing.continuation == "best-effort"
        assert settings.catalog.probe is False
        assert settings.defaults.top_p == 0.5
        assert settings.keys.types["VIP"].concurrent == 7
        assert settings.origins["server.port"] == "MANYWAYS__SERVER__PORT"

    @pytest.mark.parametrize(
        ("variable", "message"),
        [
            ("MANYWAYS__SERVER__PROT", 'is not the name of a setting; did you mean "port"?'),
            ("MANYWAYS__SERVR__PORT", 'is not the name of a setting; did you mean "server"?'),
            (
                "MANYWAYS__LOG__ZZZ",
                "is not the name of a setting; there is level, format",
            ),
            (
                "MANYWAYS__SERVER__PORT__X",
                "is not the name of a setting: server.port is a whole number",
            ),
            (
                "MANYWAYS__PROVIDERS",
                "sets nothing: providers is a list, which only the file can hold",
            ),
            (
                "MANYWAYS__SERVER__MOUNTS",
                "sets nothing: server.mounts is a list, which only the file can hold",
            ),
        ],
    )
    def test_an_override_of_nothing_is_refused(
        self, folder: Folder, variable: str, message: str
    ) -> None:
        assert folder.problems("", {variable: "1"}) == [f"{variable}: {message}"]

    def test_a_wrong_override_is_named_by_its_variable(self, folder: Folder) -> None:
        assert folder.problems("", {"MANYWAYS__SERVER__PORT": "70000"}) == [
            "MANYWAYS__SERVER__PORT: server.port must be between 0 and 65535"
        ]


def test_everything_wrong_is_told_at_once_from_top_to_bottom(folder: Folder) -> None:
    text = (
        '[server]\nprot = 1\nport = "80a"\n[routing]\nhedge = 1\n[serverr]\n[catalog]\n'
        'refresh = 02:00:00\n[[providers]]\nname = "A"\nprotocol = "openal"\n'
    )

    assert folder.problems(text) == [
        '2: server.prot is not a setting; did you mean "port"?',
        '3: server.port should be a whole number, not the text "80a"',
        "5: routing.hedge should be true or false, not the number 1",
        '6: serverr is not a section; did you mean "server"?',
        "8: catalog.refresh should be a text in quotes, not a date or time; write it in quotes",
        '11: providers[0].protocol is none that we know; did you mean "openai"?',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server\nport = 1", "1: is not TOML: expected ']' at the end of a table declaration"),
        ('a = "x', "1: is not TOML: unterminated string"),
        ("server = 5", "1: server should be a table, not the number 5"),
        ("server.port = true", "1: server.port should be a whole number, not true"),
        ("server.port = 65536", "1: server.port must be between 0 and 65535"),
        ("server.backlog = 5", "1: server.backlog must be between 128 and 65535"),
        ("server.max_body = '1B'", "1: server.max_body must be between 1KiB and 4GiB"),
        (
            "server.max_body = 'big'",
            (
                '1: server.max_body should be a size like "32MiB" or "10MB" (or a number of bytes),'
                ' not the text "big"'
            ),
        ),
        ("server.mounts = []", "1: server.mounts is an empty list"),
        ("server.mounts = '/v1'", '1: server.mounts should be a list, not the text "/v1"'),
        (
            "server.mounts = ['v1']",
            '1: server.mounts[0].path should start with a slash, like "/v1"',
        ),
        ("server.mounts = ['/v1/']", "1: server.mounts[0].path should not end with a slash"),
        (
            "server.mounts = ['/a b']",
            (
                "1: server.mounts[0].path should be a plain path: letters, digits, and any of"
                " . _ ~ - between slashes"
            ),
        ),
        (
            "server.mounts = ['/admin']",
            "1: server.mounts[0].path collides with /admin/v1, which stands at the root",
        ),
        (
            "server.mounts = [\n'/v1',\n'/v1']",
            "3: server.mounts[1] names /v1 a second time",
        ),
        (
            "server.error_format = 'text'",
            '1: server.error_format should be one of "object", "string", not the text "text"',
        ),
        (
            "server.host = 'http://x'",
            '1: server.host should be a host name or an address, like "127.0.0.1" or "0.0.0.0"',
        ),
        (
            "server.public_url = 'x'",
            '1: server.public_url should be an address like "https://api.example.com/v1"',
        ),
        ("routing.idle_timeout = 0", "1: routing.idle_timeout must be between 1ms and 1d"),
        (
            "routing.idle_timeout = 'soon'",
            (
                '1: routing.idle_timeout should be a duration like "5s", "500ms", "1m", "2h" or'
                ' "30d" (or a number of seconds), not the text "soon"'
            ),
        ),
        (
            "routing.deadline = nan",
            (
                "1: routing.deadline should be a duration like"
                ' "5s", "500ms", "1m", "2h" or "30d" (or a number of seconds), not the number nan'
            ),
        ),
        ("routing.max_attempts = 101", "1: routing.max_attempts must be between 1 and 100"),
        ("routing.retries = 11", "1: routing.retries must be between 0 and 10"),
        ("routing.retries = -1", "1: routing.retries must be between 0 and 10"),
        ("routing.retry_pause = 0", "1: routing.retry_pause must be between 1ms and 1h"),
        ("routing.rest = '2h'", "1: routing.rest must be between 1ms and 1h"),
        ("routing.rest = '20s'", "1: routing.rest is longer than rest_limit, which is 10s"),
        (
            "[routing]\nrest_limit = '1s'\nrest = '90s'",
            "2: routing.rest_limit is shorter than the first rest, which is 90s",
        ),
        ("routing.rest_limit = '2h'", "1: routing.rest_limit must be between 1ms and 1h"),
        ("routing.hedge_budget = 1.1", "1: routing.hedge_budget must be between 0 and 1"),
        (
            "routing.hedge_budget = '5%'",
            '1: routing.hedge_budget should be a number, not the text "5%"',
        ),
        (
            "routing.content_filter = 'nxt'",
            (
                '1: routing.content_filter should be one of "next", "refuse", not the text "nxt";'
                ' did you mean "next"?'
            ),
        ),
        (
            "routing.order = 'same-model'",
            (
                '1: routing.order should be one of "same-model-first", "same-provider-first",'
                ' not the text "same-model"; did you mean "same-model-first"?'
            ),
        ),
        (
            "routing.continuation = 'best'",
            '1: routing.continuation should be true or false or "best-effort", not the text "best"',
        ),
        (
            "catalog.refresh = '24:00'",
            '1: catalog.refresh should be a time of day from "00:00" to "23:59"',
        ),
        (
            "catalog.timezone = 'Europe/Moskow'",
            '1: catalog.timezone is no time zone that is known here; did you mean "Europe/Moscow"?',
        ),
        (
            "keys.length = 35",
            "1: keys.length leaves 31 letters after the prefix; under 32 a key can be guessed",
        ),
        ("keys.prefix = 'a b'", "1: keys.prefix should be at most 16 letters, digits, _ or -"),
        (
            "[keys.types.vip]\nrequests = 5",
            '1: keys.types.vip has requests without window: say in how long, like "1m"',
        ),
        ("keys.types.admin.admin = false", "1: keys.types leaves no type with admin = true"),
        (
            "keys.types.full.request = 1",
            '1: keys.types.full.request is not a setting; did you mean "requests"?',
        ),
        ("defaults.temperature = 3", "1: defaults.temperature must be between 0 and 2"),
        (
            "database.url = 'mysql://u:hunter2@h/d'",
            (
                "1: database.url is not an address this program knows. Write"
                " sqlite:///manyways.db for a file beside you,"
                " sqlite:////var/lib/manyways/manyways.db for an absolute path, or"
                " postgresql://user:password@host/name."
            ),
        ),
        ("database.url = 5", "1: database.url should be a text in quotes, not the number 5"),
        (
            "cluster.redis = 'localhost'",
            (
                '1: cluster.redis should be "redis://host:6379/0" (or'
                " rediss://, redis+cluster://, redis+sentinel://), or empty"
            ),
        ),
        (
            "cluster.redis = 'redis://localhost'",
            (
                "1: cluster.redis is for several processes, and database.url names an SQLite file,"
                " which serves one. Set database.url to postgresql://user:password@host/name,"
                " or leave cluster.redis out"
            ),
        ),
        (
            "database.url = 5\ncluster.redis = 'redis://localhost'",
            "1: database.url should be a text in quotes, not the number 5",
        ),
        (
            "log.level = 'warn'",
            (
                '1: log.level should be one of "debug", "error", "info",'
                ' "warning", not the text "warn"; did you mean "warning"?'
            ),
        ),
        (
            "server.port = 'env:'",
            '1: server.port should name a variable after "env:", like "env:API_KEY"',
        ),
    ],
)
def test_a_wrong_value_is_refused_in_words(folder: Folder, text: str, message: str) -> None:
    assert folder.problems(text) == [message]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (('name = "A"\n', ""), "1: providers[0] needs name"),
        (('"A"', '""'), "2: providers[0].name is empty"),
        (
            ('"A"', '"a/b"'),
            (
                "2: providers[0].name has a slash in it: callers write provider/model,"
                " so a provider's name cannot hold one"
            ),
        ),
        (
            ('"openai"', '"gemini"'),
            (
                '3: providers[0].protocol is "gemini", which is not served yet;'
                " served are openai, local"
            ),
        ),
        (
            ('base_url = "http://a.test/v1"\n', ""),
            '1: providers[0] needs base_url: the address of "A", up to /v1',
        ),
        (
            ("/v1", "/v1?key=hunter2"),
            "4: providers[0].base_url cannot have a query or a fragment (from ? or # on)",
        ),
        (
            ("http://", "ftp://"),
            '4: providers[0].base_url should be an address like "https://api.example.com/v1"',
        ),
        (
            ("http://a.test", "http://[::1"),
            '4: providers[0].base_url should be an address like "https://api.example.com/v1"',
        ),
        (
            ('"openai"', '"local"'),
            "4: providers[0].base_url has no use with protocol local; leave it out",
        ),
        (
            ('"openai"\nbase_url = "http://a.test/v1"', '"local"\ndrain = true'),
            "4: providers[0].drain has no use with protocol local; leave it out",
        ),
        (
            ("/v1", '/v1"\ndrain = "yes'),
            '5: providers[0].drain should be true or false, not the text "yes"',
        ),
        (
            ("/v1", '/v1"\napi_key = "'),
            "5: providers[0].api_key[0] is empty; leave it out if the provider needs none",
        ),
        (
            ("/v1", '/v1"\napi_key = "hunter 2'),
            (
                "5: providers[0].api_key[0] has blanks or letters in it that no key has;"
                " is it pasted whole?"
            ),
        ),
        (
            ("/v1", '/v1"\napi_key = "k"\nheaders = { authorization = "hunter2" } #"'),
            "6: providers[0].headers.authorization is already made from api_key",
        ),
        (
            ("/v1", '/v1"\nheaders = { "a b" = "c" } #"'),
            '5: providers[0].headers."a b" is no name for an HTTP header',
        ),
        (
            ("/v1", '/v1"\nheaders = { a = "hunter2\\n" } #"'),
            "5: providers[0].headers.a should be one line of ASCII text, as HTTP headers are",
        ),
        (
            ("/v1", '/v1"\nmodels = [] #"'),
            (
                "5: providers[0].models is an empty list;"
                " leave it out to ask the provider for its models"
            ),
        ),
        (
            ("/v1", '/v1"\nmodels = [{ id = "m" }, { id = "m" }] #"'),
            '5: providers[0].models[1].id names "m" a second time',
        ),
        (
            ("/v1", '/v1"\nmodels = [{ id = "m", capabilities = ["tool"] }] #"'),
            (
                '5: providers[0].models[0].capabilities[0] should be one of "json_schema",'
                ' "prefill", "reasoning", "streaming", "tools", "vision", "web_search",'
                ' not the text "tool"; did you mean "tools"?'
            ),
        ),
    ],
)
def test_a_wrong_provider_is_refused_in_words(
    folder: Folder, edit: tuple[str, str], message: str
) -> None:
    assert folder.problems(PROVIDER.replace(*edit)) == [message]


def test_names_of_providers_are_unique(folder: Folder) -> None:
    assert folder.problems(PROVIDER + PROVIDER) == [
        '6: providers[1].name is "A", as of another provider above'
    ]


def test_there_is_one_embedded_model(folder: Folder) -> None:
    local = '[[providers]]\nname = "{}"\nprotocol = "local"\n'

    assert folder.problems(local.format("a") + local.format("b")) == [
        "6: providers[1].protocol is local, as a's: there can be one"
    ]


def test_no_problem_repeats_a_secret(folder: Folder) -> None:
    text = PROVIDER + 'api_key = { a = "hunter2" }\n' + 'headers = "hunter2"\n'
    text += 'base_ur = "hunter2"\n[database]\nurl = "hunter2"\n[cluster]\nredis = "hunter2"'

    problems = folder.problems(text)

    assert len(problems) == 5
    assert "hunter2" not in "\n".join(problems)
