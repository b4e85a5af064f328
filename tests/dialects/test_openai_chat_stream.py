"""A provider's stream on its way to the caller: however it is cut, the same; cut short, never
complete."""

import itertools
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manyways.dialects.openai_chat import ChatStream
from tests.dialects.streams import LABEL, SAMPLES, Sample, carry, events

EDITED = {"id", "created", "object", "model", "provider"}

samples = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
any_sample = st.sampled_from(SAMPLES)


def chunk(delta: Any = None, finish_reason: str | None = None, **fields: Any) -> bytes:
    """One event; without a delta, one without choices."""
    choices = [] if delta is None else [{"delta": delta, "finish_reason": finish_reason}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


HELLO = chunk({"content": "Hello"}, id="a", created=7)
STOP = chunk({}, "stop")


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in pieces, empty ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=30)))
    return [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]


# What passes


@samples
def test_every_event_comes_in_order_with_all_its_fields(sample: Sample) -> None:
    out, stream = carry([sample.data], sample.choices)
    assert stream.complete
    assert stream.failure is None
    got = [msgspec.json.decode(p[6:], type=dict[str, msgspec.Raw]) for p in out.split(b"\n\n")[:-1]]
    sent = [
        msgspec.json.decode(payload, type=dict[str, msgspec.Raw]) for payload in sample.payloads
    ]
    assert [_untouched(fields) for fields in got] == [_untouched(fields) for fields in sent]


def _untouched(fields: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    """The very bytes of what is not edited."""
    return {name: bytes(value) for name, value in fields.items() if name not in EDITED}


@samples
def test_one_id_one_created_one_model_and_one_provider_throughout(sample: Sample) -> None:
    out, _ = carry([sample.data], sample.choices)
    found = {(e["id"], e["created"], e["model"], e["provider"], e["object"]) for e in events(out)}
    assert len(found) == 1
    ((id_, created, model, provider, kind),) = found
    assert id_
    assert created > 0
    assert (model, provider, kind) == ("catalog-name", "Shop", "chat.completion.chunk")


def test_id_and_created_are_the_providers_first() -> None:
    late = chunk({"content": "b"}, id="b", created=9)
    out, _ = carry([chunk(id="", created=0) + HELLO + late + STOP])
    assert {(e["id"], e["created"]) for e in events(out)} == {("a", 7)}
    waiting = chunk({"role": "assistant"}, id="first", created=5)
    out, _ = carry([waiting + HELLO + late + STOP])
    assert {(e["id"], e["created"]) for e in events(out)} == {("first", 5)}


def test_id_and_created_are_ours_where_the_provider_has_none() -> None:
    out, _ = carry([chunk({"content": "Hello"}), chunk({"content": "!"}, id="late"), STOP])
    assert {(e["id"], e["created"]) for e in events(out)} == {(LABEL.id, LABEL.created)}


@given(any_sample.flatmap(lambda sample: st.tuples(st.just(sample), pieces_of(sample.data))))
def test_however_the_bytes_are_split_the_caller_gets_the_same(
    case: tuple[Sample, list[bytes]],
) -> None:
    sample, pieces = case
    expected, _ = carry([sample.data], sample.choices)
    out, stream = carry(pieces, sample.choices)
    assert out == expected
    assert stream.complete


@samples
def test_byte_by_byte_is_no_different(sample: Sample) -> None:
    expected, _ = carry([sample.data], sample.choices)
    out, _ = carry((bytes([byte]) for byte in sample.data), sample.choices)
    assert out == expected


NOISE = [
    b": a comment\n\n",
    b":\n",
    b"data:\n\n",
    b"data: \n\n",
    b"\n\n\n",
    b"id: 5\nretry: 100\n\n",
    b"unheard-of: field\n",
    b"\r\n",
]


@given(any_sample, st.data())
def test_noise_between_events_changes_nothing(sample: Sample, data: st.DataObject) -> None:
    expected, _ = carry([sample.data], sample.choices)
    crlf = data.draw(st.booleans())
    done = data.draw(st.booleans())
    noisy: list[bytes] = []
    for payload in [*sample.payloads, *([b"[DONE]"] if done else [])]:
        noisy += data.draw(st.lists(st.sampled_from(NOISE), max_size=3))
        noisy.append(b"data: " + payload + b"\n\n")
    text = b"".join(noisy)
    if crlf:
        text = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if data.draw(st.booleans()):
        text = text.rstrip(b"\r\n")
    out, stream = carry(data.draw(pieces_of(text)), sample.choices)
    assert out == expected
    assert stream.complete
    assert stream.done is done


def test_a_byte_order_mark_before_the_first_event_is_no_part_of_it() -> None:
    out, stream = carry([b"\xef\xbb\xbf" + HELLO + STOP])
    assert [e["choices"][0]["delta"] for e in events(out)] == [{"content": "Hello"}, {}]
    assert stream.complete


@pytest.mark.parametrize("space", [b"\ndata: ", b"\r\ndata: ", b"\ndata:", b"\r", b" \t "])
def test_white_space_inside_an_event_does_not_break_the_callers_line(space: bytes) -> None:
    """An event may span several `data:` lines; the caller gets it as one."""
    event = b'data: {"choices": [{"delta":' + space + b'{"content": "x"}}]}\n\n'
    out, stream = carry([event + STOP])
    assert b"\r" not in out
    assert [e["choices"][0]["delta"] for e in events(out)] == [{"content": "x"}, {}]
    assert stream.complete


# What waits


@pytest.mark.parametrize(
    "silent",
    [
        {"role": "assistant"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "reasoning_content": ""},
        {"content": "", "tool_calls": []},
        {},
    ],
)
def test_an_event_without_content_waits_for_the_first_with_some(silent: dict[str, Any]) -> None:
    stream = ChatStream(LABEL)
    assert stream.feed(chunk(silent)) == b""
    assert not stream.started
    out = stream.feed(HELLO)
    assert [e["choices"][0]["delta"] for e in events(out)] == [silent, {"content": "Hello"}]
    assert stream.started


@pytest.mark.parametrize(
    "telling",
    [
        {"content": "x"},
        {"content": [{"type": "thinking", "thinking": []}]},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "No."},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"audio": {"data": "AAAA"}},
        {"a_field_of_tomorrow": 0},
    ],
)
def test_the_first_event_with_content_goes_at_once(telling: dict[str, Any]) -> None:
    stream = ChatStream(LABEL)
    assert events(stream.feed(chunk(telling)))[0]["choices"][0]["delta"] == telling
    assert stream.started


def test_after_the_first_content_nothing_waits() -> None:
    stream = ChatStream(LABEL)
    stream.feed(HELLO)
    assert len(events(stream.feed(chunk({"content": ""})))) == 1
    assert len(events(stream.feed(chunk()))) == 1


def test_an_empty_answer_that_finishes_is_an_answer() -> None:
    out, stream = carry([chunk({"role": "assistant"}) + STOP])
    assert len(events(out)) == 2
    assert stream.complete


def test_endless_events_without_content_are_a_failure() -> None:
    out, stream = carry([chunk({"role": "assistant"}) * 1000])
    assert out == b""
    assert stream.failure is not None
    assert not stream.complete


# What is complete


@samples
def test_cut_anywhere_before_the_last_finish_reason_it_is_not_complete(sample: Sample) -> None:
    whole, _ = carry([sample.data], sample.choices)
    for cut in range(sample.last_payload_end):
        for ends in (True, False):
            out, stream = carry([sample.data[:cut]], sample.choices, ends=ends)
            assert not stream.complete, sample.data[:cut]
            assert whole.startswith(out)


@samples
def test_done_before_the_last_finish_reason_proves_nothing(sample: Sample) -> None:
    for cut in range(len(sample.payloads)):
        lines = [b"data: %b\n\n" % payload for payload in sample.payloads[:cut]]
        if any(
            sample.last_payload_end <= sample.data.find(p) + len(p) for p in sample.payloads[:cut]
        ):
            continue
        _, stream = carry([*lines, b"data: [DONE]\n\n"], sample.choices)
        assert stream.done
        assert not stream.complete


def test_every_choice_must_have_ended() -> None:
    def ended(index: int) -> bytes:
        choice = {"index": index, "delta": {"content": "x"}, "finish_reason": "stop"}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    _, stream = carry([ended(0), ended(0), ended(1)], 3)
    assert not stream.complete
    stream.feed(ended(2))
    assert stream.complete


def test_what_follows_done_is_passed_over() -> None:
    out, stream = carry([HELLO + STOP + b"data: [DONE]\n\n" + chunk({"content": "late"}) + b"{"])
    assert len(events(out)) == 2
    assert stream.complete
    assert stream.failure is None


LATE: list[dict[str, Any]] = [
    {"content": "x"},
    {"reasoning_content": "x"},
    {"reasoning": "x"},
    {"refusal": "No."},
    {"tool_calls": [{"index": 0, "id": "a"}]},
    {"audio": {"data": "AAAA"}},
]
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("finish", [None, "stop"])
def test_behind_more_of_an_answer_its_finish_reason_proves_nothing(
    late: dict[str, Any], finish: str | None
) -> None:
    """Some providers send one in every event. Then only the stream's own end counts."""
    first = chunk({"content": "One"}, "stop")
    _, stream = carry([first], ends=False)
    assert stream.complete
    begun = [first, chunk(late, finish)]
    _, cut = carry(begun, ends=False)
    assert not cut.complete
    assert cut.failure is None
    for end in ([DONE], [b"data: [DONE]\n\ndata: {"]):
        _, done = carry([*begun, *end], ends=False)
        assert done.complete
    _, clean = carry(begun)
    assert clean.complete
    for broken in (b"data: {", b"data: <html>\n\n"):
        _, garbled = carry([*begun, broken])
        assert not garbled.complete
        assert garbled.failure is not None


@pytest.mark.parametrize(
    "silent",
    [
        chunk({"role": "assistant", "content": "", "refusal": None, "tool_calls": []}),
        chunk({"content": ""}, "stop"),
        chunk({"padding": "abc"}),
        chunk({}, ""),
        chunk(usage={"total_tokens": 1}),
        b'data: {"choices": [{"index": 0, "delta": null}]}\n\n',
    ],
)
def test_events_that_say_nothing_may_follow_a_finish_reason(silent: bytes) -> None:
    _, stream = carry([HELLO, STOP, silent], ends=False)
    assert stream.complete


def test_one_choice_may_go_on_when_another_has_ended() -> None:
    def of(index: int, text: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    pieces = [of(0, "x", "stop"), of(1, "x"), of(1, "y", "stop")]
    _, stream = carry(pieces, 2, ends=False)
    assert stream.complete
    stream.feed(of(0, "z"))
    assert not stream.complete
    stream.feed(DONE)
    assert stream.complete


def test_the_streams_own_end_does_not_end_a_choice() -> None:
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "y"}}]}\n\n'
    _, stream = carry([chunk({"content": "x"}, "stop"), other], 2)
    assert not stream.complete
    stream.feed(DONE)
    assert not stream.complete


def test_fewer_choices_than_asked_for_are_whole_where_the_stream_itself_says_so() -> None:
    """Many providers know of one choice only, and a cut looks the same."""
    _, stream = carry([HELLO, STOP], 2)
    assert not stream.complete
    _, stream = carry([HELLO, STOP, DONE], 2)
    assert stream.complete


# Characters cut in two

SMILE = "\\ud83d\\ude00"


def of_text(text: str) -> bytes:
    return b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % text.encode()


_NAMED_NULL = msgspec.structs.replace(LABEL, model="null", metadata=msgspec.Raw(b"{}"))
_FRAMES = [
    (b'{"choices": ', b', "id": "a", "created": 7}'),  # as of HELLO
    (b'{"id":"a","choices":', b"}"),
    (b'{"id":"a","choices":', b',"usage":null}'),
    (b'{"id":"a","model":"x", "choices" : ', b' ,"obfuscation":"x"}'),
    (b'{"choices":', b',"provider":"y","x":{"choices":[]},"error":null}'),
    ('{"x":"ц","choices":'.encode(), b',"x":[{"delta":{}}]}'),
    (b'{"usage":{"prompt_tokens":1},"choices":', b"}"),
    (b'{"error":"no","choices":', b"}"),
    _NESTED := (b'{"x":{"choices":[]},"choices":', b"}"),
    _MODEL := (b'{"model":"x","choices":', b"}"),
    _NULLS := (b'{"usage":null,"choices":', b"}"),
]
_USUAL = b'[{"index":0,"delta":{"content":"b"}}]'
_VALUES = [
    b'[{"index":0,"delta":{"content":"b"},"finish_reason":null,"logprobs":null,"y":"\xd1\x86"}]',
    '[{"delta":{"content":"ж\\n\\"]}","role":"assistant"}}]'.encode(),
    b'[{"delta":{"content":"","tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]}}]',
    b'[{"delta":{"content":"c","annotations":[1]}}]',
    b'[{"delta":{"content":"d"}},{"index":1,"delta":{"content":"e"}}]',
    _END := b'[{"delta":{"content":"f"},"finish_reason":"stop"}]',
    b'[{"delta":{"content":"g"},"finish_reason":"error"}]',
    _NO_TEXT := b'[{"delta":{"content":"h"},"x":"\xff"}]',
    b'[{"delta":{"content":"\\ud83d"}}]',
    b'[],"usage":{"prompt_tokens":3},"choices":[{"delta":{"content":"i"}}]',
    b'[],"error":{"message":"no"},"choices":[]',
    b'[{"delta":{"content":"j"}}',
    b'[{"delta":{"content":1}}]',
    b"[]", b"null", b"{}", b"", _LINES := b"[\ndata: ]",
]  # fmt: skip
_frame = st.sampled_from(_FRAMES)
_alike = st.tuples(_frame, _frame, _frame).flatmap(
    lambda some: st.lists(
        st.tuples(
            st.sampled_from(some), st.sampled_from(_VALUES) | st.just(_USUAL), st.integers(1, 3)
        ),
        max_size=8,
    )
)


@given(_alike, st.booleans(), st.booleans())
@settings(max_examples=300)
@example([(_FRAMES[0], _USUAL, 1)], True, True)
@example([(_FRAMES[1], _USUAL, 2), (_FRAMES[1], _END, 1), (_FRAMES[1], _USUAL, 1)], True, False)
@example([(_FRAMES[1], _USUAL, 1), (_FRAMES[1], _NO_TEXT, 1)], True, False)
@example([(_FRAMES[1], _USUAL, 1), (_FRAMES[1], _LINES, 1)], True, False)
@example([(_NESTED, b"[]", 1), ((_NESTED[0][:16], b'},"choices":[]}'), _USUAL, 1)], True, False)
@example([(_NULLS, b"null", 1), ((_NULLS[0][:9], b',"choices":null}'), _USUAL, 1)], False, False)
@example([(_MODEL, b"null", 1), (_MODEL, _USUAL, 1)], True, True)
def test_an_event_fares_the_same_whether_those_before_it_were_like_it_or_not(
    drawn: list[tuple[tuple[bytes, bytes], bytes, int]], wants_usage: bool, labelled: bool
) -> None:
    label = _NAMED_NULL if labelled else LABEL
    stream = ChatStream(label, wants_usage=wants_usage)
    alone = ChatStream(label, wants_usage=wants_usage)
    assert stream.feed(HELLO) == alone.feed(HELLO)
    for number, ((head, tail), value, times) in enumerate(drawn):
        data = b"data: " + head + value + tail + b"\n\n"
        # Behind a field of its own each time, nothing is like the event before.
        names = [b'{"n%d":0,' % (10 * number + i) for i in range(times)]
        unlike = [data.replace(b"data: {", b"data: " + name, 1) for name in names]
        out = stream.feed(data * times)
        expected = b"".join(alone.feed(one) for one in unlike)
        assert out == re.sub(rb'"n\d+":0,', b"", expected)
        assert (stream.failure is None) == (alone.failure is None)
        assert (stream.complete, stream.usage) == (alone.complete, alone.usage)
        assert stream.produced == alone.produced
        assert stream.said() == alone.said()


def test_a_character_cut_in_two_passes_as_it_is() -> None:
    """Callers who put UTF-16 together, as JavaScript does, get it whole."""
    texts = ["a", SMILE[:6], SMILE[6:], "\\\\ud83d", SMILE + "\\uD83D", "\\uDE00é\\n", "b"]
    out, stream = carry([*map(of_text, texts), STOP])
    assert stream.complete
    assert stream.failure is None
    passed = [e["choices"][0]["delta"].get("content", "") for e in events(out)]
    assert passed == [json.loads(f'"{text}"') for text in texts] + [""]
    whole = "".join(passed).encode("utf-16", "surrogatepass").decode("utf-16")
    assert whole == "a😀\\ud83d😀😀é\nb"
    for text in texts:
        assert b'"content": "%b"' % text.encode() in out


def test_a_half_character_may_be_the_first_and_stand_anywhere() -> None:
    first = b'data: {"x\\ude00": "\\ud83d", "choices": [{"delta": {"\\ud83d": "y"}}]}\n\n'
    out, stream = carry([chunk({"role": "assistant"}), first, HELLO, STOP])
    assert stream.failure is None
    assert events(out)[1]["x\ude00"] == "\ud83d"
    assert events(out)[1]["choices"][0]["delta"] == {"\ud83d": "y"}


# What fails

BROKEN = [
    b"data: {garbled\n\n",
    b"data: [1, 2]\n\n",
    b'data: "text"\n\n',
    b"data: null\n\n",
    b"data: <html>\n\n",
    b'data: {"choices": 5}\n\n',
    b'data: {"choices": [5]}\n\n',
    b'data: {"choices": [{"delta": "text"}]}\n\n',
    b'data: {"choices": [{"index": "0", "delta": {}}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
    b'data: {"choices": [{"delta": {"content": "\\ud80"}}]}\n\n',
    b'data: {"choices": [], \\ud83d: 1}\n\n',
    b'data: {"choices": [], "x": NaN}\n\n',
    b'data: {"choices": [], "x": ' + b"[" * 100_000 + b"\n\n",
    b'data: {"error": {"message": "Out of memory.", "code": 500}}\n\n',
    b'data: {"error": "Out of memory."}\n\n',
    b'data: {"choices": [], "error": {"code": 502}}\n\n',
    b'event: error\ndata: {"message": "Out of memory."}\n\n',
    b'data: {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}\n\n',
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda data: repr(data[:40]))
def test_a_broken_event_is_a_failure_behind_what_came(broken: bytes) -> None:
    whole, _ = carry([HELLO])
    for pieces in ([HELLO + broken + STOP], [HELLO, broken, STOP], [HELLO + broken, STOP]):
        out, stream = carry(pieces)
        assert out == whole
        assert stream.failure is not None
        assert not stream.complete


@given(any_sample, st.data())
def test_a_sample_with_one_event_broken_never_completes(
    sample: Sample, data: st.DataObject
) -> None:
    payloads = [
        p for p in sample.payloads if sample.data.find(p) + len(p) <= sample.last_payload_end
    ]
    where = data.draw(st.integers(0, len(payloads) - 1))
    broken = payloads[where]
    cut = data.draw(st.integers(1, len(broken) - 1))
    payloads[where] = broken[:cut]
    text = b"".join(b"data: %b\n\n" % payload for payload in payloads) + b"data: [DONE]\n\n"
    _, stream = carry(data.draw(pieces_of(text)), sample.choices)
    assert stream.failure is not None
    assert not stream.complete


@given(st.binary())
def test_any_bytes_at_all_are_an_answer_or_a_failure_and_never_an_exception(data: bytes) -> None:
    _, stream = carry([data])
    assert not stream.complete


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
odd_events = st.fixed_dictionaries(
    {},
    optional={
        "choices": json_values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": json_values,
                    "delta": json_values,
                    "finish_reason": json_values,
                },
            ),
            max_size=2,
        ),
        "error": json_values,
        "id": json_values,
        "created": json_values,
        "model": json_values,
        "provider": json_values,
        "object": json_values,
    },
)


@given(st.lists(odd_events, max_size=5))
def test_any_json_at_all_gives_events_or_a_failure(odd: list[Any]) -> None:
    text = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in odd)
    out, stream = carry([text])
    found = events(out)
    assert len({json.dumps([e["id"], e["created"]]) for e in found}) <= 1
    assert all((e["model"], e["provider"]) == ("catalog-name", "Shop") for e in found)
    assert stream.failure is None or len(found) < len(odd)


def test_a_choice_that_was_seen_must_have_ended_too() -> None:
    def said(index: int | None, finish: str | None) -> bytes:
        choice = {"index": index, "delta": {"content": "x"}, "finish_reason": finish}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    stream = ChatStream(LABEL)
    stream.feed(said(None, None) + said(1, None) + said(0, "stop"))
    assert not stream.complete
    stream.feed(said(1, "stop"))
    assert stream.complete


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "x", "n": 1e400}}\n\n',
        b'data: {"choices":\ndata: ' + b"[" * 100_000 + b"\n\n",
        b'data: {"error": ' + b"[" * 500 + b"]" * 500 + b"}\n\n",
    ],
)
def test_odd_events_are_failures_and_no_accidents(event: bytes) -> None:
    stream = ChatStream(LABEL)
    assert stream.feed(event) == b""
    assert stream.failure is not None
