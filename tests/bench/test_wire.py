"""What the benchmark's load and upstream say to each other."""

import pytest

from bench import wire


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [wire.MODEL, "somebody::elses::name-for-it"])
@pytest.mark.parametrize("pace", list(wire.PACES))
def test_every_question_is_one_kilobyte(stream: bool, model: str, pace: str) -> None:
    assert len(wire.question(stream=stream, pace=pace, model=model)) == wire.KILOBYTE


def test_the_whole_answer_is_one_kilobyte_and_says_its_text() -> None:
    assert len(wire.WHOLE_BODY) == wire.KILOBYTE
    assert wire.whole_text(wire.WHOLE_BODY) == wire.WHOLE_TEXT


def _stream(*, words: tuple[bytes, ...] = wire.WORD_EVENTS, done: bool = True) -> bytes:
    end = wire.FINISH_EVENT + (wire.DONE_EVENT if done else b"")
    return wire.ROLE_EVENT + b"".join(words) + end


def test_a_complete_stream_says_every_word() -> None:
    assert wire.streamed_text(_stream()) == wire.STREAMED_TEXT
    assert len(set(wire.WORDS)) == wire.CHUNKS


def test_a_lost_word_is_noticed() -> None:
    assert wire.streamed_text(_stream(words=wire.WORD_EVENTS[1:])) != wire.STREAMED_TEXT


def test_a_stream_without_its_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no end"):
        wire.streamed_text(_stream(done=False))


def test_an_error_is_no_whole_answer() -> None:
    with pytest.raises(ValueError, match="no whole answer"):
        wire.whole_text(b'{"error": {"message": "no"}}')
