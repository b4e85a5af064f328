"""What a provider says of an error is read whatever its shape, and its own words kept apart."""

import json

import pytest

from manyways.upstream.complaint import Complaint


def read(body: object) -> Complaint:
    return Complaint.read(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "message", "code", "proper"),
    [
        ({"error": {"message": "m", "code": "c"}}, "m", "c", True),
        ([{"error": {"message": "m", "code": 400}}], "m", "400", True),
        ({"error": "m", "code": "c"}, "m", "c", True),
        ({"error": ["m", "n"]}, "m", "", True),
        ({"error": [{"message": "m"}]}, "m", "", True),
        ({"object": "error", "message": "m", "code": "c"}, "m", "c", False),
        ({"error": None, "message": "m"}, "m", "", False),
        ({"detail": "m"}, "m", "", False),
        ({"detail": [{"msg": "m"}]}, '[{"msg":"m"}]', "", False),
        ({"title": "m", "errors": {"a": ["b"]}}, "m", "", False),
        ({"success": False, "errors": [{"code": 5007, "message": "m"}]}, "m", "5007", False),
        ({"error": {"message": '{"error": {"message": "m", "code": "c"}}'}}, "m", "c", True),
        ({"error": {"message": '{"role": "m"}'}}, '{"role": "m"}', "", True),
    ],
)
def test_every_shape_is_read(body: object, message: str, code: str, proper: bool) -> None:
    found = read(body)
    assert (found.message, found.code, found.proper) == (message, code, proper)
    assert found.told


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b"null", b"7", b'{"a": 1}', b"[["])
def test_a_body_without_words_says_nothing(body: bytes) -> None:
    assert Complaint.read(body) == Complaint(own=Complaint.read(body).own)
    assert not Complaint.read(body).told


def test_the_words_of_a_provider_behind_are_handed_on_but_are_not_its_own() -> None:
    raw = json.dumps({"error": {"message": "no credit left"}})
    found = read({"error": {"message": "Provider returned error", "metadata": {"raw": raw}}})
    assert found.message == "Provider returned error: no credit left"
    assert "no credit" not in found.own


def test_what_is_quoted_is_not_a_providers_own_word() -> None:
    found = read({"error": {"message": "It's 'a' and \"b\", don't say `c` or 'd' again"}})
    assert found.own.split() == ["It's", "''", "again"]


def test_an_unending_message_is_cut() -> None:
    found = read({"error": {"message": "m" * 100_000, "code": "c" * 100_000}})
    assert len(found.text) < 5000


def test_depth_is_no_danger() -> None:
    for depth in (10, 100, 500, 1000, 10_000):
        body = b'{"error": {"message": %s}}' % (b"[" * depth + b"]" * depth)
        assert isinstance(Complaint.read(body), Complaint)
