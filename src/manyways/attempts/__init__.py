"""Carries out attempts: asks a provider, and brings what it says to the caller.

`whole` returns an answer at its end; a `StreamedAttempt` hands events on as they arrive.
"""

from manyways.attempts.reply import Reply
from manyways.attempts.stream import StreamedAttempt
from manyways.attempts.whole import whole

__all__ = ["Reply", "StreamedAttempt", "whole"]
