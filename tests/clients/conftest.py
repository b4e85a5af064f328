"""A gateway in front of a scripted provider, one for each module of client tests."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.chat_provider import ChatProvider
from tests.support.gateway import Gateway, running_gateway
from tests.support.wall import Wall, wall_in_thread

NODE_FOLDER = Path(__file__).parent.parent / "node"

CONFIG = """
[catalog]
title = "Shown To Clients"
probe = false

[routing]
retry_pause = "20ms"

[[providers]]
name = "Capi"
protocol = "openai"
base_url = "{url}/v1"
api_key = "provider-secret"

[[providers.models]]
id = "gpt-4o"
upstream_id = "gpt-4o-2024-08-06"
capabilities = ["tools", "vision"]

[[providers.models]]
id = "o3-scripted"

[[providers]]
name = "HuggingSpace"
protocol = "openai"
base_url = "{url}/v1"

[[providers.models]]
id = "command-r-plus-08-2024"

[[providers.models]]
id = "flux"
category = "image"
"""


@pytest.fixture(scope="module")
def provider() -> ChatProvider:
    """What the upstream answers; a test may add to its `answers`."""
    return ChatProvider()


@pytest.fixture(scope="module")
def wall(provider: ChatProvider) -> Iterator[Wall]:
    """The upstream behind the gateway."""
    with wall_in_thread(provider) as wall:
        yield wall


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, wall: Wall) -> Iterator[Gateway]:
    """A running gateway with the models of `CONFIG`."""
    directory = tmp_path_factory.mktemp("gateway")
    with running_gateway(directory, CONFIG.format(url=wall.url)) as gateway:
        yield gateway


class Node:
    """Runs JavaScript with the packages of `tests/node`."""

    def run(
        self, script: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`node script arguments...` to its end. CommonJS scripts may stand anywhere."""
        return subprocess.run(
            ["node", str(script), *arguments],
            env={**os.environ, "NODE_PATH": str(NODE_FOLDER / "node_modules"), **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def node() -> Node:
    """Skips where Node.js or the packages are not there."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    if not (NODE_FOLDER / "node_modules" / ".package-lock.json").exists():
        pytest.skip("the packages are not installed: run `npm ci` in tests/node")
    return Node()
