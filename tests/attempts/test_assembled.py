"""A whole answer made of a stream: at its end, and never without bound."""

import json

import pytest

from manyways.attempts import assembled
from manyways.attempts.assembled import AssembledReply
from manyways.attempts.pursuit import _is_about_streams
from manyways.errors import AttemptFailed, Refusal


class Asker:
    def __init__(self) -> None:
        self.answers: list[bytes] = []

    async def answer(self, body: bytes) -> None:
        self.answers.append(body)


def event(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({"id": "x", "choices": [choice]}).encode()


async def test_the_answer_comes_whole_and_only_at_the_end() -> None:
    asker = Asker()
    reply = AssembledReply(asker)
    await reply.start()
    await reply.write(event("Neither rain"))
    await reply.write(event(" nor snow", "stop"))
    assert asker.answers == []
    await reply.end(b"data: [DONE]\n\n")
    (body,) = asker.answers
    assert json.loads(body)["choices"][0]["message"]["content"] == "Neither rain nor snow"


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembled, "ANSWER_LIMIT", 1000)
    reply = AssembledReply(Asker())
    await reply.start()
    await reply.write(event("and so on" * 50))
    with pytest.raises(AttemptFailed, match="over 1,000 bytes"):
        await reply.write(event("and so on" * 50))


@pytest.mark.parametrize(
    ("words", "param", "ours"),
    [
        ("Unknown field: stream_options", None, True),
        ("not supported", "stream", True),
        ("not supported", "stream_options.include_usage", True),
        ("The upstream dislikes your tools", "tools[0]", False),
        ("Keep the image stream small", None, False),
    ],
)
def test_only_what_we_have_asked_for_ourselves_is_our_fault(
    words: str, param: str | None, ours: bool
) -> None:
    assert _is_about_streams(Refusal("provider_refused", words, param=param)) is ours
