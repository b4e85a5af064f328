"""Web search: sources are named, each with its address."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from manyways.verification.check import Finding, failed, passed
from manyways.verification.checks.words import quoted, spoken
from manyways.verification.interview import Interview, Said

_LOOKED_AT: Final = 100
"""Sources, and addresses in a text: more are not needed to find one that will do."""
_LONGEST: Final = 2000
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"'()\[\]]{4,2000}", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:[a-z0-9-]{1,63}\.)+[a-z][a-z0-9-]{1,62}", re.IGNORECASE)
_MADE_UP: Final = re.compile(r"(?:^|\.)example(?:\.[a-z]+)?$", re.IGNORECASE)


async def web_search(interview: Interview) -> Finding:
    """It names a source of today's news: as a citation, or in its text as the address of a page.
    A site's bare name in the text proves nothing: those are known by heart."""
    prompt = "Search the web for today's news. Tell one of them briefly, and its source's address."
    said = await interview.say(prompt, limit=256, web_search_options={})
    cited = [address for address in _cited(said) if _host(address)]
    if cited or any(_is_page(address) for address in _named(spoken(said))):
        return passed(prompt, said.text)
    return failed(prompt, said.text, f"it names no source: {quoted(spoken(said))}")


def _cited(said: Said) -> Iterator[str]:
    """Addresses that stand apart from the text: as OpenAI, Perplexity and others give them."""
    for found in (
        said.annotations,
        said.fields.get("citations"),
        said.fields.get("search_results"),
    ):
        for one in found[:_LOOKED_AT] if isinstance(found, list | tuple) else ():
            address = _address(one)
            if isinstance(address, str):
                yield address


def _address(source: Any) -> Any:
    if not isinstance(source, dict):
        return source
    inner = source.get("url_citation")
    return (inner if isinstance(inner, dict) else source).get("url")


def _named(text: str) -> Iterator[str]:
    for found in islice(_ADDRESS.finditer(text), _LOOKED_AT):
        yield found[0].rstrip(".,;:!?*`")


def _host(address: str) -> str:
    """The host of a web address; empty where it is none that could be."""
    if len(address) > _LONGEST:
        return ""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return ""
    possible = parts.scheme in {"http", "https"} and _HOST.fullmatch(host)
    return host if possible and not _MADE_UP.search(host) else ""


def _is_page(address: str) -> bool:
    return bool(_host(address)) and len(urlsplit(address).path) > 1
