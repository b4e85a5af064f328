"""Carries out what the plan of a request commands, and brings the answer to the caller.

A `Pursuit` follows one plan: attempts one after the other or two in a race, waits in between,
and continuations of answers that broke.
"""

from manyways.attempts.pursuit import CallersReply, Means, Pursuit, Unanswered
from manyways.attempts.reply import Reply

__all__ = ["CallersReply", "Means", "Pursuit", "Reply", "Unanswered"]
