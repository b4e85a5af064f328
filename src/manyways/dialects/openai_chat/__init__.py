"""OpenAI's Chat Completions: the request, the whole answer, the streamed answer.

Source: OpenAI's API reference (`/chat/completions`). Where caller and provider both speak
it, bytes pass through and only named edits are made.
"""

from manyways.dialects.openai_chat.request import ChatRequest, ProviderChoice, decode_request
from manyways.dialects.openai_chat.resume import (
    Method,
    ResumedStream,
    extra_messages,
    methods,
)
from manyways.dialects.openai_chat.said import Said
from manyways.dialects.openai_chat.stream import ChatStream
from manyways.dialects.openai_chat.usage import answer_tokens, measured, prompt_tokens, told
from manyways.dialects.openai_chat.whole import AnswerLabel, edit_answer, no_stream

__all__ = [
    "AnswerLabel",
    "ChatRequest",
    "ChatStream",
    "Method",
    "ProviderChoice",
    "ResumedStream",
    "Said",
    "answer_tokens",
    "decode_request",
    "edit_answer",
    "extra_messages",
    "measured",
    "methods",
    "no_stream",
    "prompt_tokens",
    "told",
]
