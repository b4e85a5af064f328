"""Server-sent events out of bytes, however the network split them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.sse import DONE, DONE_EVENT, KEEP_ALIVE, Event, EventReader, EventTooLong


def read(*chunks: bytes, limit: int = 1000) -> list[Event]:
    reader = EventReader(limit)
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.end()


def payloads(*chunks: bytes) -> list[bytes]:
    return [event.data for event in read(*chunks)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_events_end_with_an_empty_line(end: bytes) -> None:
    assert payloads(b"data: a" + end * 2 + b"data: b" + end * 2) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data:a\n\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"data: a \n\n", b"a "),
        (b"data: a: b\n\n", b"a: b"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\ndata:\ndata: b\n\n", b"a\n\nb"),
        (b": comment\ndata: a\n\n", b"a"),
        (b"id: 1\nretry: 5\ndata: a\n\n", b"a"),
        (b"database: x\ndata: a\n\n", b"a"),
        (b"\n\n\ndata: a\n\n", b"a"),
        ("data: п\u2028п\n\n".encode(), "п\u2028п".encode()),
    ],
)
def test_one_event_is_read(text: bytes, expected: bytes) -> None:
    assert payloads(text) == [expected]


def test_comments_and_empty_events_say_nothing() -> None:
    assert read(KEEP_ALIVE, b":\n\n", b"event: ping\n\n", b"\r\n\r\n") == []


def test_an_events_name_is_its_own_only() -> None:
    assert read(b"event: error\ndata: a\n\ndata: b\n\n") == [
        Event(b"a", b"error"),
        Event(b"b", b""),
    ]


def test_a_name_without_data_is_not_carried_over() -> None:
    assert read(b"event: error\n\ndata: b\n\n") == [Event(b"b", b"")]


def test_the_last_event_counts_without_its_empty_line() -> None:
    assert payloads(b"data: a\n\ndata: b") == [b"a", b"b"]
    assert payloads(b"data: a\n\ndata: b\n") == [b"a", b"b"]
    assert payloads(b"data: a\n\ndata: b\r\n") == [b"a", b"b"]


def test_an_event_is_handed_out_with_its_last_byte() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [Event(b"a", b"")]
    assert reader.end() == []


def test_our_own_last_event_reads_as_done() -> None:
    assert payloads(DONE_EVENT) == [DONE]


lines = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data:", b"data", b"event: e", b": c", b"", b"", b"", b"id: 1",
         b"data: \xd0\xbf", b"da", b"x"]
    ),
    max_size=20,
)  # fmt: skip


@given(lines, st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 200), max_size=20))
def test_however_the_bytes_are_split_the_events_are_the_same(
    parts: list[bytes], end: bytes, cuts: list[int]
) -> None:
    text = end.join(parts) + end
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*pieces) == read(text)


def test_what_is_held_back_has_a_limit() -> None:
    for chunks in (
        [b"data: " + b"x" * 2000],
        [b"x" * 600, b"x" * 600],
        [b"data: " + b"x" * 600 + b"\n"] * 2,
        [b"data: a\n\ndata: " + b"x" * 2000],
    ):
        with pytest.raises(EventTooLong):
            read(*chunks)


def test_many_events_in_one_piece_are_not_too_long() -> None:
    assert len(read(b"data: abc\n\n" * 1000, limit=100)) == 1000


def test_a_long_event_in_small_pieces_costs_no_more_than_its_length() -> None:
    """Ten megabytes in pieces of a hundred bytes: put together once, not each time."""
    reader = EventReader()
    assert reader.feed(b"data: ") == []
    for _ in range(100_000):
        assert reader.feed(b"x" * 100) == []
    (event,) = reader.feed(b"\n\n")
    assert len(event.data) == 10_000_000
    assert repr(reader) == "<EventReader holding 0 bytes>"


def test_an_empty_data_line_counts_however_it_was_split() -> None:
    whole, parts = EventReader(), EventReader()
    assert whole.feed(b"data:\ndata: [DONE]\n\n") == [
        *parts.feed(b"data:\n"),
        *parts.feed(b"data: [DONE]\n\n"),
    ]
