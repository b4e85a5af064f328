"""Every error of ours, in one tree. A class exists only where somebody branches on it.

    ManywaysError
    ├── Refusal             the caller is told: a code of the error table, in plain words
    │   └── LimitReached    (access) a limit refuses, and says how it stands
    ├── ConfigError         the configuration is wrong: where, why, and the cure
    │   ├── ConfigProblems  (config) everything that is wrong with it, at once
    │   └── Mistake         (operations) an operator asks for what cannot be: `field` says where
    ├── CannotListen        (app) the address is taken, or not ours
    ├── WorkerFailed        (cli) one of several processes did not start
    ├── NoList              (cli) there is no list of models to be had
    ├── Abandoned           (cli) nobody carries out a verification any more
    ├── Postponed           (verification) nothing could be found out this time
    ├── BadAnswer           (verification) an answer is not what such an answer looks like
    ├── OutputFailed        (cli) what was to be shown could not be written
    ├── BadModelList        (catalog) a provider's list of models cannot be read
    ├── BadQuestion         (operations) a report cannot be made as asked: `field` says where
    ├── StoreError          the database cannot do what was asked
    │   ├── Away            (store) Redis does not answer
    │   ├── RowRefused      (store) one row of several cannot be kept
    │   ├── GivenUp         (store) a report takes longer than anybody waits
    │   └── Conflict        (store) another transaction came between
    ├── CallerLeft          nobody is there to be answered any more
    ├── AttemptFailed       one provider did not answer; another might
    └── TransportError      bytes could not be exchanged with a provider
        ├── ConnectFailed   name not found, refused, unreachable
        │   └── OutOfSockets    we have no descriptor or port left: it is about us
        ├── TlsFailed       the peer's certificate or handshake is not acceptable
        ├── TimedOut        a phase took too long: `phase` says which
        ├── Reset           the connection ended before the answer's headers were complete
        ├── Cut             the connection ended inside the answer's body
        ├── Garbled         what came back is not HTTP
        └── TooLarge        the answer is larger than we are willing to hold

Foreign failures become ours at one seam (`upstream`); ours become HTTP in one table
(`edge.problems`).
"""

from typing import Any, Literal

Phase = Literal["pool", "dns", "connect", "tls", "write", "headers", "body", "whole"]


class ManywaysError(Exception):
    """Anything we raise on purpose."""


class Refusal(ManywaysError):
    """The caller gets an error: `code` names a row of the error table.

    `param` names the request's field (`messages[2].role`). `status` overrides the table's
    where a provider's own status is passed on, and `provider_code` its code. `retry_after` is
    in whole seconds. `details` is sent as it is, in the object format only.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        provider_code: str | None = None,
        retry_after: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status = status
        self.provider_code = provider_code
        self.retry_after = retry_after
        self.details = details

    def __repr__(self) -> str:
        param = f" param={self.param}" if self.param else ""
        return f"<Refusal {self.code}{param}: {self.message}>"


class ConfigError(ManywaysError):
    """The configuration cannot be used. `str()` is the whole text an operator needs."""


class StoreError(ManywaysError):
    """The database is missing, locked, damaged or newer than this program."""


class CallerLeft(ManywaysError):
    """The caller closed the connection, or reads so slowly that it is given up."""


class AttemptFailed(ManywaysError):
    """One attempt at one provider failed through no fault of the caller.

    `code` is one of the outcome classes of `upstream.failures`; `status` is the provider's
    HTTP status, where it sent one; `retry_after` is in seconds, where it said so. `words` are
    the provider's own where `message`, which callers see, keeps them back.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        words: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.words = words

    def __repr__(self) -> str:
        return f"<AttemptFailed {self.code} status={self.status}: {self.message}>"


class TransportError(ManywaysError):
    """Bytes could not be exchanged with a provider."""


class ConnectFailed(TransportError):
    """The address has no name, refuses, or cannot be reached. Nothing was sent."""


class OutOfSockets(ConnectFailed):
    """This process, or its machine, has no file descriptor or local port left. `str()` is which
    of them, and the cure: no address."""


class TlsFailed(TransportError):
    """The peer's certificate or handshake is not acceptable. Nothing was sent."""


class TimedOut(TransportError):
    """A phase took longer than its limit."""

    def __init__(self, phase: Phase, seconds: float) -> None:
        super().__init__(f"{phase} took longer than {seconds:g} s")
        self.phase = phase
        self.seconds = seconds

    def __reduce__(self) -> tuple[type["TimedOut"], tuple[Phase, float]]:
        return TimedOut, (self.phase, self.seconds)  # so that it can be copied

    @property
    def connecting(self) -> bool:
        """Whether there was no connection yet: nothing was sent."""
        return self.phase in {"pool", "dns", "connect", "tls"}


class Reset(TransportError):
    """The connection ended before the answer's headers were complete."""


class Cut(TransportError):
    """The connection ended inside the answer's body: what came is not the whole."""


class Garbled(TransportError):
    """What came back is not HTTP, or its framing is broken."""


class TooLarge(TransportError):
    """The answer is larger than the limit we were given."""
