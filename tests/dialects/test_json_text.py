"""JSON objects taken apart at the top: what is inside stays as it was, what is wrong is said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from manyways.dialects.json_text import (
    NotJson,
    decode_object,
    duplicate_key,
    encode,
    means_something,
    raw,
    with_halves,
    without_halves,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
objects = st.dictionaries(st.text(), values, max_size=6)


@given(objects, st.sampled_from([None, 1]), st.booleans())
def test_an_object_comes_back_with_the_same_values_in_the_same_order(
    value: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    back = encode(decode_object(data))
    assert list(json.loads(back).items()) == list(value.items())


@given(values, st.booleans())
def test_halves_of_characters_can_be_marked_and_put_back(value: object, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert without_halves(data) == data
    assert with_halves(data) == data


lone = st.lists(
    st.sampled_from(["\ud83d", "\ude00", "\udfff", "😀", "\\", "u", "ud83d", "é"]), max_size=6
).map("".join)


@given(st.dictionaries(lone, lone, max_size=3))
def test_text_with_halves_of_characters_comes_back_as_it_was(value: dict[str, str]) -> None:
    data = json.dumps(value).encode()
    marked = encode(decode_object(without_halves(data)))
    assert json.loads(with_halves(marked)) == json.loads(data)


def test_what_is_inside_keeps_its_very_bytes() -> None:
    inner = b'[1.500, 1E+2, 12345678901234567890123, "\\u0041\\/", {"a" : 1, "a" : 2} ]'
    fields = decode_object(b' {"x" : ' + inner + b' , "y":-0.0}\n')
    assert bytes(fields["x"]) == inner
    assert bytes(fields["y"]) == b"-0.0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"[]", "object is expected"),
        (b'"text"', "object is expected"),
        (b"null", "object is expected"),
        (b"5", "object is expected"),
        (b"{", "cut short"),
        (b'{"a": 1', "cut short"),
        (b'{"a": 1,}', "malformed at byte 8"),
        (b"{'a': 1}", "malformed at byte 1"),
        (b'{"a": 1} {"b": 2}', "malformed at byte 10"),
        (b'{"a": NaN}', "malformed at byte 6"),
        (b'{"a": Infinity}', "malformed at byte 6"),
        (b'{"a": 01}', "malformed"),
        (b'{"a": "\t"}', "malformed"),
        (b'{"a": "\\x"}', "malformed"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"a": "\xff"}', "byte 7 is not valid UTF-8"),
        (b'{"a": {"b": "\xed\xa0\x80"}}', "byte 13 is not valid UTF-8"),
        ('{"a": "é"}'.encode("latin-1"), "byte 7 is not valid UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not valid UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b'{"b": ' * 100_000, "nested too deeply"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_is_no_object_is_said_in_plain_words(data: bytes, words: str) -> None:
    with pytest.raises(NotJson, match=words):
        decode_object(data)


@given(st.binary() | st.text().map(str.encode) | st.text('{}[]":,\\u0d8 \n1e-.').map(str.encode))
def test_any_bytes_are_an_object_or_said_not_to_be(data: bytes) -> None:
    try:
        fields = decode_object(data)
    except NotJson:
        with pytest.raises((ValueError, TypeError)):
            _as_python_reads_it(data)
    else:
        assert json.loads(data).keys() == fields.keys()


def _as_python_reads_it(data: bytes) -> None:
    """The standard library's opinion, with its leniencies taken out: no NaN, no lone surrogates."""
    found = json.loads(str(data, "utf-8"), parse_constant=_no_constant)
    json.dumps(found, ensure_ascii=False).encode()
    if type(found) is not dict:
        raise TypeError(found)


def _no_constant(name: str) -> object:
    raise ValueError(name)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b'{"a": 1, "b": 2}', None),
        (b'{"a":1,"b":2}', None),
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a":1,"a":1}', "a"),
        (b'{"a":1,"b":2,"b":3,"a":4}', "b"),
        (b'{"model": 1, "m\\u006fdel": 2}', "model"),
        (b'{"a": {"b": 1, "b": 2}}', None),
        (b'{"a": [{"b": 1}, {"b": 1, "b": 2}]}', None),
        (b"{}", None),
        (b' { "a" : [ ] } ', None),
    ],
)
def test_a_key_that_stands_twice_at_the_top_is_found(data: bytes, key: str | None) -> None:
    assert duplicate_key(data, decode_object(data)) == key


def test_a_long_number_does_not_cost_time_to_look_for_duplicates() -> None:
    data = b'{"a": ' + b"9" * 1_000_000 + b', "b": 1}'
    assert duplicate_key(data, decode_object(data)) is None


@given(objects)
def test_an_object_of_python_has_no_key_twice(value: dict[str, object]) -> None:
    data = json.dumps(value).encode()
    assert duplicate_key(data, decode_object(data)) is None


@pytest.mark.parametrize("text", [b"null", b"false", b'""', b"[]", b"{}", b"[ \n ]", b"{\t}"])
def test_nothing_is_meant_by_what_is_empty(text: bytes) -> None:
    assert not means_something(Raw(text))


@pytest.mark.parametrize("text", [b"0", b"true", b'" "', b"[null]", b'{"a":null}', b'"null"'])
def test_everything_else_means_something(text: bytes) -> None:
    assert means_something(Raw(text))


def test_an_absent_value_means_nothing() -> None:
    assert not means_something(None)


@given(values)
def test_raw_is_a_value_as_json(value: object) -> None:
    assert json.loads(bytes(raw(value))) == value
