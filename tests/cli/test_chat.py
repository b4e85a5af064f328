"""`manyways chat`, as a process beside a gateway whose provider follows a script."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, provider, run_command, running_gateway
from tests.support.terminal import END, INTERRUPT, Terminal
from tests.support.wall import (
    Close,
    Moment,
    Request,
    Script,
    Send,
    Stall,
    Wall,
    head,
    html,
    piece,
    sse,
    wall_in_thread,
    whole,
)

pytestmark = pytest.mark.process

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
EVENTS = [("Content-Type", "text/event-stream")]


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> str:
    delta = {} if content is None else {"content": content}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        | {"choices": choices, **more}
    )


def answer(*texts: str, finish: str = "stop") -> Script:
    usage = chunk(usage=USAGE, choices=[])
    return sse(*map(chunk, texts), chunk(finish=finish), usage, "[DONE]")


def broken(*texts: str) -> Script:
    """A stream whose connection ends behind these pieces."""
    pieces = (Send(piece(f"data: {chunk(text)}\n\n".encode())) for text in texts)
    return (Send(head(200, EVENTS, chunked=True)), *pieces, Close())


def stalled(*texts: str) -> Script:
    return (*broken(*texts)[:-1], Stall())


class Model:
    """What the wall plays: a list of models, and the next of `scripts` for a question."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.asked: list[dict[str, Any]] = []
        self.left: list[Moment] = []

    def __call__(self, request: Request) -> Script:
        if request.path.endswith("/models"):
            return whole(json.dumps({"data": [{"id": "alpha"}, {"id": "beta"}]}).encode())
        self.asked.append(json.loads(request.body))
        self.left.append(request.left)
        return self.scripts.pop(0) if self.scripts else answer("Hello ", "**world**")


@pytest.fixture(scope="module")
def wall() -> Iterator[Wall]:
    with wall_in_thread() as wall:
        yield wall


@pytest.fixture(scope="module")
def gateway(wall: Wall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    # Whoever failed is well again at once, and in the list of models.
    config = '[routing]\nrest = "1ms"\nrest_limit = "1ms"\n' + provider(wall.url, "alpha", "beta")
    with running_gateway(tmp_path_factory.mktemp("gateway"), config) as gateway:
        yield gateway


@pytest.fixture
def model(wall: Wall) -> Model:
    wall.answer = model = Model()
    return model


def test_a_piped_message_is_answered_in_plain_text(gateway: Gateway, model: Model) -> None:
    done = run_command(gateway.directory, "chat", "--url", gateway.base_url, stdin="Two\nlines?\n")

    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello **world**\n", "")
    (asked,) = model.asked
    assert asked["model"] == "alpha"  # the first of the gateway's list
    assert asked["messages"] == [{"role": "user", "content": "Two\nlines?"}]


def test_options_choose_model_provider_and_system_message(gateway: Gateway, model: Model) -> None:
    options = ("--model", "beta", "--provider", "Test", "--system", "Be brief.")
    done = gateway.command("chat", "Hi", "--url", gateway.root, *options)

    assert done.returncode == 0
    (asked,) = model.asked
    assert asked["model"] == "beta"
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_json_is_one_document_with_all_that_is_known(gateway: Gateway, model: Model) -> None:
    done = gateway.command("chat", "Hi", "--url", gateway.base_url, "--json")

    assert done.returncode == 0
    document = json.loads(done.stdout)
    first, total = document.pop("first_token_ms"), document.pop("total_ms")
    assert 0 <= first <= total
    assert document == {
        "model": "alpha",
        "provider": "Test",
        "content": "Hello **world**",
        "reasoning": None,
        "usage": USAGE,
        "finish_reason": "stop",
        "error": None,
    }


def test_a_cut_answer_is_said_to_be_cut(gateway: Gateway, model: Model) -> None:
    model.scripts = [broken("Half ", "an ans")]
    done = gateway.command("chat", "Hi", "--url", gateway.base_url)

    assert done.returncode == 1
    assert done.stdout == "Half an ans\n"
    assert done.stderr.startswith("The answer is cut: ")


def test_a_cut_answer_as_json_has_an_error_and_what_came(gateway: Gateway, model: Model) -> None:
    model.scripts = [broken("Half")]
    done = gateway.command("chat", "Hi", "--url", gateway.base_url, "--json")

    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["content"] == "Half"
    assert document["finish_reason"] is None
    assert document["error"]["message"]


def test_where_everybody_failed_each_attempt_is_told(
    tmp_path: Path, wall: Wall, model: Model
) -> None:
    said = {"error": {"message": "the engine\nis \x1b[31mon fire"}}
    model.scripts = [whole(json.dumps(said).encode(), 500)] * 20
    with running_gateway(tmp_path, provider(wall.url, "alpha")) as gateway:
        done = gateway.command("chat", "Hi", "--url", gateway.base_url)
        document = gateway.command("chat", "Hi", "--url", gateway.base_url, "--json").stdout

    assert (done.returncode, done.stdout) == (1, "")
    message, first, *_, wait, request = done.stderr.splitlines()
    assert message.startswith("Service temporarily unavailable.")
    assert "Tried models" not in done.stderr
    assert re.fullmatch(
        r"  alpha \(Test\): provider_error, the engine is \[31mon fire, \d+ ms", first
    )
    assert re.fullmatch(r"Ask again in \d+ s\.", wait)
    assert re.fullmatch(r"The operator finds it in the log as [0-9a-f-]{36}\.", request)
    error = json.loads(document)["error"]
    assert (error["code"], error["type"]) == ("all_models_failed", "service_unavailable_error")
    assert error["details"]["error_history"][0]["provider"] == "Test"
    assert int(error["retry_after"]) > 0
    assert len(error["request_id"]) == 36


def test_a_wrong_key_is_told_in_the_gateways_words(gateway: Gateway, model: Model) -> None:
    options = ("--url", gateway.base_url, "--key", "rvf_wrong")
    done = gateway.command("chat", "Hi", *options)
    document = gateway.command("chat", "Hi", *options, "--json").stdout

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "This API key is not known here. Check it for typos.\n"
    assert json.loads(document)["error"]["code"] == "invalid_api_key"
    assert not model.asked


def key_ids(gateway: Gateway) -> list[str]:
    """Of all keys that were ever made."""
    listed = json.loads(gateway.command("keys", "list", "--all", "--json").stdout)
    return [key["id"] for key in listed]


def test_the_key_of_the_environment_is_used(gateway: Gateway, model: Model) -> None:
    env = {"MANYWAYS_API_KEY": gateway.key}
    arguments = ("chat", "Hi", "--url", gateway.base_url)
    before = key_ids(gateway)

    assert run_command(gateway.directory, *arguments, env=env).returncode == 0
    assert key_ids(gateway) == before  # none was made


def test_a_key_made_for_a_chat_is_revoked_behind_it(gateway: Gateway, model: Model) -> None:
    gateway.command("chat", "Hi", "--url", gateway.base_url)

    keys = json.loads(gateway.command("keys", "list", "--all", "--json").stdout)
    made = keys[-1]
    assert (made["type"], made["note"], made["status"]) == ("test", "chat", "revoked")


def test_the_gateway_of_this_database_is_found_whatever_its_port(
    gateway: Gateway, model: Model
) -> None:
    asked = gateway.command("chat", "Hi")
    listed = gateway.command("models", "list")

    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "Hello **world**\n", "")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "alpha\tTest" in listed.stdout


def test_no_key_is_made_for_another_machine(gateway: Gateway, model: Model) -> None:
    elsewhere = gateway.base_url.replace("127.0.0.1", "0.0.0.0")
    done = gateway.command("chat", "Hi", "--url", elsewhere)

    assert done.returncode == 1
    assert "MANYWAYS_API_KEY" in done.stderr
    assert not model.asked


def test_an_unknown_model_is_refused_in_the_gateways_words(gateway: Gateway, model: Model) -> None:
    done = gateway.command("chat", "Hi", "--url", gateway.base_url, "--model", "gamma")

    assert done.returncode == 1
    assert "gamma" in done.stderr


def test_an_empty_message_is_a_misuse(gateway: Gateway) -> None:
    done = run_command(gateway.directory, "chat", "--url", gateway.base_url, stdin=" \n")

    assert done.returncode == 2
    assert "empty" in done.stderr


def test_without_a_gateway_it_says_how_to_start_one(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text("[server]\nport = 1\n")
    done = run_command(tmp_path, "chat", "Hi")

    assert (done.returncode, done.stdout) == (1, "")
    said, called, cure = done.stderr.partition(" -m manyways ")  # as the command was called
    assert said.startswith("No gateway answers at http://127.0.0.1:1/v1. Start it with: ")
    assert called
    assert cure == "serve\n"


def test_whoever_is_no_gateway_is_not_taken_for_one(tmp_path: Path, wall: Wall) -> None:
    wall.answer = html()
    done = run_command(tmp_path, "chat", "Hi", "--url", wall.url, "--key", "k")

    assert done.returncode == 1
    assert "no Manyways gateway" in done.stderr


def test_a_conversation_remembers_and_changes_the_model(gateway: Gateway, model: Model) -> None:
    with Terminal(gateway.directory, "chat", "--url", gateway.base_url) as terminal:
        terminal.expect("You talk with alpha.")
        terminal.expect("› ")
        terminal.keys("First question\r")
        terminal.expect("First question\r\n")  # echoed
        terminal.expect("Hello world\r\n")  # Markdown, drawn
        terminal.expect("alpha · Test · first token ")
        terminal.expect("9 → 5 tokens")
        terminal.keys("/model\r")
        terminal.expect("2  beta")
        terminal.expect("Number or name: ")
        terminal.keys("2\r")
        terminal.expect("You talk with beta.")
        terminal.keys("Second question\r")
        terminal.expect("beta · Test")
        terminal.keys("/quit\r")

        assert terminal.wait() == 0
    first, second = model.asked
    assert first["model"] == "alpha"
    assert second["model"] == "beta"
    assert [message["content"] for message in second["messages"]] == [
        "First question",
        "Hello **world**",
        "Second question",
    ]


def test_ctrl_c_stops_an_answer_and_closes_its_connection(gateway: Gateway, model: Model) -> None:
    model.scripts = [stalled("So far ")]
    with Terminal(gateway.directory, "chat", "--url", gateway.base_url) as terminal:
        terminal.expect("› ")
        terminal.keys("Talk without end\r")
        terminal.expect("So far")
        terminal.keys(INTERRUPT)
        terminal.expect("Stopped.")
        terminal.expect("› ")
        model.left[0].block()  # the provider was left, too
        terminal.keys("Again\r")
        terminal.expect("Hello world")
        terminal.keys(END)

        assert terminal.wait() == 0


def test_ctrl_c_twice_leaves(gateway: Gateway, model: Model) -> None:
    with Terminal(gateway.directory, "chat", "--url", gateway.base_url) as terminal:
        terminal.expect("› ")
        terminal.insist(INTERRUPT, "once more leaves")
        terminal.expect("› ")
        terminal.insist(INTERRUPT, "\n")

        assert terminal.wait() == 0


def test_a_failed_answer_leaves_the_conversation_usable(gateway: Gateway, model: Model) -> None:
    model.scripts = [broken("Half")]
    with Terminal(gateway.directory, "chat", "--url", gateway.base_url) as terminal:
        terminal.expect("› ")
        terminal.keys("Tell me\r")
        terminal.expect("The answer is cut here: ")
        model.scripts = [answer("Whole at last")]
        terminal.keys("/retry\r")
        terminal.expect("Whole at last")
        terminal.keys("/nonsense\r")
        terminal.expect("There is no command /nonsense")
        terminal.keys("/quit\r")

        assert terminal.wait() == 0
    # The half answer is no part of what the model is told.
    assert [message["content"] for message in model.asked[-1]["messages"]] == ["Tell me"]


def test_system_clear_and_save(gateway: Gateway, model: Model, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    with Terminal(gateway.directory, "chat", "--url", gateway.base_url) as terminal:
        terminal.expect("› ")
        terminal.keys("Forget this\r")
        terminal.expect("9 → 5 tokens")
        terminal.keys("/clear\r")
        terminal.expect("A new conversation")
        terminal.keys("/system Be brief.\r")
        terminal.expect("From the next answer on.")
        terminal.keys("Go\\\r")
        terminal.expect("… ")
        terminal.keys("on\r")
        terminal.expect("9 → 5 tokens")
        for said in ("Saved to", "choose another name"):
            terminal.keys(f"/save {file}\r")
            terminal.expect(said)
        terminal.keys("/quit\r")

        assert terminal.wait() == 0
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Go\non"},
    ]
    assert model.asked[1]["messages"] == messages
    assert json.loads(file.read_text()) == {
        "model": "alpha",
        "messages": [*messages, {"role": "assistant", "content": "Hello **world**"}],
    }


def test_a_model_cannot_take_hold_of_the_terminal(gateway: Gateway, model: Model) -> None:
    model.scripts = [answer("\x1b]0;owned\x07", "\x1b[2Jplain")]
    with Terminal(gateway.directory, "chat", "Hi", "--url", gateway.base_url) as terminal:
        assert terminal.wait() == 0

    assert b"]0;owned[2Jplain" in terminal.raw
    assert b"\x1b]0;owned" not in terminal.raw
