"""What providers really sent, replayed: the caller gets the same, apart from the named edits.

The recordings lie beside the checkout and are no part of it; where they are absent, the samples
of our own making (`tests/dialects/data`) still run.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.dialects.streams import SAMPLES, Sample
from tests.support.chat_provider import ChatProvider
from tests.support.gateway import Answer, Gateway
from tests.support.wall import chunked, recut, whole

pytestmark = pytest.mark.process

FOLDER = Path(__file__).parents[2].parent / "shared" / "recordings"
PROVIDERS = ("openai", "openai-compatible", "deepseek", "groq", "mistral", "xai")
EVENTS = [("Content-Type", "text/event-stream")]
JSON = [("Content-Type", "application/json")]
EDITED = {"model", "provider", "id", "created", "object"}

Fields = dict[str, msgspec.Raw]
decode_fields = msgspec.json.Decoder(Fields).decode


def recorded_streams() -> list[Path]:
    found = _files("*.chunks.txt") + _files("*.sse")
    return [path for path in found if '"chat.completion.chunk"' in path.read_text()]


def recorded_answers() -> list[Path]:
    return [
        p for p in _files("*.json") if json.loads(p.read_text()).get("object") == "chat.completion"
    ]


def _files(pattern: str) -> list[Path]:
    return [path for name in PROVIDERS for path in sorted((FOLDER / name).glob(pattern))]


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """A test for each file; one that is skipped where there is none."""
    cases = [pytest.param(path, id=f"{path.parent.name}/{path.name}") for path in paths]
    reason = "the recordings are not beside this checkout (../shared/recordings)"
    absent = pytest.param(Path(), marks=pytest.mark.skip(reason=reason))
    return pytest.mark.parametrize("path", cases or [absent])


def payloads_of(path: Path) -> list[bytes]:
    """The events' JSON as the provider sent it."""
    lines = (line.removeprefix(b"data: ") for line in path.read_bytes().splitlines())
    return [line for line in lines if line and line != b"[DONE]"]


def framed(payloads: list[bytes]) -> bytes:
    return b"".join(b"data: %b\n\n" % payload for payload in [*payloads, b"[DONE]"])


def ask(gateway: Gateway, name: str, *, stream: bool, choices: int = 1) -> Answer:
    """A request to which the provider answers what stands under `name`, its usage included."""
    messages = [{"role": "user", "content": name}]
    body = {"model": "gpt-4o", "messages": messages, "stream": stream, "n": choices}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return gateway.chat({**body, "provider": {"allow_fallbacks": False}})


def untouched(fields: Fields) -> dict[str, bytes]:
    """The very bytes of what is not edited."""
    return {name: bytes(value) for name, value in fields.items() if name not in EDITED}


def check_stream(answer: Answer, sent: list[bytes]) -> None:
    """Every event in order, to the byte but for the edits; one name for all of them."""
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    got = [decode_fields(event.removeprefix(b"data: ")) for event in events]
    assert [untouched(fields) for fields in got] == [untouched(decode_fields(s)) for s in sent]
    original: list[dict[str, Any]] = [json.loads(payload) for payload in sent]
    ids = [event["id"] for event in original if event.get("id")]
    moments = [event["created"] for event in original if event.get("created")]
    for event in events:
        value = json.loads(event.removeprefix(b"data: "))
        assert (value["model"], value["provider"]) == ("gpt-4o", "Capi")
        assert value["object"] == "chat.completion.chunk"
        assert value["id"] == ids[0] if ids else value["id"].startswith("chatcmpl-")
        assert value["created"] == moments[0] if moments else value["created"] > 0


@each(recorded_streams())
def test_a_recorded_stream_reaches_the_caller_as_it_was_sent(
    path: Path, gateway: Gateway, provider: ChatProvider
) -> None:
    sent = payloads_of(path)
    provider.answers[path.name] = chunked(framed(sent), headers=EVENTS)
    check_stream(ask(gateway, path.name, stream=True), sent)


@each(recorded_streams())
def test_a_recorded_stream_cut_before_its_end_never_looks_finished(
    path: Path, gateway: Gateway, provider: ChatProvider
) -> None:
    sent = payloads_of(path)
    last = max(i for i, s in enumerate(sent) if b'"finish_reason":"' in s)
    provider.answers["cut " + path.name] = chunked(framed(sent[:last]), headers=EVENTS)
    answer = ask(gateway, "cut " + path.name, stream=True)
    assert b"[DONE]" not in answer.body
    if answer.status == 200:
        assert answer.events()[-1]["error"]["code"] == "all_models_failed"
    else:
        assert answer.status == 503


@each(recorded_answers())
def test_a_recorded_answer_reaches_the_caller_as_it_was_sent(
    path: Path, gateway: Gateway, provider: ChatProvider
) -> None:
    sent = path.read_bytes()
    provider.answers[path.name] = whole(sent, headers=JSON)
    answer = ask(gateway, path.name, stream=False)
    assert answer.status == 200
    fields = decode_fields(answer.body)
    assert untouched(fields) == untouched(decode_fields(sent))
    value, original = answer.json(), json.loads(sent)
    assert (value["model"], value["provider"]) == ("gpt-4o", "Capi")
    assert {name: value[name] for name in ("id", "object", "created")} == {
        name: original[name] for name in ("id", "object", "created")
    }


@each([p for p in _files("*-error.json") if "param" in json.loads(p.read_text())["error"]])
def test_a_recorded_refusal_is_told_in_the_providers_words(
    path: Path, gateway: Gateway, provider: ChatProvider
) -> None:
    provider.answers[path.name] = whole(path.read_bytes(), 400, JSON)
    answer = ask(gateway, path.name, stream=False)
    assert answer.status == 400
    assert answer.json() == json.loads(path.read_bytes())


@each(_files("openai-error.1.json"))
@pytest.mark.parametrize("status", [400, 429])
def test_a_recorded_lack_of_credit_is_our_fault_and_not_the_callers(
    path: Path, gateway: Gateway, provider: ChatProvider, status: int
) -> None:
    provider.answers[path.name] = whole(path.read_bytes(), status, JSON)
    answer = ask(gateway, path.name, stream=False)
    assert answer.status == 503
    assert answer.json()["error"]["details"]["error_history"][0]["status"] == status


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_a_sample_reaches_the_caller_as_it_was_sent_in_pieces_of_any_size(
    sample: Sample, size: int, gateway: Gateway, provider: ChatProvider
) -> None:
    pieces = range(0, 1_000_000, size) if size > 1 else None
    name = f"{sample.name} by {size}"
    provider.answers[name] = recut(chunked(sample.data, headers=EVENTS), pieces)
    answer = ask(gateway, name, stream=True, choices=sample.choices)
    check_stream(answer, sample.payloads)
