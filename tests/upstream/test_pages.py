"""A list of models that comes in pages becomes one list, and one without an end becomes none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import AttemptFailed
from manyways.upstream.pages import Pages, same_origin


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def read(*bodies: bytes) -> tuple[list[str | None], bytes]:
    """What is asked for, page by page, and what all of them make."""
    pages = Pages()
    asked = [pages.query]
    for one in bodies:
        pages.add(one)
        asked.append(pages.query)
    return asked, pages.joined()


@pytest.mark.parametrize(
    "whole",
    [
        b'{"data": [{"id": "a"}]}',
        b'{"data": [{"id": "a"}], "has_more": false, "last_id": "a"}',
        b'{"data": [{"id": "a"}], "has_more": true, "last_id": null}',
        b'{"models": [], "next_page_token": ""}',
        b'{"result": [], "result_info": {"page": 2, "per_page": 50, "total_count": 100}}',
        b'{"result": [], "result_info": {"page": 0, "per_page": 0, "total_count": 100}}',
        b'{"result": [], "result_info": null, "nextPageToken": null}',
        b'{"data": [], "has_more": 7, "last_id": "a"}',
        b'["a", "b"]',
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b"",
    ],
)
def test_what_is_not_in_pages_is_handed_on_as_it_came(whole: bytes) -> None:
    assert read(whole) == (["", None], whole)


@pytest.mark.parametrize(
    ("key", "more", "query"),
    [
        ("data", {"has_more": True, "last_id": "a&b c"}, "?after_id=a%26b%20c"),
        ("models", {"nextPageToken": "x/y=="}, "?pageToken=x%2Fy%3D%3D"),
        ("models", {"next_page_token": "z"}, "?page_token=z"),
        ("result", {"result_info": {"page": 1, "per_page": 2, "total_count": 3}}, "?page=2"),
    ],
)
def test_each_providers_pages_are_followed_and_put_together(
    key: str, more: dict[str, Any], query: str
) -> None:
    first = body(**{key: [{"id": "a", "price": 1e-7}, {"id": "b"}]}, **more)
    last = body(**{key: [{"id": "c"}]}, has_more=False)
    asked, joined = read(first, last)
    assert asked == ["", query, None]
    assert json.loads(joined) == {key: [{"id": "a", "price": 1e-7}, {"id": "b"}, {"id": "c"}]}


def page(number: int, *, entries: int = 1, to: int | None = None) -> bytes:
    data = [{"id": f"{number}.{entry}"} for entry in range(entries)]
    return body(data=data, has_more=True, last_id=str(number if to is None else to))


def test_a_provider_that_does_not_understand_where_to_go_on_has_told_its_list() -> None:
    asked, joined = read(page(1), page(1))
    assert asked == ["", "?after_id=1", None]
    assert joined == page(1)


@pytest.mark.parametrize(
    "endless",
    [
        [page(1, to=2), page(2, to=1), page(3, to=2)],  # in a circle
        [page(1, entries=0)],  # nothing, and there is more of it
        [page(number, entries=1000) for number in range(11)],  # more than anybody has
        [page(number) for number in range(200)],  # in morsels
    ],
)
def test_pages_without_an_end_are_no_list(endless: list[bytes]) -> None:
    with pytest.raises(AttemptFailed, match="goes on and on"):
        read(*endless)


def test_room_shrinks_with_each_page() -> None:
    pages = Pages()
    before = pages.room
    pages.add(page(1))
    assert pages.room == before - len(page(1))


@pytest.mark.parametrize("other", [b'{"error": {"message": "no"}}', b"<html>", b'{"models": []}'])
def test_a_page_that_is_no_list_spoils_it_for_half_a_list_is_worse_than_none(
    other: bytes,
) -> None:
    with pytest.raises(AttemptFailed, match="no such list"):
        read(page(1), other)


@given(
    st.lists(st.binary(max_size=40) | st.builds(page, st.integers(0, 3)), min_size=1, max_size=5)
)
def test_any_pages_make_a_body_or_the_one_error(bodies: list[bytes]) -> None:
    pages = Pages()
    try:
        for one in bodies:
            if pages.query is None:
                break
            pages.add(one)
    except AttemptFailed:
        return
    assert isinstance(pages.joined(), bytes)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://text.example.ai/models", "https://text.example.ai/openai", True),
        ("https://a.example/x", "https://A.example:443/v1", True),
        ("http://a.example", "https://a.example", False),
        ("https://b.a.example/models", "https://a.example/v1", False),
        ("https://a.example:8443/models", "https://a.example/v1", False),
        ("https://a.example.evil.test/models", "https://a.example", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert same_origin(one, other) is same
