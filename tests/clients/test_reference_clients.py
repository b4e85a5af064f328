"""The clients that RVFreeLLM publishes in its API reference, unmodified but for base URL and key.

Their text is read from the reference beside the checkout, of which it is a part; where that is
absent, these tests are skipped, and `test_reference_fields.py` still runs.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Node
from tests.support import chat_provider
from tests.support.gateway import Gateway
from tests.support.wall import Wall

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "rvfreellm-api.md"

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not REFERENCE.exists(),
        reason="the API reference is not beside this checkout (../shared/reference)",
    ),
]

PUBLISHED_URL = "https://rvlautoai.ru/webhook"
PUBLISHED_KEY = "YOUR_API_KEY"
USAGE = "Использование"
"""The comment that ends a published client and begins its examples."""


def published(language: str, *needles: str) -> str:
    """The one code block of the reference in `language` that has all the `needles`."""
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```", REFERENCE.read_text(), re.MULTILINE | re.DOTALL
    )
    (block,) = [block for block in blocks if all(needle in block for needle in needles)]
    assert isinstance(block, str)
    return block


def pointed_at(gateway: Gateway, code: str) -> str:
    """The same code with our base URL and a key of ours, and not a letter else."""
    assert PUBLISHED_URL in code
    assert PUBLISHED_KEY in code
    url = f"{gateway.root}/webhook"
    return code.replace(PUBLISHED_URL, url).replace(PUBLISHED_KEY, gateway.key)


def run_python(
    folder: Path, code: str, more: str = "", *, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs the published code, with our own lines behind it."""
    script = folder / "client.py"
    script.write_text(code + "\n" + more)
    ran = subprocess.run(
        [sys.executable, "-X", "utf8", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode != 0) is fails, ran.stderr
    return ran


def run_node(node: Node, folder: Path, code: str, *, fails: bool = False) -> tuple[str, str]:
    script = folder / "client.cjs"
    script.write_text(code)
    ran = node.run(script)
    assert (ran.returncode != 0) is fails, ran.stderr
    return ran.stdout, ran.stderr


def python_client() -> str:
    return published("python", "class RVFreeLLMClient", "def chat_completion")


def javascript_client() -> str:
    return published("javascript", "class RVFreeLLMClient")


def without_examples(code: str) -> str:
    """The class itself, without what the page does with it."""
    head, comment, _ = code.rpartition(USAGE)
    assert comment
    return head.rstrip().removesuffix("//").removesuffix("#")


# Python


def test_the_python_clients_first_example_prints_the_answer(
    gateway: Gateway, tmp_path: Path, wall: Wall
) -> None:
    """Its second example asks for web search, which is refused by name until it is served."""
    ran = run_python(tmp_path, pointed_at(gateway, python_client()), fails=True)
    assert ran.stdout == chat_provider.TEXT + "\n"
    assert "Exception: API Error: 400 Client Error" in ran.stderr
    sent = json.loads(wall.requests[-1].body)
    assert sent["model"] == "gpt-4o-2024-08-06"
    assert (sent["temperature"], sent["max_tokens"], sent["stream"]) == (0.7, 2000, False)
    assert not sent.keys() & {"provider", "web_search"}


def test_the_python_client_lists_models_and_providers(gateway: Gateway, tmp_path: Path) -> None:
    code = pointed_at(gateway, python_client())
    ran = run_python(
        tmp_path,
        without_examples(code),
        f"""
import json
client = RVFreeLLMClient(api_key={gateway.key!r})
print(json.dumps([
    client.get_models(), client.get_models("HuggingSpace"),
    client.get_providers(), client.get_providers("Capi"),
]))
""",
    )
    models, some_models, providers, some_providers = json.loads(ran.stdout)
    assert models["meta"]["total_models"] == len(models["data"]) == 4
    assert {model["provider"] for model in some_models["data"]} == {"HuggingSpace"}
    assert [row["name"] for row in providers["data"]] == ["Capi", "HuggingSpace"]
    assert [row["name"] for row in some_providers["data"]] == ["Capi"]


@pytest.mark.parametrize(
    ("arguments", "key", "told"),
    [
        ('"gpt-5o", "Capi"', "", "404 Client Error: Not Found"),
        ('"gpt-4o", "Nobody"', "", "404 Client Error: Not Found"),
        ('"gpt-4o", "Capi", temperature=3', "", "400 Client Error: Bad Request"),
        ('"gpt-4o", "Capi"', "rvf_wrong", "401 Client Error: Unauthorized"),
    ],
)
def test_the_python_client_tells_errors(
    gateway: Gateway, tmp_path: Path, arguments: str, key: str, told: str
) -> None:
    code = without_examples(pointed_at(gateway, python_client()))
    call = arguments.replace('"Capi"', '"Capi", hello').replace('"Nobody"', '"Nobody", hello')
    ran = run_python(
        tmp_path,
        code,
        f"""
hello = [{{"role": "user", "content": "Hello"}}]
try:
    RVFreeLLMClient({key or gateway.key!r}).chat_completion({call})
except Exception as error:
    print(error)
""",
    )
    assert ran.stdout.startswith(f"API Error: {told}")


def test_the_python_example_of_a_dialogue_prints_the_answer(
    gateway: Gateway, tmp_path: Path
) -> None:
    code = published("python", "import requests", "Ты полезный ассистент", "Умножь")
    ran = run_python(tmp_path, pointed_at(gateway, code))
    assert ran.stdout == f"Ответ: {chat_provider.TEXT}\n"


def test_the_python_examples_of_good_practice_work(gateway: Gateway, tmp_path: Path) -> None:
    """A look at the models first, the list cached, and tokens watched."""
    code = without_examples(pointed_at(gateway, python_client()))
    cached = published("python", "class CachedClient")
    safe = published("python", "def safe_chat_completion")
    ran = run_python(
        tmp_path,
        code,
        f"""
{cached}
{safe}
client = RVFreeLLMClient({gateway.key!r})
models = CachedClient(client).get_models_cached("Capi")
print([m['id'] for m in models['data']])
messages = [{{"role": "user", "content": "Hello"}}]
print(safe_chat_completion(client, "gpt-4o", "Capi", messages))
usage = client.chat_completion("gpt-4o", "Capi", messages)['usage']
print(usage['prompt_tokens'], usage['completion_tokens'], usage['total_tokens'])
""",
    )
    assert ran.stdout.splitlines() == [
        "['gpt-4o', 'o3-scripted']",
        chat_provider.TEXT,
        "9 5 14",
    ]


# JavaScript


@pytest.mark.node
def test_the_javascript_clients_first_example_prints_the_answer(
    gateway: Gateway, node: Node, tmp_path: Path
) -> None:
    """Its second example asks for web search, which is refused by name until it is served."""
    code = pointed_at(gateway, javascript_client())
    printed, told = run_node(node, tmp_path, code, fails=True)
    assert printed == chat_provider.TEXT + "\n"
    assert "API Error: web_search:" in told


@pytest.mark.node
def test_the_javascript_client_lists_models_and_providers_and_tells_errors(
    gateway: Gateway, node: Node, tmp_path: Path
) -> None:
    code = without_examples(pointed_at(gateway, javascript_client()))
    printed, _ = run_node(
        node,
        tmp_path,
        f"""{code}
const client = new RVFreeLLMClient("{gateway.key}");
const asked = {{ provider: "Capi", messages: [{{ role: "user", content: "Hello" }}] }};
const told = (error) => error.message;
(async () => console.log(JSON.stringify([
  await client.getModels(), await client.getModels("HuggingSpace"),
  await client.getProviders(), await client.getProviders("Capi"),
  await client.chatCompletion({{ ...asked, model: "gpt-5o" }}).catch(told),
  await new RVFreeLLMClient("rvf_wrong").chatCompletion(asked).catch(told),
])))();
""",
    )
    models, some_models, providers, some_providers, no_model, wrong_key = json.loads(printed)
    assert models["meta"]["total_models"] == len(models["data"]) == 4
    assert {model["provider"] for model in some_models["data"]} == {"HuggingSpace"}
    assert [row["name"] for row in providers["data"]] == ["Capi", "HuggingSpace"]
    assert [row["name"] for row in some_providers["data"]] == ["Capi"]
    assert no_model.startswith("API Error: ")
    assert "gpt-5o" in no_model
    assert wrong_key.startswith("API Error: ")
    assert "status code" not in wrong_key


@pytest.mark.node
def test_the_javascript_example_of_a_stream_prints_its_events(
    gateway: Gateway, node: Node, tmp_path: Path
) -> None:
    code = published("javascript", "node-fetch", "stream: true")
    printed, _ = run_node(node, tmp_path, pointed_at(gateway, code))
    assert printed.startswith('Chunk: data: {"')
    assert printed.rstrip().endswith("data: [DONE]")
