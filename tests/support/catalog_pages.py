"""What a running gateway tells of its catalog, as operators and callers ask for it."""

import time
from collections.abc import Callable
from typing import Any

from tests.support.gateway import Gateway

Json = dict[str, Any]


def until(what: Callable[[], Any], limit: float = 60.0) -> Any:
    """What it comes to, once it comes to anything."""
    deadline = time.monotonic() + limit
    while not (found := what()):
        assert time.monotonic() < deadline, f"nothing within {limit:g} s"
        time.sleep(0.05)
    return found


def rows(gateway: Gateway, path: str) -> list[Json]:
    """What one of the operator's lists holds."""
    answer = gateway.ask(f"/admin/v1/catalog/{path}")
    assert answer.status == 200, answer.body
    found: list[Json] = answer.json()["data"]
    return found


def row(gateway: Gateway, model: str) -> Json:
    """A model as callers see it, by `provider/model`."""
    found: Json = gateway.ask(f"/v1/models/{model}", key=None).json()
    return found


def verified(gateway: Gateway, provider: str, model: str) -> Json:
    """The latest word on a model, with the checks that it follows from."""
    (found,) = rows(gateway, f"verifications?provider={provider}&model={model}")
    return found


def refresh(gateway: Gateway, **scope: str) -> Json:
    """Have models verified, and what came of it."""
    begun = gateway.ask("/admin/v1/catalog/refresh", scope)
    assert begun.status == 202, begun.body
    return ended(gateway, begun.json()["id"])


def ended(gateway: Gateway, run_id: str) -> Json:
    """A run, once it is over."""

    def look() -> Json | None:
        run: Json = gateway.ask(f"/admin/v1/catalog/refresh/{run_id}").json()
        return None if run["status"] == "running" else run

    found: Json = until(look)
    assert found["status"] == "done", found
    return found


def is_listed(gateway: Gateway, model: str) -> bool:
    """Whether its provider has told of it, as `provider/model`."""
    return gateway.ask(f"/v1/models/{model}", key=None).status == 200


def chat(gateway: Gateway, provider: str, model: str) -> int:
    """A caller who wants this model of this provider, and no other."""
    said = {"role": "user", "content": "Say hello in one word."}
    where = {"only": [provider], "allow_fallbacks": False}
    return gateway.chat({"model": model, "messages": [said], "provider": where}).status


def run_of(gateway: Gateway, reason: str) -> Json:
    """The verification that the gateway has begun of its own accord, once it is over."""
    made = until(lambda: [run for run in rows(gateway, "refresh") if run["reason"] == reason])
    return ended(gateway, made[0]["id"])
