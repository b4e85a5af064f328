"""Outcome classes in an operator's words."""

import re
from typing import Final, NamedTuple

MEANINGS: Final = {
    "connect": "cannot be reached",
    "tls": "cannot be reached securely: a certificate is not accepted",
    "reset": "closed the connection before it answered",
    "timeout": "took too long",
    "crowded": "had no connection free in time",
    "out_of_sockets": "was not asked: the gateway had no socket left",
    "cut": "broke its answer off",
    "garbled": "sent what cannot be read",
    "too_large": "sent more than the gateway holds",
    "credentials": "does not accept the gateway's credentials or credit",
    "model_gone": "says that it does not have the model",
    "rate_limited": "wants fewer requests",
    "provider_error": "answered with an error",
    "no_answer": "sent a 200 that is no answer",
    "error_inside": "failed while answering",
}
"""What each class of failure says of a provider: `Capi cannot be reached`."""

_STATUS: Final = re.compile(r"([1-5]\d\d)\b:?\s*(.*)", re.DOTALL)

NO_FAILURES: Final = frozenset({"refused", "cancelled"})
"""Outcomes that say nothing against a provider: the caller's fault, or the caller's leaving."""


class Reason(NamedTuple):
    """Why something rests: the outcome class, and the provider's own words where there are any."""

    code: str
    words: str = ""

    @classmethod
    def of(cls, why: str) -> "Reason":
        """A breaker's `why`: `"timeout"`, `"provider_error: 503 overloaded"`."""
        code, _, words = why.partition(":")
        return cls(code, words.strip())

    def __str__(self) -> str:
        """In one sentence, in which nothing is said twice."""
        meaning = MEANINGS.get(self.code)
        if meaning is None:
            return self.words or self.code
        found = _STATUS.fullmatch(self.words)
        status, said = found.groups() if found else ("", self.words)
        if status and (not said or said.startswith(meaning)):
            return f"{said or meaning} (HTTP {status})"
        if not said or said.startswith(meaning):
            return said or meaning
        return f"{meaning}: {self.words}"
