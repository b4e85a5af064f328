"""One attempt at a whole answer: it comes at its end, or not at all."""

from msgspec import Raw

from manyways.attempts.streamed import Ask
from manyways.dialects import openai_chat
from manyways.errors import AttemptFailed, TransportError
from manyways.upstream import failures
from manyways.upstream.transport import Limits
from manyways.watch import TimeLimit

ANSWER_LIMIT = 256 * 1024 * 1024
"""The longest whole answer that is held in memory, in bytes: pictures come in base64."""


async def whole(
    ask: Ask, label: openai_chat.AnswerLabel, *, connect_timeout: float, seconds: float
) -> tuple[bytes, Raw | None]:
    """Ask, wait `seconds` at most for the whole answer, and put our label on it. With it, the
    `usage` that it tells.

    Raises `AttemptFailed`, or `Refusal` where the provider says the request is wrong.
    """
    limits = Limits(connect=min(connect_timeout, seconds), headers=seconds, idle=seconds)
    try:
        with TimeLimit(seconds, "the answer"):
            async with await ask(limits) as response:
                answer = await response.body(ANSWER_LIMIT)
    except TransportError as error:
        raise failures.from_transport(error) from error
    except TimeoutError as error:
        raise AttemptFailed("timeout", str(error)) from error
    return openai_chat.edit_answer(answer, label)
