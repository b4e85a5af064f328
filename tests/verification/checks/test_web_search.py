"""Web search: sources are named where they can be found again."""

import json
from typing import Any

import pytest

from manyways.verification.checks.web_search import web_search
from tests.support.asked import Asked, chat, interview, model
from tests.verification.checks.asking import always, asked, honest, told

PAGE = "https://www.tagesblatt-online.de/2026/harbour.html"


async def test_a_search_is_asked_for() -> None:
    asker = Asked(honest)
    await web_search(interview(model(), asker))

    assert asker.requests[0]["web_search_options"] == {}


@pytest.mark.parametrize(
    "annotation",
    [
        {"type": "url_citation", "url_citation": {"url": PAGE, "title": "Harbour"}},
        {"type": "url_citation", "url": PAGE},
        {"type": "url_citation", "url_citation": {"url": "https://tagesblatt-online.de"}},
    ],
)
async def test_citations_of_a_message_are_sources(annotation: Any) -> None:
    finding = await told(web_search, "A harbour froze.", annotations=[annotation])

    assert finding.verdict == "passed"


@pytest.mark.parametrize(
    "beside",
    [{"citations": [PAGE]}, {"citations": [{"url": PAGE}]}, {"search_results": [{"url": PAGE}]}],
)
async def test_sources_beside_the_message_are_sources(beside: dict[str, Any]) -> None:
    answer = json.dumps({**json.loads(chat("A harbour froze.")), **beside}).encode()

    assert (await asked(web_search, always(answer))).verdict == "passed"


@pytest.mark.parametrize(
    "text",
    [f"A harbour froze ({PAGE}).", f"[Harbour]({PAGE})", f"Source: <{PAGE}>", f"See **{PAGE}**."],
)
async def test_the_address_of_a_page_in_the_text_is_a_source(text: str) -> None:
    assert (await told(web_search, text)).verdict == "passed"


@pytest.mark.parametrize(
    "text",
    [
        "I cannot search the web.",
        "Source: the BBC.",
        "Source: https://www.bbc.com",
        "Source: https://www.bbc.com/.",
        "Source: https://example.com/news/today",
        "Source: https://www.example.org/news",
        "Source: https://news.example/today",
        "Source: http://localhost/news",
        "Source: http://127.0.0.1/news",
        "Source: http://[::1]/news",
        "Source: https://[broken/news",
        "Source: ftp://tagesblatt.de/news",
        "Source: https:///news/today",
        "Source: www.bbc.com/news",
        f"<think>Maybe {PAGE}</think>I do not know.",
    ],
)
async def test_what_could_be_said_without_a_search_is_no_source(text: str) -> None:
    finding = await told(web_search, text)

    assert finding.verdict == "failed"
    assert finding.reason.startswith("it names no source: “")


@pytest.mark.parametrize(
    "annotations",
    [
        [],
        [None, 1, "words", [], {}],
        [{"type": "url_citation"}],
        [{"type": "url_citation", "url_citation": None}],
        [{"type": "url_citation", "url_citation": {"url": None}}],
        [{"type": "url_citation", "url_citation": {"url": "https://[x"}}],
        [{"type": "url_citation", "url_citation": {"url": "https://example.com/a"}}],
        [{"type": "url_citation", "url_citation": {"url": "https://a.de/" + "x" * 5000}}],
        [{"type": "file_citation", "file_citation": {"file_id": "f"}}],
    ],
)
async def test_citations_that_lead_nowhere_are_none(annotations: list[Any]) -> None:
    finding = await told(web_search, "A harbour froze.", annotations=annotations)

    assert finding.verdict == "failed"


@pytest.mark.parametrize("beside", [5, "x", PAGE, {"url": PAGE}, [[PAGE]], None])
async def test_sources_in_another_shape_are_none(beside: Any) -> None:
    answer = json.dumps({**json.loads(chat("News.")), "citations": beside}).encode()

    assert (await asked(web_search, always(answer))).verdict == "failed"
