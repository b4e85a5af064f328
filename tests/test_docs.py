"""What is written is true: routes, errors, commands, examples and links, and nothing leaks."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from manyways.app import gateway as composition
from manyways.cli.main import app as commands
from manyways.config import Settings, load, show
from manyways.edge.openapi import document
from manyways.edge.problems import TABLE
from manyways.edge.routes import NOT_YET, Routes
from manyways.store import database as store
from manyways.upstream import failures
from tests.support.chat_provider import TEXT, ChatProvider, failure
from tests.support.chat_wall import ChatWall, Speech, chat_wall
from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.wall import Close, Reset, wall_in_thread

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "manyways"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
ENGLISH, RUSSIAN = ROOT / "README.md", ROOT / "README.ru.md"
API, ERRORS = ROOT / "docs" / "api.md", ROOT / "docs" / "errors.md"
BENCHMARK = ROOT / "docs" / "benchmark.md"
OPERATING, CONTRIBUTING = ROOT / "docs" / "operating.md", ROOT / "CONTRIBUTING.md"

EMBEDDED = "smollm2-135m-instruct"
EVERYWHERE = {"--config", "--json", "--help"}
"""Options that the page on commands tells of once for all."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
ROUTE = re.compile(r"`(GET|POST|PATCH) (/[^`\s?]+)`")
LEAKS = {
    "a path of somebody's machine": re.compile(
        r"(?<![\w.])/(?:work|root|(?:home|Users)(?!/somebody))/\w"
    ),
    "a tracker's number": re.compile(
        r"\b(?:issues?|tickets?|pull request|PR|GH|[Ff]ixes|[Cc]loses)[ -]#?\d"
    ),
    "a package host": re.compile(
        r"https?://(?!example\.)[\w.:-]+/(?:[\w-]+/)*simple\b"
        r"|index-url[ =]\S*://|trusted[-]host|\"resolved\": \""
    ),
}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text(page)) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", text(page))


def table(page: Path, first_heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called `first_heading`."""
    _, _, rest = prose(page).partition(f"\n| {first_heading} |")
    assert rest, f"{page.name} has no table {first_heading}"
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def examples(language: str) -> list[tuple[str, str]]:
    return [(page.name, code) for page in PAGES for code in blocks(page, language)]


def named(example: tuple[str, str]) -> str:
    return f"{example[0]}: {example[1].splitlines()[0]}"


# Routes


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[Routes]:
    """The routes as the gateway puts them together."""
    database = store.open_database(store.Settings(url=f"sqlite:///{tmp_path}/docs.db"))
    async with composition.gateway(Settings(), database) as edge:
        yield edge._routes
    database.close()


async def test_every_route_is_documented_and_every_documented_one_is_there(routes: Routes) -> None:
    served = {one for one in routes.table() if not one[1].startswith("/webhook/")}
    told = set(ROUTE.findall(text(API)))

    assert told == {(method, path) for method, path in served if method != "HEAD"}
    assert {path for method, path in served if method == "GET"} == {
        path for method, path in served if method == "HEAD"
    }


async def test_every_route_that_does_something_is_described_for_machines(routes: Routes) -> None:
    described = {
        (method.upper(), path)
        for path, methods in json.loads(document(["/v1", "/webhook/v1"]))["paths"].items()
        for method in methods
    }
    not_yet = {mount + path for mount in ("/v1", "/webhook/v1") for path in NOT_YET}
    served = {one for one in routes.table() if one[0] != "HEAD" and one[1] not in not_yet}

    assert served <= described


def test_every_limit_is_told_with_its_true_default() -> None:
    in_effect = tomllib.loads(show(Settings()))
    told = [(row[1], row[2].strip("`")) for row in table(API, "what | default | setting")]
    steered = [(default, name) for default, name in told if name]

    assert len(steered) >= 10
    for default, name in steered:
        section, _, key = name.partition(".")
        assert str(in_effect[section][key]) == default, name


# Errors


def test_the_table_of_errors_is_the_true_one() -> None:
    told = {row[0]: (row[1], row[2]) for row in table(ERRORS, "code | `object`")}

    assert told == {
        f"`{code}`": (
            f"{row.status} `{row.type}`",
            f"{row.string_status} `{row.string_code}`",
        )
        for code, row in TABLE.items()
    }


def test_every_reason_in_details_is_documented() -> None:
    raised = set(failures._TRANSPORT_CODES.values())
    for file in SOURCES.rglob("*.py"):
        found = re.findall(r'\bAttemptFailed\(\s*"(\w+)"(?: if .+? else "(\w+)")?', text(file))
        raised.update(code for pair in found for code in pair if code)

    assert {row[0].strip("`") for row in table(ERRORS, "code | what happened")} == raised


# Commands


def leaves(group: TyperGroup, *path: str) -> Iterator[tuple[str, TyperCommand]]:
    """Every command that does something, by its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, *path, name)
        elif isinstance(command, TyperCommand):
            yield " ".join((*path, name)), command


COMMANDS = dict(leaves(typer.main.get_group(commands)))


def test_every_command_is_documented_with_its_options() -> None:
    told = {
        row[0].strip("`").removeprefix("manyways "): set(re.findall(r"--[\w-]+", row[1]))
        for row in table(OPERATING, "command | options")
    }

    assert told == {
        name: {
            option
            for one in command.params
            if not getattr(one, "hidden", False)
            for option in one.opts
            if option[:2] == "--"
        }
        - EVERYWHERE
        for name, command in COMMANDS.items()
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_told_its_configuration(name: str) -> None:
    assert "--config" in {option for one in COMMANDS[name].params for option in one.opts}


def test_every_command_in_an_example_is_one_with_these_options() -> None:
    seen = 0
    for page, code in examples("sh"):
        for line in re.findall(r"(?:^|\(|/)manyways (?!\n)([^)\n#]+)", code, re.MULTILINE):
            words = shlex.split(line)
            names = (" ".join(words[:2]), words[0], f"{words[0]} report")  # which is left out
            name = next((one for one in names if one in COMMANDS), None)
            assert name is not None, f"{page}: manyways {line}"
            options = {option for one in COMMANDS[name].params for option in one.opts}
            used = {word for word in words if word.startswith("--")}
            assert used <= options, f"{page}: manyways {line}"
            seen += 1

    assert seen >= 10


def test_every_verb_of_the_makefile_that_is_told_of_is_there() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    told = {row[0].strip("`") for row in table(CONTRIBUTING, "command | what it does")}

    assert told >= {f"make {verb}" for verb in ("run", "test", "lint", "bench", "lock")}
    assert {verb.removeprefix("make ") for verb in told} <= verbs


# Examples


@pytest.mark.parametrize("example", examples("toml"), ids=named)
def test_every_configuration_shown_loads(example: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "manyways.toml"
    file.write_text(example[1], encoding="utf-8")
    variables = dict.fromkeys(re.findall(r'"env:(\w+)"', example[1]), "1234")

    assert load(file, variables).file == str(file)


@pytest.mark.parametrize("example", examples("python"), ids=named)
def test_every_program_shown_compiles(example: tuple[str, str]) -> None:
    compile(example[1], example[0], "exec")


@pytest.mark.parametrize("example", examples("json"), ids=named)
def test_every_document_shown_is_json(example: tuple[str, str]) -> None:
    for line in [example[1]] if "\n  " in example[1] else example[1].splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway whose one provider stands in for the embedded model."""
    directory = tmp_path_factory.mktemp("docs")
    with (
        wall_in_thread(ChatProvider()) as wall,
        running_gateway(directory, provider(wall.url, EMBEDDED)) as gateway,
    ):
        yield gateway


@pytest.mark.process
def test_the_program_in_the_readme_runs(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = blocks(ENGLISH, "python")
    program = program.replace("http://127.0.0.1:8080/v1", gateway.base_url)
    program = program.replace("rvf_...", gateway.key)

    exec(compile(program, "README.md", "exec"), {})  # noqa: S102  (it is what is to be shown)

    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}"


@pytest.mark.process
@pytest.mark.parametrize("example", [one for one in examples("sh") if "curl " in one[1]], ids=named)
def test_every_curl_line_gets_an_answer(gateway: Gateway, example: tuple[str, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        ["bash", "-ec", example[1].replace("http://127.0.0.1:8080", gateway.root)],
        env={"KEY": gateway.key, "ADMIN": gateway.key, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("{", "data: {", "# HELP manyways_"))
    assert not done.stdout.startswith('{"error"')
    assert ('"stream": true' in example[1]) == done.stdout.endswith("data: [DONE]\n\n")


@pytest.mark.process
def test_the_first_words_of_the_gateway_are_those_in_the_readme(gateway: Gateway) -> None:
    (told,) = blocks(ENGLISH, "text")
    said = gateway.welcome.replace(gateway.root, "http://127.0.0.1:8080")

    assert said.replace(gateway.key, "rvf_...").startswith(told)


# What follows a failure


ASKED = [{"role": "user", "content": "Say hello."}]


@contextmanager
def capi_and_huggingspace(
    directory: Path, config: str = ""
) -> Iterator[tuple[Gateway, ChatWall, ChatWall]]:
    """The providers of the examples, who have `gpt-4o` both, behind a gateway."""
    with (
        chat_wall() as capi,
        chat_wall() as huggingspace,
        running_gateway(
            directory,
            config
            + provider(capi.wall.url, "gpt-4o", "gemini-2.5-flash", name="Capi")
            + provider(huggingspace.wall.url, "gpt-4o", name="HuggingSpace"),
        ) as gateway,
    ):
        yield gateway, capi, huggingspace


def shown(page: Path, language: str, *parts: str) -> str:
    """The one example in `language` that has all of these parts."""
    (found,) = [one for one in blocks(page, language) if all(part in one for part in parts)]
    return found


@pytest.mark.process
def test_the_answer_after_a_fallback_is_the_one_shown(tmp_path: Path) -> None:
    told = json.loads(shown(API, "json", '"chat.completion"', "_metadata"))
    with capi_and_huggingspace(tmp_path) as (gateway, capi, huggingspace):
        capi.answer = failure(500, "Internal error.")
        huggingspace.answer = Speech(("Hello!",))
        given = gateway.chat({"model": "gpt-4o", "provider": "Capi", "messages": ASKED}).json()

    assert list(given) == list(told)
    for name in ("model", "provider", "choices", "_metadata"):
        assert given[name] == told[name]


@pytest.mark.process
def test_the_broken_stream_is_continued_as_shown(tmp_path: Path) -> None:
    lines = shown(API, "text", "continuations").splitlines()
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    speech = Speech(("One,", " two."))
    with capi_and_huggingspace(tmp_path) as (gateway, capi, huggingspace):
        capi.answer = speech.begun(1, Close())
        huggingspace.answer = speech
        answer = gateway.chat(
            {"model": "gpt-4o", "provider": "Capi", "stream": True, "messages": ASKED}
        )

    assert answer.events()[-1] == "[DONE]"
    assert [one | {"created": 0} for one in answer.chunks()] == [
        one | {"created": 0} for one in told
    ]


@pytest.mark.process
def test_the_error_when_everybody_failed_is_the_one_shown(tmp_path: Path) -> None:
    told = json.loads(shown(ERRORS, "json", "error_history"))
    with capi_and_huggingspace(tmp_path, "[routing]\nmax_attempts = 3\n") as walls:
        gateway, capi, huggingspace = walls
        capi.models["gpt-4o"] = failure(502, "Bad gateway")
        capi.models["gemini-2.5-flash"] = (Reset(),)
        huggingspace.answer = failure(429, "Too many requests.", headers=[("Retry-After", "2")])
        answer = gateway.chat({"model": "gpt-4o", "provider": "Capi", "messages": ASKED})

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert untimed(answer.json()) == untimed(told)


def untimed(body: Any) -> Any:
    """An error without what is never twice the same."""
    for attempt in body["error"]["details"]["error_history"]:
        assert attempt.pop("latency_ms") >= 0
        assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", attempt.pop("started_at"))
    return body


@pytest.mark.process
def test_the_wishes_shown_are_understood(tmp_path: Path) -> None:
    wishes = json.loads(shown(API, "json", '"models"', '"order"'))
    with capi_and_huggingspace(tmp_path) as (gateway, capi, huggingspace):
        capi.answer = huggingspace.answer = Speech()
        first = gateway.chat(wishes)
        huggingspace.answer = failure(401, "Who are you?")
        second = gateway.chat(wishes)
        capi.models["gpt-4o"] = failure(503, "Overloaded.")
        third = gateway.chat(wishes)

    answered = [(one.json()["provider"], one.json()["model"]) for one in (first, second, third)]
    assert answered == [
        ("HuggingSpace", "gpt-4o"), ("Capi", "gpt-4o"), ("Capi", "gemini-2.5-flash"),
    ]  # fmt: skip


# Pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert ROOT in target.parents, link
        if anchor:
            assert anchor in {slug(title) for _, title in HEADING.findall(prose(target))}, link


def slug(title: str) -> str:
    """A heading as the address of its place in a page."""
    return re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(prose(ENGLISH))}

    assert set(PAGES) - {ENGLISH} <= linked


def test_both_readmes_say_the_same() -> None:
    english, russian = prose(ENGLISH), prose(RUSSIAN)

    assert FENCE.findall(text(ENGLISH)) == FENCE.findall(text(RUSSIAN))
    assert [level for level, _ in HEADING.findall(english)] == [
        level for level, _ in HEADING.findall(russian)
    ]
    assert set(re.findall("`([^`\n]+)`", english)) == set(re.findall("`([^`\n]+)`", russian))
    own = {ENGLISH.name, RUSSIAN.name}
    assert [one for one in LINK.findall(english) if one not in own] == [
        one for one in LINK.findall(russian) if one not in own
    ]


@pytest.mark.parametrize("readme", [ENGLISH, RUSSIAN], ids=lambda page: page.name)
def test_the_ratios_in_the_readme_are_those_that_were_measured(readme: Path) -> None:
    peers = "|  | nginx"
    measured = prose(BENCHMARK).partition("## In ratios")[2].splitlines()
    assert [numbers(line) for line in rows_below(measured, peers)] == [
        numbers(line) for line in rows_below(prose(readme).splitlines(), peers)
    ], "after `make bench`, copy the table of ratios from docs/benchmark.md into the READMEs"


def rows_below(lines: list[str], header: str) -> list[str]:
    """The table that begins with `header`."""
    start = next(at for at, line in enumerate(lines) if line.startswith(header))
    end = next(at for at in range(start, len(lines)) if not lines[at].startswith("|"))
    return lines[start:end]


def numbers(line: str) -> list[str]:
    """A row's cells without the first, which is in the reader's language."""
    return [cell.strip() for cell in line.split("|")[2:]]


def tracked() -> list[Path]:
    """Every file that is part of the project, where git can tell."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("what", LEAKS)
def test_no_file_tells(what: str) -> None:
    found = []
    for file in tracked():
        if not file.is_file():  # removed, and git not told yet
            continue
        lines = file.read_bytes().decode("utf-8", "replace").splitlines()
        found += [
            f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(lines, 1)
            if LEAKS[what].search(line)
        ]

    assert found == []
