"""Foreign failures become ours here, and nowhere else.

| what came back                                          | becomes                            |
|---------------------------------------------------------|------------------------------------|
| 400, 404, 413, 422 that the caller caused               | `Refusal`, the provider's words    |
| prompt too long; refused by a filter (403 too)          | `Refusal`, our code                |
| 401, 402, a 403 with words; credentials, credit or      | `AttemptFailed("credentials")`     |
| region in a 400, no credit in a 429                     |                                    |
| 404, 410, 400 or 403 that names the model               | `AttemptFailed("model_gone")`      |
| 429; a rate limit in a 403 or a 413                     | `AttemptFailed("rate_limited")`    |
| 400, 403, 404, 422 without words of the API's own       | `AttemptFailed("provider_error")`  |
| 408, 409, 425, 5xx and whatever else                    | `AttemptFailed("provider_error")`  |
| refused, DNS, TLS, reset, cut, not HTTP                 | `"connect"`, `"reset"`, `"cut"`, … |
| no connection of ours was free in time                  | `AttemptFailed("crowded")`         |
| we have no file descriptor or local port left           | `AttemptFailed("out_of_sockets")`  |
| another phase took too long                             | `AttemptFailed("timeout")`         |

What the caller caused comes with an error object: a page of HTML, an empty body or a framework's
`{"detail": "Not Found"}` is a wrong address or a proxy, and the next candidate may do better.

Providers repeat what they were sent. Whatever rests one of our keys or takes a model out of use
must not be the caller's to say: for that, only a complaint's `own` words count.
"""

import re
from collections.abc import Mapping

from manyways.errors import (
    AttemptFailed,
    ConnectFailed,
    Cut,
    Garbled,
    OutOfSockets,
    Refusal,
    Reset,
    TimedOut,
    TlsFailed,
    TooLarge,
    TransportError,
)
from manyways.upstream.complaint import Complaint
from manyways.upstream.resets import retry_after

_CALLERS_FAULT = frozenset({400, 404, 413, 422})
_FILTERED = frozenset({400, 403, 422})
_NAME_MODELS = frozenset({400, 403, 404, 422})


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_MODEL = _words(
    # A code, or words of a vendor's own.
    r"model_?not_?(found|available|supported)|deployment_?not_?found|model_decommissioned",
    r"(unknown|invalid|unavailable|unsupported)_model\b|OperationNotSupported",
    r"\b(unknown|invalid|no such|unsupported) model\b(?! (input|output|param|response))",
    r"not a valid model|not a chat model|no endpoints found for|unable to access model",
    r"not_found_error model\b|not (have|allowed to) access (to )?(this |the )?model",
    # "The model `x` does not exist", "models/x is no longer available", "Model not found: x".
    r"\bmodels?([\s/:=]{1,3}['`]{0,3}[\w./:@+-]{0,100}['`]{0,3})?[\s,:]{0,3}"
    r"((is|was|has|have|been|does|do|could|currently)\s){0,4}"
    r"(not (be )?(found|exist|available|supported\b(?! (with|when|if|for)))|doesn't exist"
    r"|decommissioned|deprecated|retired|no longer|only supported in)",
)
_CREDENTIALS = _words(
    r"invalid_api_key|api_key_invalid|account_deactivated",
    r"(invalid|incorrect|missing|wrong|expired)\W+(\w+\W+)?api.?key",
    r"api.?key\W+(\w+\W+)?(invalid|incorrect|missing|expired|not valid|not found)",
)
_NO_CREDIT = _words(
    r"insufficient[_ ](credit|balance|quota|fund)|exceeded_current_quota_error|arrearage",
    r"billing_hard_limit_reached|billing_not_active|credit balance is too low|out of credits",
    r"all available credits|spending limit|daily free allocation|余额不足",
)
# No other key helps, either: but what rests is the way in, for all of its models at once.
_REGION = _words(
    r"unsupported_country|(country|region|territory|location)[\w ,]{0,30} not supported",
)
_RATE = _words(r"rate.?limit|too many requests|(tokens|requests) per (min|hour|day)")
_TOO_LONG = _words(
    r"context_length_exceeded|exceed_context_size|context (length|window|size|limit)",
    r"(maximum|max) (prompt|model|input|sequence) length|range of input length",
    r"(prompt|input) exceeds? (the )?max(imum)? length|model token limit",
    r"(input|prompt) token(s| count)\b[^.]{0,30} exceed|too many (input |prompt )?tokens",
    r"number of (input )?tokens allowed|inputs\W{1,3}(tokens \+|must have less)",
    r"(prompt|conversation)( \w+){0,2} too (long|large)",
    r"(input|messages?) (is|are) too (long|large)",
    r"reduce the length of (the|your) (messages|prompt|input)",
    r"messages\[[^']{0,60}': string too long",
)
_FILTER = _words(
    r"content_?filter|content_policy|content management policy|responsibleai|content_moderation",
    r"moderation_blocked|requires moderation|flagged as potentially|flagged_input|was flagged",
    r"content exists risk|data_inspection_failed|content violates|prohibited_content",
    r"blocked by content|considered high risk",
)


def from_status(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> Refusal | AttemptFailed:
    """What an answer other than 2xx means. `now` is Unix seconds, for dates in headers.

    `rate_limited` with status 413 concerns this request alone: it is larger than the limit, and
    a smaller one may well be answered.
    """
    complaint = Complaint.read(body)
    message = complaint.message or f"answered HTTP {status} without saying why"
    if status in _FILTERED and _FILTER.search(complaint.text):
        return Refusal("content_filter", message, param=complaint.param)
    code = _blamed(status, complaint)
    if code is None and status in _CALLERS_FAULT:
        if _TOO_LONG.search(complaint.text):
            return Refusal("context_length_exceeded", message, param=complaint.param)
        if status == 413 or (complaint.proper if status == 404 else complaint.told):
            return Refusal(
                "provider_refused",
                message,
                param=complaint.param,
                status=status,
                provider_code=complaint.code or None,
            )
    words = ""
    if code == "credentials":
        words, message = message, _no_access(complaint.own)  # their words may quote our key
    limited = status == 429 or code == "rate_limited"
    heard = body if limited or status == 503 else b""  # others may repeat what they were sent
    return AttemptFailed(
        code or "provider_error",
        message,
        status=status,
        retry_after=retry_after(headers, heard, now, limited=limited),
        words=words,
    )


def _blamed(status: int, complaint: Complaint) -> str | None:
    """The outcome class where our credential, the model or a limit is to blame."""
    own = complaint.own
    if status in (401, 402):
        return "credentials"
    if status == 410 or (
        status in _NAME_MODELS and (complaint.param == "model" or _MODEL.search(own))
    ):
        return "model_gone"
    if status == 429:
        return "credentials" if _NO_CREDIT.search(own) else "rate_limited"
    if status in (403, 413) and _RATE.search(own):
        return "rate_limited"
    # A page without words of the API's own is a firewall's, which may dislike this one prompt.
    if (status == 403 and complaint.told) or (
        status == 400 and any(kind.search(own) for kind in (_CREDENTIALS, _NO_CREDIT, _REGION))
    ):
        return "credentials"
    return None


def _no_access(own: str) -> str:
    if _REGION.search(own):
        return "does not serve the region that the gateway is in"
    return "does not accept the gateway's credentials or credit"


_TRANSPORT_CODES: dict[type[TransportError], str] = {
    ConnectFailed: "connect",
    TlsFailed: "tls",
    TimedOut: "timeout",
    Reset: "reset",
    Cut: "cut",
    Garbled: "garbled",
    TooLarge: "too_large",
}


_OUR_CERTIFICATE = _words(
    r"alert[_ ](certificate[_ ]\w+|bad[_ ]certificate|unsupported[_ ]certificate|unknown[_ ]ca\b"
    r"|access[_ ]denied)"
)


def refuses_our_certificate(error: TransportError) -> bool:
    """Whether the provider wants a client certificate, or one of another authority. In TLS 1.3
    it says so behind the handshake: what comes is a connection that is reset."""
    return isinstance(error, TlsFailed | Reset) and bool(_OUR_CERTIFICATE.search(str(error)))


def from_transport(error: TransportError) -> AttemptFailed:
    """What a failure to exchange bytes means. Addresses are for the log, not for callers."""
    if refuses_our_certificate(error):
        return AttemptFailed("tls", "wants a certificate of the gateway that it accepts")
    if isinstance(error, OutOfSockets):
        return AttemptFailed("out_of_sockets", f"was not asked: {error}")
    code = _TRANSPORT_CODES.get(type(error), "connect")
    if isinstance(error, TimedOut) and error.phase == "pool":
        code = "crowded"
    return AttemptFailed(code, _FOR_CALLERS.get(code, str(error)))


_FOR_CALLERS = {
    "connect": "cannot be reached",
    "crowded": "had no connection free in time (upstream.pool_size bounds them)",
    "tls": "cannot be reached securely: a certificate is not accepted",
    "reset": "closed the connection before it answered",
    "cut": "broke its answer off",
    "garbled": "does not speak HTTP as it should",
}
