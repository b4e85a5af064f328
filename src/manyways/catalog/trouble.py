"""Why a provider could not be asked: one line for operators, as exact as the error can tell."""

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from manyways.errors import (
    AttemptFailed,
    ManywaysError,
    OutOfSockets,
    Refusal,
    TimedOut,
    TlsFailed,
    TransportError,
)

_LONGEST: Final = 300


class Trouble(Struct, frozen=True, kw_only=True):
    """What keeps a provider from telling its models, and since when (Unix seconds)."""

    reason: str
    since: float


def reason(error: Exception) -> str:
    """What happened, in words that follow `Capi does not tell its models: `.

    Told by what lies behind the error (its causes), where that tells more than it does.
    """
    found = _of_http(error) or _of_transport(error) or str(error) or type(error).__name__
    if not isinstance(error, ManywaysError):
        found = f"unexpected {type(error).__name__}: {error}"
    found = " ".join(found.split())
    return found if len(found) <= _LONGEST else f"{found[:_LONGEST]}…"


def of_system(error: BaseException) -> str | None:
    """What the operating system or TLS said, if that is what lies behind the error."""
    for cause in reversed([*_causes(error)]):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"the certificate is not trusted ({cause.verify_message})"
            case ssl.SSLError() if cause.reason:
                return cause.reason.lower().replace("_", " ")
            case socket.gaierror():
                return "its host name leads nowhere (DNS)"
            case OSError() if cause.errno:
                return os.strerror(cause.errno).lower()
    return None


def _of_http(error: Exception) -> str | None:
    match error:
        case AttemptFailed(status=int(status)) | Refusal(status=int(status)):
            said = str(error)
            return said if f"HTTP {status}" in said else f"HTTP {status}: {said}"
    return None


def _of_transport(error: Exception) -> str | None:
    for cause in _causes(error):
        match cause:
            case TimedOut(phase="pool"):
                return f"no connection was free within {cause.seconds:g} s (upstream.pool_size)"
            case TimedOut(connecting=True):
                return f"no connection within {cause.seconds:g} s"
            case TimedOut():
                return f"no answer within {cause.seconds:g} s"
            case TlsFailed():
                return f"no secure connection: {of_system(cause) or cause}"
            case TransportError():  # of what is lacking it knows the cure as well
                own = isinstance(cause, OutOfSockets)
                return (None if own else of_system(cause)) or str(cause)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # Clients of HTTP keep what the TLS library said beside the cause, or instead of it.
        inner = getattr(cause, "certificate_error", None)
        cause = cause.__cause__ or (inner if isinstance(inner, BaseException) else None)
