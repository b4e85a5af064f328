"""The public pages of the catalog, asked over ASGI."""

import msgspec
import pytest

from manyways.catalog.catalog import Catalog
from manyways.catalog.settings import Settings
from manyways.catalog.verified import Live
from manyways.edge.catalog import CatalogPages
from manyways.edge.http import Edge
from manyways.types import ModelEntry, Provider
from tests.edge.pages import ask, edge


async def _nobody(provider: Provider) -> bytes:
    raise AssertionError(f"{provider.name} is asked")


def _provider(name: str, *models: str) -> Provider:
    entries = tuple(ModelEntry(id=model, category="text") for model in models)
    return Provider(name=name, protocol="openai", base_url="http://none", models=entries)


@pytest.fixture
def catalog() -> Catalog:
    providers = (_provider("Capi", "good", "bad", "gone"), _provider("Space", "good"))
    return Catalog(Settings(), providers, _nobody)


@pytest.fixture
def site(catalog: Catalog) -> Edge:
    pages = CatalogPages(catalog, "Manyways")
    return edge(
        {
            "/models": pages.models,
            "/models/list": pages.text,
            "/providers": pages.providers,
        },
        {"/models/{id}": {"GET": pages.model}},
    )


def _trouble(catalog: Catalog) -> None:
    failing = Live(attempts=50, success_rate=0.5, uptime_24h=0.98765)
    catalog.see({("Capi", "bad"): failing}, {("Capi", "gone")})


ALL = ("/models", "/models/good", "/models/list", "/providers")


@pytest.mark.parametrize("path", ALL)
async def test_an_answer_may_be_kept_and_is_known_again_by_its_tag(site: Edge, path: str) -> None:
    page = await ask(site, path)
    assert page.status == 200
    assert page.headers["cache-control"] == "public, max-age=600"
    for tag in (page.headers["etag"], f'"other", W/{page.headers["etag"]}', "*"):
        again = await ask(site, path, headers={"if-none-match": tag})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == page.headers["etag"]
        assert again.headers["cache-control"] == page.headers["cache-control"]
        assert again.headers.get("vary") == page.headers.get("vary")
    other = await ask(site, path, headers={"if-none-match": '"other"'})
    assert (other.status, other.body) == (200, page.body)


async def test_only_the_text_differs_by_the_readers_language(site: Edge) -> None:
    pages = {path: await ask(site, path) for path in ALL}
    assert {path for path, page in pages.items() if "vary" in page.headers} == {"/models/list"}
    assert pages["/models/list"].headers["vary"] == "accept-language"


async def test_each_language_has_a_tag_of_its_own(site: Edge) -> None:
    russian = await ask(site, "/models/list")
    english = await ask(site, "/models/list", headers={"accept-language": "en-GB, ru;q=0.5"})
    assert english.headers["etag"] != russian.headers["etag"]
    assert (await ask(site, "/models/list?lang=en")).body == english.body
    tag = {"if-none-match": russian.headers["etag"]}
    assert (await ask(site, "/models/list?lang=en", headers=tag)).status == 200


async def test_the_text_leaves_out_what_is_down_and_shows_what_is_degraded(
    site: Edge, catalog: Catalog
) -> None:
    _trouble(catalog)
    text = (await ask(site, "/models/list")).json()["text"]
    assert text == "\n".join(
        [
            "🤖 Доступные модели Manyways:",
            "━" * 29,
            "",
            "💬 ТЕКСТОВЫЕ МОДЕЛИ (3)",
            "━" * 45,
            "",
            "1. 🏢 Capi (2 модели)",
            "   • good",
            "   • bad",
            "",
            "2. 🏢 Space (1 модель)",
            "   • good",
        ]
    )


async def test_lists_change_with_statuses_and_so_does_their_tag(
    site: Edge, catalog: Catalog
) -> None:
    before = await ask(site, "/models")
    _trouble(catalog)
    after = await ask(site, "/models", headers={"if-none-match": before.headers["etag"]})
    assert after.status == 200
    assert [(row["id"], row["status"]) for row in after.json()["data"]] == [
        ("good", "active"),
        ("bad", "degraded"),
        ("good", "active"),
    ]
    assert after.json()["data"][1]["uptime_24h"] == 0.988
    everything = (await ask(site, "/models?status=all")).json()
    assert everything["meta"]["total_models"] == 4
    assert (await ask(site, "/models/gone")).json()["status"] == "down"


async def test_a_name_is_the_row_that_is_asked_first(site: Edge, catalog: Catalog) -> None:
    assert (await ask(site, "/models/good")).json()["provider"] == "Capi"
    slow, quick = Live(attempts=9, first_token_ms=3000), Live(attempts=9, first_token_ms=200)
    catalog.see({("Capi", "good"): slow, ("Space", "good"): quick}, ())
    assert (await ask(site, "/models/good")).json()["provider"] == "Space"
    assert (await ask(site, "/models/good?provider=Capi")).json()["latency_ms"] == 3000
    catalog.see({("Capi", "good"): slow, ("Space", "good"): quick}, {("Space", "good")})
    assert (await ask(site, "/models/good")).json()["provider"] == "Capi"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/models?provider=Kapi", 404, "provider_not_found"),
        ("/models/list?provider=Kapi", 404, "provider_not_found"),
        ("/providers?name=Kapi", 404, "provider_not_found"),
        ("/models/nobody", 404, "model_not_found"),
        ("/models?status=down", 400, "invalid_request"),
        ("/models/list?lang=fr", 400, "invalid_request"),
        ("/models/list?type=smell", 400, "invalid_request"),
    ],
)
async def test_a_refusal_is_not_to_be_kept(site: Edge, target: str, status: int, code: str) -> None:
    page = await ask(site, target)
    assert (page.status, page.code) == (status, code)
    assert "etag" not in page.headers
    assert "cache-control" not in page.headers


async def test_prices_are_numbers_for_a_token_or_null() -> None:
    entries = (
        ModelEntry(id="dear", category="text", pricing={"prompt": 0.0000025, "request": 0.01}),
        ModelEntry(id="free", category="text"),
    )
    provider = Provider(name="P", protocol="openai", base_url="http://none", models=entries)
    pages = CatalogPages(Catalog(Settings(), [provider], _nobody), "M")
    page = await ask(edge({"/models": pages.models}), "/models")
    dear, free = msgspec.json.decode(page.body)["data"]
    assert dear["pricing"] == {"prompt": 2.5e-06, "request": 0.01}
    assert free["pricing"] is None
