"""The fault wall, seen by clients that know nothing of it."""

import http.client
import socket
import urllib.request
from urllib.error import HTTPError

import pytest

from tests.support.wall import (
    Moment,
    Reset,
    Send,
    Stall,
    WaitFor,
    head,
    html,
    piece,
    recut,
    sse,
    wall_in_thread,
    whole,
)


def test_a_wall_in_a_thread_plays_one_script_a_request() -> None:
    with wall_in_thread(whole(b"usual")) as wall:
        wall.then(whole(b"first"), html(502))
        with urllib.request.urlopen(wall.url + "/a", b"{}") as answer:  # noqa: S310  our own
            assert answer.read() == b"first"
        with pytest.raises(HTTPError, match="502") as caught:
            urllib.request.urlopen(wall.url + "/b")  # noqa: S310  our own
        assert b"<html>" in caught.value.read()
        caught.value.close()
        with urllib.request.urlopen(wall.url + "/c") as answer:  # noqa: S310  our own
            assert answer.read() == b"usual"
        assert [(each.method, each.path) for each in wall.requests] == [
            ("POST", "/a"),
            ("GET", "/b"),
            ("GET", "/c"),
        ]
        assert wall.requests[0].body == b"{}"


def test_a_stream_waits_for_the_test_and_hears_when_the_peer_leaves() -> None:
    go_on = Moment()
    first, *_ = sse('{"n": 1}')
    with wall_in_thread((first, WaitFor(go_on), Send(piece(b"data: 1\n\n")), Stall())) as wall:
        client = http.client.HTTPConnection("127.0.0.1", wall.port, timeout=5)
        client.request("GET", "/")
        answer = client.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        go_on.set()
        assert answer.readline() == b"data: 1\n"
        assert wall.open_connections == 1
        answer.close()
        client.close()
        wall.requests[0].left.block()
        wall.deserted().block()
        assert wall.open_connections == 0


def test_a_reset_is_a_reset() -> None:
    with (
        wall_in_thread((Send(head(200, length=9)), Reset())) as wall,
        socket.create_connection(("127.0.0.1", wall.port), timeout=5) as client,
        client.makefile("rb") as answer,
    ):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            answer.read()


@pytest.mark.parametrize("cuts", [None, [], [1, 7, 7, 1000]])
def test_recutting_changes_no_byte(cuts: list[int] | None) -> None:
    data = head(200, length=5) + b"hello"
    *sends, last = recut((*whole(b"hello"), Stall()), cuts)
    assert b"".join(step.data for step in sends if isinstance(step, Send)) == data
    assert last == Stall()
