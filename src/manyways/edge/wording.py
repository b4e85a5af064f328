"""Outcome classes in an operator's words."""

from typing import Final, NamedTuple

MEANINGS: Final = {
    "connect": "cannot be reached",
    "tls": "its certificate is not accepted",
    "reset": "closed the connection before it answered",
    "timeout": "took too long",
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

NO_FAILURES: Final = frozenset({"refused", "cancelled"})
"""Outcomes that say nothing against a provider: the caller's fault, or the caller's leaving."""


class Reason(NamedTuple):
    """Why something rests: the outcome class, and the provider's own words where there are any."""

    code: str
    words: str = ""

    @classmethod
    def of(cls, why: str) -> "Reason":
        """A breaker's `why`: `"timeout"`, `"provider_error: overloaded"`."""
        code, _, words = why.partition(":")
        return cls(code, words.strip())

    def __str__(self) -> str:
        meaning = MEANINGS.get(self.code)
        if meaning is None or self.words.startswith(meaning):
            return self.words or self.code
        return f"{meaning}: {self.words}" if self.words else meaning
