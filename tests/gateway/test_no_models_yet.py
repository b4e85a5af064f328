"""A gateway none of whose providers has told its models: what its first caller reads."""

from pathlib import Path

import pytest

from tests.cli.listing import unused_port
from tests.support.gateway import running_gateway

pytestmark = pytest.mark.process


def test_where_no_provider_has_told_its_models_it_is_not_the_name_that_is_wrong(
    tmp_path: Path,
) -> None:
    with unused_port() as port:
        config = "".join(
            f'[[providers]]\nname = "{name}"\nprotocol = "openai"\n'
            f'base_url = "http://127.0.0.1:{port}/v1"\n'
            for name in ("Groq", "Ollama")
        )
        with running_gateway(tmp_path, config) as gateway:
            messages = [{"role": "user", "content": "hi"}]
            answer = gateway.chat({"model": "auto", "messages": messages})

    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (503, "all_models_failed")
    assert answer.headers["retry-after"]
    assert error["message"] == (
        "There is no model yet: Groq, Ollama cannot be asked for models; ask again."
        " On the gateway's machine, `manyways doctor` says why."
    )
