"""Which path leads where."""

import pytest

from manyways.edge.exchange import Exchange
from manyways.edge.routes import Routes
from manyways.edge.settings import Mount, Settings
from tests.edge.pages import ask, edge

SETTINGS = Settings(mounts=(Mount(path="/v1"), Mount(path="/vibe", error_format="string")))


async def told(exchange: Exchange, found: str) -> None:
    await exchange.answer(f"{exchange.method} {found}".encode())


async def said(exchange: Exchange) -> None:
    await exchange.answer(b"said")


async def told_behind(exchange: Exchange, found: str) -> None:
    await exchange.answer(f"end of {found}".encode())


PATHS = {"/keys/{id}": {"GET": told, "PATCH": told}, "/keys/{id}/end": {"POST": told_behind}}
EDGE = edge({"/keys": said}, PATHS)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/keys", b"said"),
        ("GET", "/keys/one", b"GET one"),
        ("PATCH", "/keys/two words", b"PATCH two words"),
        ("POST", "/keys/end/end", b"end of end"),
    ],
)
async def test_what_stands_in_the_place_of_the_id_is_told(
    method: str, path: str, body: bytes
) -> None:
    page = await ask(EDGE, path, method=method)

    assert (page.status, page.body) == (200, body)


@pytest.mark.parametrize(
    "path", ["/keys/", "/keys//end", "/keys/one/", "/keys/one/two", "/keys/one/end/", "/key"]
)
async def test_other_paths_lead_nowhere(path: str) -> None:
    assert (await ask(EDGE, path)).status == 404


async def test_a_method_that_is_not_served_is_told_which_are() -> None:
    page = await ask(EDGE, "/keys/one", method="POST")

    assert (page.status, page.headers["allow"]) == (405, "GET, PATCH, OPTIONS")
    assert (await ask(EDGE, "/keys/one", method="OPTIONS")).status == 204


def test_every_route_can_be_told() -> None:
    routes = Routes(
        SETTINGS, {"/chat": {"POST": said}}, {"/healthz": {"GET": said}}, model=told, with_id=PATHS
    )

    assert set(routes.table()) == {
        ("POST", "/v1/chat"),
        ("POST", "/vibe/chat"),
        ("GET", "/healthz"),
        ("GET", "/v1/models/{id}"),
        ("HEAD", "/v1/models/{id}"),
        ("GET", "/vibe/models/{id}"),
        ("HEAD", "/vibe/models/{id}"),
        ("GET", "/keys/{id}"),
        ("PATCH", "/keys/{id}"),
        ("POST", "/keys/{id}/end"),
    }


def test_errors_are_told_in_the_format_of_the_mount() -> None:
    routes = Routes(SETTINGS, {}, {}, model=told, with_id=PATHS)

    assert routes.find("/vibe/nowhere").error_format == "string"
    assert routes.find("/vibe/models/a/b").error_format == "string"
    assert routes.find("/keys/one").error_format == "object"
    assert set(routes.find("/v1/models/a/b").endpoints) == {"GET", "HEAD"}
