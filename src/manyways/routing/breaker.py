"""A circuit breaker, and the news of it that gateways tell each other.

    closed ──a failure──▶ open (rests) ──its time is over──▶ half-open ──a probe succeeds──▶ closed
                            ▲                                    │
                            └────────── the probe fails ─────────┘

Nothing here knows a clock: `now` is handed in, in seconds of any monotonic clock.
"""

from typing import Final, Literal, Protocol

from msgspec import Struct

State = Literal["closed", "open", "half-open"]
Name = tuple[str, str | None, int | None]
"""What a breaker stands for: a provider, a model of it or all, a credential of it or any."""

LEASE: Final = 10.0
"""Seconds after which a probe that has told nothing is no reason to wait for it."""


class News(Struct, frozen=True, kw_only=True):
    """What one gateway tells the others about a breaker of its own: that it rests, and why; that
    one request probes (`probing`); or that it is back in use (`seconds` is `None`).

    `seconds` count from the moment it is heard. `caller` is whoever it failed for, where that was
    one alone. The rest is as in `Breaker`.
    """

    name: Name
    seconds: float | None = None
    probing: bool = False
    why: str = ""
    rests: int = 0
    took: float = 0.0
    late: bool = False
    caller: str = ""


class Probe(Protocol):
    """An attempt that looks whether somebody is back."""

    @property
    def began(self) -> float: ...


class Breaker:
    """One circuit breaker. `until` is when its rest ends, `since` when it last opened, `began`
    when it did so first, after it was well.

    Invariants: `probe` is set only while half-open; a closed breaker has no `why`, and is no
    `hearsay`.
    """

    __slots__ = (
        "accuser", "began", "doubted", "elsewhere", "failures", "hearsay", "late", "name", "probe",
        "rests", "since", "took", "until", "why",
    )  # fmt: skip

    def __init__(self, name: Name) -> None:
        self.name = name
        self.accuser = ""  # the one caller it failed for; empty where several were, or who knows
        self.began = 0.0
        self.failures = 0  # in a row
        self.rests = 0  # in a row: the next one is so much longer
        self.since = 0.0
        self.until = 0.0
        self.why = ""
        self.late = False  # it failed after the answer had begun
        self.took = 0.0  # seconds, the failure that opened it last
        self.probe: Probe | None = None  # the one attempt that may try
        self.hearsay = False  # another gateway has opened it, and nothing failed here
        self.elsewhere = 0.0  # until then another gateway probes
        self.doubted = 0.0  # until then others are not believed: here it is well

    def __repr__(self) -> str:
        if not self.why:
            return "<Breaker closed>"
        probing = " probing" if self.probe is not None else ""
        return f"<Breaker until={self.until:.1f} rests={self.rests}{probing} {self.why}>"

    def state(self, now: float) -> State:
        if not self.why:
            return "closed"
        return "half-open" if now >= self.until else "open"

    def admits(self, now: float, caller: str = "") -> bool:
        """Whether a request may pass: closed, or it is time for a probe and none is under way.
        Where it failed for one caller alone, the first other one probes without waiting."""
        if not self.why:
            return True
        if caller and self.accuser not in {"", caller}:
            return self._has_no_probe(now)
        return now >= self.until and self.is_free(now)

    def is_free(self, now: float) -> bool:
        """Whether no probe is under way, here or elsewhere, or only one that hangs."""
        return now >= self.elsewhere and self._has_no_probe(now)

    def _has_no_probe(self, now: float) -> bool:
        return self.probe is None or now - self.probe.began >= LEASE

    def open(
        self,
        now: float,
        seconds: float,
        why: str,
        *,
        late: bool,
        took: float = 0.0,
        hearsay: bool = False,
        caller: str = "",
    ) -> None:
        if not self.why:
            self.began = now
            self.accuser = caller
        elif caller != self.accuser:
            self.accuser = ""
        self.rests += 1
        self.since = now
        self.until = now + seconds
        self.why = why
        self.took = took
        self.late = late
        self.probe = None
        self.hearsay = hearsay
        self.elsewhere = 0.0

    def news(self, now: float) -> News:
        """That it rests, for others."""
        return News(
            name=self.name,
            seconds=self.until - now,
            why=self.why,
            rests=self.rests,
            took=self.took,
            late=self.late,
            caller=self.accuser,
        )

    def hear(self, news: News, seconds: float, now: float) -> None:
        """Another gateway says that it rests. Never shorter than what is known here."""
        rests = max(self.rests, news.rests)
        if not self.why or now + seconds > self.until:
            hearsay = self.hearsay or not self.why
            self.open(
                now,
                seconds,
                news.why,
                late=news.late,
                took=news.took,
                hearsay=hearsay,
                caller=news.caller,
            )
            self.failures = max(1, self.failures)
        elif news.caller != self.accuser:
            self.accuser = ""
        self.rests = rests
        self.elsewhere = 0.0

    def close(self) -> None:
        self.failures = self.rests = 0
        self.why = ""
        self.probe = None
        self.hearsay = False
        self.elsewhere = 0.0
