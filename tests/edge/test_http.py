"""The edge from outside: what callers may do wrong, and what they can rely on."""

import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.chat_wall import (
    ANSWER,
    FINISH,
    JSON_TYPE,
    ROLE,
    SSE_TYPE,
    TOKENS,
    ChatWall,
    chat_wall,
    event,
)
from tests.support.gateway import Answer, Gateway, provider, running_gateway
from tests.support.wall import (
    END,
    Moment,
    Request,
    Script,
    Send,
    Stall,
    WaitFor,
    head,
    piece,
    whole,
)

pytestmark = pytest.mark.process

CONFIG = """
[server]
max_body = "12MiB"
body_timeout = "1s"
header_timeout = "1s"
send_timeout = "2s"
drain = "1s"
mounts = ["/v1", "/webhook/v1", {path = "/vibe", error_format = "string"}]
"""
MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "m", "messages": MESSAGES}


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        yield chats


@pytest.fixture(scope="module")
def gateway(wall: ChatWall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("edge")
    with running_gateway(
        directory, CONFIG + provider(wall.wall.url, "m", "org/with/slashes")
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _answering(wall: ChatWall) -> None:
    wall.answer = whole(ANSWER, 200, JSON_TYPE)
    wall.wall.requests.clear()


def address(gateway: Gateway) -> tuple[str, int]:
    host, port = gateway.root.removeprefix("http://").split(":")
    return host, int(port)


def connect(gateway: Gateway) -> socket.socket:
    return socket.create_connection(address(gateway), timeout=20)


def raw_request(
    gateway: Gateway, body: object, *, more: str = "", length: int | None = None
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(data) if length is None else length
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n{more}"
        f"Authorization: Bearer {gateway.key}\r\nContent-Length: {size}\r\n\r\n"
    ).encode() + data


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    while data := connection.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


def code(answer: Answer) -> str:
    return str(answer.json()["error"]["code"])


# Every answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {}),
        ("/webhook/v1/chat/completions", CHAT),
        ("/v1/models", None),
        ("/v1/nowhere", None),
        ("/healthz", None),
    ],
)
def test_every_answer_carries_the_common_headers(gateway: Gateway, path: str, body: object) -> None:
    answer = gateway.ask(path, body, headers={"X-Request-Id": "caller-7"})
    assert answer.headers["x-api-version"] == "1.0"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["x-client-request-id"] == "caller-7"
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    request_id = answer.headers["x-request-id"]
    assert (len(request_id), request_id[14]) == (36, "7")


@pytest.mark.parametrize("insane", ["x" * 300, "caf\u00e9"])
def test_an_insane_request_id_is_not_echoed(gateway: Gateway, insane: str) -> None:
    answer = gateway.ask("/healthz", headers={"X-Request-Id": insane})
    assert "x-client-request-id" not in answer.headers


def test_an_answer_from_a_model_says_whose_it_is(gateway: Gateway) -> None:
    answer = gateway.chat(CHAT)
    told = {
        name: answer.headers[f"x-manyways-{name}"] for name in ("provider", "model", "attempts")
    }
    assert told == {"provider": "Test", "model": "m", "attempts": "1"}


def test_a_preflight_names_methods_and_headers(gateway: Gateway) -> None:
    answer = gateway.ask("/v1/chat/completions", method="OPTIONS", key=None)
    assert answer.status == 204
    assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert "Authorization" in answer.headers["access-control-allow-headers"]


def test_an_unknown_route_is_a_404_and_a_wrong_method_a_405(gateway: Gateway) -> None:
    assert code(gateway.ask("/v1/nowhere")) == "not_found"
    answer = gateway.ask("/v1/chat/completions")
    assert (answer.status, code(answer)) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"


def test_head_answers_as_get_does_without_the_body(gateway: Gateway) -> None:
    got, asked = gateway.ask("/v1/models"), gateway.ask("/v1/models", method="HEAD")
    assert asked.body == b""
    assert asked.headers["content-length"] == str(len(got.body))


def test_models_are_cached_by_etag(gateway: Gateway) -> None:
    first = gateway.ask("/v1/models", key=None)
    assert first.headers["cache-control"] == "public, max-age=600"
    again = gateway.ask("/v1/models", key=None, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    other = gateway.ask("/v1/models", key=None, headers={"If-None-Match": '"other"'})
    assert other.status == 200


def test_an_id_with_slashes_has_a_page_of_its_own(gateway: Gateway) -> None:
    for path in ("/v1/models/org/with/slashes", "/webhook/v1/models/org%2Fwith%2Fslashes"):
        assert gateway.ask(path, key=None).json()["id"] == "org/with/slashes"


def test_a_mount_has_an_error_format_of_its_own(gateway: Gateway) -> None:
    answer = gateway.ask("/vibe/chat/completions", {**CHAT, "model": "nope"})
    assert (answer.status, answer.json()) == (400, {"error": "invalid_model"})
    assert gateway.ask("/vibe/nowhere").json() == {"error": "not_found"}
    answer = gateway.ask("/vibe/chat/completions", CHAT, key="rvf_wrong")
    assert (answer.status, answer.json()) == (401, {"error": "invalid_api_key"})


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/images/generations"])
def test_what_is_not_served_yet_is_said_in_plain_words(gateway: Gateway, path: str) -> None:
    answer = gateway.ask(path, {"model": "m"})
    assert (answer.status, code(answer)) == (400, "not_supported")
    assert gateway.ask(path, {"model": "m"}, key=None).status == 401


# The order of checks


def test_size_comes_before_the_key_and_the_key_before_the_body(gateway: Gateway) -> None:
    assert gateway.ask("/v1/nowhere", b"not json", key="wrong").status == 404
    with connect(gateway) as caller:
        caller.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert b" 413 " in caller.recv(65536).split(b"\r\n")[0]
    assert gateway.chat(b"not json", key="wrong").status == 401
    assert gateway.chat(b"not json").status == 400
    assert gateway.chat({"model": "nope", "messages": 5}).status == 400
    assert gateway.chat({"model": "nope", "messages": MESSAGES}).status == 404


def test_without_a_key_it_is_a_401_that_says_where_to_put_it(gateway: Gateway) -> None:
    answer = gateway.chat(CHAT, key=None)
    assert (answer.status, code(answer)) == (401, "invalid_api_key")
    assert "Authorization: Bearer" in answer.json()["error"]["message"]


# Bad input


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"text"', None),
        (b"\xff\xfe", None),
        (b'{"model": "m", "messages": [], "x": "\xff"}', None),
        (b'{"model": "m", "messages": NaN}', None),
        (b'{"model": "m", "temperature": Infinity, "messages": []}', None),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b'{"model": "m", "model": "m", "messages": []}', "model"),
        (b'{"a": ' + b"[" * 100_000, None),
        (b'{"model": "m", "messages": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", None),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "hello"}, "messages"),
        ({"model": 5, "messages": MESSAGES}, "model"),
        ({"messages": MESSAGES}, "model"),
        ({"model": "m", "messages": [5]}, "messages[0]"),
        ({"model": "m", "messages": [*MESSAGES, {"role": "x", "content": ""}]}, "messages[1].role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": 5}]}]},
            "messages[0].content[0].type",
        ),
        ({**CHAT, "temperature": 2.1}, "temperature"),
        ({**CHAT, "temperature": "0.5"}, "temperature"),
        ({**CHAT, "top_p": -0.1}, "top_p"),
        ({**CHAT, "frequency_penalty": 3}, "frequency_penalty"),
        ({**CHAT, "presence_penalty": -3}, "presence_penalty"),
        ({**CHAT, "max_tokens": 0}, "max_tokens"),
        ({**CHAT, "stream": "yes"}, "stream"),
        ({**CHAT, "web_search": True}, "web_search"),
        ({**CHAT, "web_search": {"max_results": 3}}, "web_search"),
        ({**CHAT, "models": "m"}, "models"),
        ({**CHAT, "transforms": ["middle-out"]}, "transforms"),
        ({**CHAT, "provider": {"only": "Test"}}, "provider.only"),
    ],
)  # fmt: skip
def test_bad_input_is_a_400_that_names_the_field(
    gateway: Gateway, wall: ChatWall, body: object, param: str | None
) -> None:
    answer = gateway.chat(body)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.json()["error"]["message"]) < 300
    assert wall.requests == [], "nobody was asked"


def test_what_means_nothing_is_no_request_for_it(gateway: Gateway, wall: ChatWall) -> None:
    nothings: tuple[object, ...] = (False, None, [], {}, "")
    for nothing in nothings:
        quiet = dict.fromkeys(("web_search", "models", "transforms", "provider"), nothing)
        assert gateway.chat({**CHAT, **quiet}).status == 200
        assert set(json.loads(wall.requests[-1].body)) == {"model", "messages"}


def test_a_picture_of_10_mb_passes_byte_for_byte(gateway: Gateway, wall: ChatWall) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**7}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    assert gateway.chat(body).status == 200
    assert json.loads(wall.requests[0].body) == body


def test_a_body_that_grows_too_large_is_a_413(gateway: Gateway) -> None:
    with connect(gateway) as caller:
        caller.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}"
            "\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            for _ in range(13 * 16):
                caller.sendall(block)
        except OSError:
            pass  # the gateway does not read on
        assert b" 413 " in caller.recv(65536).split(b"\r\n")[0]


def test_a_body_that_does_not_come_is_a_408(gateway: Gateway) -> None:
    with connect(gateway) as caller:
        caller.sendall(raw_request(gateway, b'{"model":', length=500))
        assert b" 408 " in caller.recv(65536).split(b"\r\n")[0]


def test_headers_that_do_not_come_or_do_not_end_are_cut_off(gateway: Gateway) -> None:
    with connect(gateway) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHos")
        assert read_all(caller) == b""
    with connect(gateway) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 200_000)
        assert b" 431 " in caller.recv(65536).split(b"\r\n")[0]


def test_broken_framing_is_a_400_of_ours(gateway: Gateway) -> None:
    with connect(gateway) as caller:
        caller.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}"
            "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()
        )
        answer = caller.recv(65536)
        assert b" 400 " in answer.split(b"\r\n")[0]
        assert b"x-request-id" in answer


def test_a_length_with_thousands_of_zeros_is_a_length(gateway: Gateway) -> None:
    with connect(gateway) as caller:
        request = raw_request(gateway, b"{}").replace(
            b"Content-Length: 2", b"Content-Length: " + b"0" * 5000 + b"2"
        )
        caller.sendall(request)
        assert b" 400 " in caller.recv(65536).split(b"\r\n")[0]


def test_requests_that_come_together_on_one_connection_are_answered_in_turn(
    gateway: Gateway, wall: ChatWall
) -> None:
    bodies = [{"model": "m", "messages": [{"role": "user", "content": str(i)}]} for i in range(3)]
    closing = ("", "", "Connection: close\r\n")
    with connect(gateway) as caller:
        for body, more in zip(bodies, closing, strict=True):
            data = json.dumps(body).encode()
            # The last byte comes by itself, or together with the next request.
            caller.sendall(raw_request(gateway, data, more=more)[:-1])
            caller.sendall(data[-1:])
        answers = read_all(caller)
    assert answers.count(b"HTTP/1.1 200 ") == 3
    assert [json.loads(request.body) for request in wall.requests] == bodies


def test_a_body_in_chunks_is_read_to_its_own_end_whatever_length_stands_beside(
    gateway: Gateway, wall: ChatWall
) -> None:
    data = json.dumps(CHAT).encode()
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:9], data[9:]))
    request = raw_request(gateway, b"", more="Transfer-Encoding: chunked\r\n", length=9)
    with connect(gateway) as caller:
        caller.sendall(request + pieces + b"0\r\n\r\n")
        status = caller.recv(65536).split(b"\r\n")[0]
    if b" 200 " in status:  # a server may as well refuse what is ambiguous
        assert json.loads(wall.requests[0].body) == CHAT
    else:
        assert b" 400 " in status


def test_a_name_that_is_too_long_is_refused_at_once(gateway: Gateway) -> None:
    answer = gateway.chat({**CHAT, "model": "x" * 5_000_000})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "model")
    assert len(answer.body) < 1000


def test_a_wish_about_providers_that_we_do_not_know_is_refused(gateway: Gateway) -> None:
    answer = gateway.chat({**CHAT, "provider": {"data_collection": "deny"}})
    assert (answer.status, code(answer)) == (400, "not_supported")
    assert answer.json()["error"]["param"] == "provider.data_collection"


def test_garbage_is_a_400(gateway: Gateway) -> None:
    with connect(gateway) as caller:
        caller.sendall(b"\x16\x03\x01 what\r\n\r\n")
        assert b" 400 " in caller.recv(65536).split(b"\r\n")[0]


# Streams


def test_each_event_is_handed_on_the_moment_it_arrives(gateway: Gateway, wall: ChatWall) -> None:
    gates = [Moment() for _ in TOKENS]
    steps = [
        step
        for gate, token in zip(gates, TOKENS, strict=True)
        for step in (WaitFor(gate), event(token))
    ]
    wall.answer = (
        Send(head(200, SSE_TYPE, chunked=True)),
        event(ROLE),
        *steps,
        event(FINISH),
        event("[DONE]"),
        Send(END),
    )
    connection = http.client.HTTPConnection(*address(gateway), timeout=20)
    gates[0].set()
    connection.request(
        "POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}),
        {"Authorization": f"Bearer {gateway.key}"},
    )  # fmt: skip
    response = connection.getresponse()
    assert json.loads(line(response))["choices"][0]["delta"]["role"] == "assistant"
    for i, token in enumerate(TOKENS):
        # The next one is not sent before this one has been seen here.
        got = json.loads(line(response))
        assert got["choices"] == json.loads(token)["choices"]
        if i + 1 < len(gates):
            gates[i + 1].set()
    assert json.loads(line(response))["choices"][0]["finish_reason"] == "stop"
    assert line(response) == "[DONE]"
    assert response.read() == b""
    connection.close()


def line(response: http.client.HTTPResponse) -> str:
    """The next event's payload."""
    text = response.readline().decode().strip()
    assert response.readline() == b"\n"
    return text.removeprefix("data: ")


def test_a_caller_that_leaves_takes_the_providers_request_along(
    gateway: Gateway, wall: ChatWall
) -> None:
    opening: Script = (
        Send(head(200, SSE_TYPE, chunked=True)),
        *map(event, (ROLE, *TOKENS[:2])),
        Stall(),
    )
    for stream, script in ((True, opening), (True, (Stall(),)), (False, (Stall(),))):
        wall.wall.requests.clear()
        arrived = Moment()
        wall.answer = announced(script, arrived)
        with connect(gateway) as caller:
            caller.sendall(raw_request(gateway, {**CHAT, "stream": stream}))
            arrived.block()
        wall.requests[0].left.block(2.0)


def announced(script: Script, arrived: Moment) -> Callable[[Request], Script]:
    """The script, and word that the request for it has come."""

    def answer(_request: Request) -> Script:
        arrived.set()
        return script

    return answer


def test_a_caller_that_does_not_read_is_given_up_with_bounded_memory(
    gateway: Gateway, wall: ChatWall
) -> None:
    large = json.dumps({**json.loads(TOKENS[0]), "padding": "x" * 60_000})
    flood = Send(piece(f"data: {large}\n\n".encode()) * 20)
    wall.answer = (Send(head(200, SSE_TYPE, chunked=True)), event(TOKENS[0]), *([flood] * 200))
    with connect(gateway) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        caller.sendall(raw_request(gateway, {**CHAT, "stream": True}))
        assert b" 200 " in caller.recv(1024)
        wall.requests[0].left.block(10.0)
        assert wall.requests[0].sent < 64 * 1024 * 1024, "the provider was made to wait"


def test_a_large_whole_answer_arrives_whole_and_waits_for_nobody_for_ever(
    gateway: Gateway, wall: ChatWall
) -> None:
    padding = "x" * 20_000_000
    wall.answer = whole(
        ANSWER.replace(b'"usage"', f'"padding": "{padding}", "usage"'.encode()), 200, JSON_TYPE
    )
    assert gateway.chat(CHAT).json()["padding"] == padding
    logged = len(gateway.log)
    with connect(gateway) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        caller.sendall(raw_request(gateway, CHAT))
        assert b" 200 " in caller.recv(1024)
        gateway.logged('"status":499', since=logged, limit=10.0)


def test_callers_who_read_nothing_do_not_keep_others_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config = '[server]\nmax_connections = 4\nsend_timeout = "1s"\nheader_timeout = "1s"\n'
    config += provider("http://127.0.0.1:9")
    with running_gateway(tmp_path_factory.mktemp("slots"), config) as gateway:
        strangers = [socket.socket() for _ in range(4)]
        for stranger in strangers:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stranger.connect(address(gateway))
            stranger.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(3000):
                    stranger.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert gateway.ask("/healthz", timeout=15).status == 200
        for stranger in strangers:
            stranger.close()


# The end


def test_a_stop_lets_streams_finish_and_refuses_what_is_new(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    go_on = Moment()
    with chat_wall() as wall:
        wall.answer = (
            Send(head(200, SSE_TYPE, chunked=True)), event(ROLE), event(TOKENS[0]), WaitFor(go_on),
            *map(event, (*TOKENS[1:], FINISH, "[DONE]")), Send(END),
        )  # fmt: skip
        config = CONFIG.replace('drain = "1s"', 'drain = "10s"') + provider(wall.wall.url)
        with (
            running_gateway(tmp_path_factory.mktemp("stop"), config) as gateway,
            connect(gateway) as caller,
        ):
            caller.sendall(raw_request(gateway, {**CHAT, "stream": True}))
            started = caller.recv(65536)
            assert b" 200 " in started
            gateway.process.send_signal(signal.SIGTERM)
            wait_until_refused(gateway)
            go_on.set()
            rest = b""
            while b"[DONE]" not in rest:
                data = caller.recv(65536)
                assert data, "the stream was cut"
                rest += data
            assert gateway.process.wait(10) == 0


def test_a_stream_that_outlasts_the_drain_is_cut_honestly(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with chat_wall() as wall:
        wall.answer = (
            Send(head(200, SSE_TYPE, chunked=True)),
            event(ROLE),
            event(TOKENS[0]),
            Stall(),
        )
        config = CONFIG + '[routing]\nidle_timeout = "60s"\n' + provider(wall.wall.url)
        with (
            running_gateway(tmp_path_factory.mktemp("cut"), config) as gateway,
            connect(gateway) as caller,
        ):
            caller.sendall(raw_request(gateway, {**CHAT, "stream": True}))
            got = caller.recv(65536)
            gateway.process.send_signal(signal.SIGINT)
            while data := caller.recv(65536):
                got += data
                if b'"error"' in got:
                    break
            assert b"shutting_down" in got
            assert b"[DONE]" not in got
            assert gateway.process.wait(10) == 0
            wall.requests[0].left.block()


def wait_until_refused(gateway: Gateway) -> None:
    """Until a new connection is refused, or a new request on it."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if gateway.ask("/healthz", timeout=2).status == 503:
                return
        except OSError:
            return
    raise AssertionError("requests are still served")
