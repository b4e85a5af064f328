"""What verification finds out about a model: plain values, as they are kept.

Moments are Unix seconds, costs USD. Texts of prompts and answers are cut at `SHOWN` letters.
"""

from typing import Final, Literal

from msgspec import Struct

from manyways.types import NO_USAGE, Usage

Verdict = Literal["passed", "failed", "unsure", "skipped"]
"""`unsure`: it could not be found out this time, and says nothing. `skipped`: not asked."""

SHOWN: Final = 2000


class Check(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a model was asked, and what came of it.

    `reason` says why it did not pass, in words that follow the check's name. `points`, from 0
    to 1, are those of a task of the quality set. `ms` is the time of the whole answer,
    `first_token_ms` that of a stream's first token. `reported` is the model that the provider
    says has answered.
    """

    name: str
    verdict: Verdict
    reason: str = ""
    prompt: str = ""
    answer: str = ""
    at: float = 0.0
    ms: int | None = None
    first_token_ms: int | None = None
    tokens_per_second: float | None = None
    points: float | None = None
    reported: str = ""
    requests: int = 0
    usage: Usage = NO_USAGE
    cost: float = 0.0


class Quality(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A score from 0 to 10, and the interval in which it surely enough lies (95 %).

    `tasks` are the points of each task by its id, of the set of this `version`.
    """

    score: float
    low: float
    high: float
    version: str
    at: float
    tasks: dict[str, float] = {}


class Sample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model answered one fixed question. Counts of tokens are the provider's."""

    answer: str
    ms: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Fingerprint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model answers a few fixed questions: by this it is known again. Samples are by the
    task's id; `version` is that of the set of tasks."""

    at: float
    version: str
    samples: dict[str, Sample]
    tokens_per_second: float | None = None
    reported: str = ""


class Verified(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the latest verification found out about one model.

    `verdict` is whether it answers at all, `reason` why not. `proven` capabilities were shown;
    `withdrawn` ones were claimed and are not there, each with the reason. `quality` and
    `fingerprint` are the latest there are, and may be older. `flags` name what is suspicious
    (`drift`, `impostor`), each with the reason; `drift_since` is when it was first seen.
    `failures` counts verifications in a row that failed, `postponed` those in which it was not
    asked, and need not wait for another day.
    """

    provider: str
    model: str
    at: float
    verdict: Verdict
    reason: str = ""
    latency_ms: int | None = None
    first_token_ms: int | None = None
    tokens_per_second: float | None = None
    proven: tuple[str, ...] = ()
    withdrawn: dict[str, str] = {}
    quality: Quality | None = None
    fingerprint: Fingerprint | None = None
    flags: dict[str, str] = {}
    drift_since: float | None = None
    failures: int = 0
    postponed: int = 0
    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


class Live(Struct, frozen=True, kw_only=True):
    """How a model has done lately with callers. Times are milliseconds: medians, and what 95 of
    100 stayed below, of the last hour. `None` where too little is known."""

    attempts: int = 0
    success_rate: float | None = None
    first_token_ms: int | None = None
    first_token_p95_ms: int | None = None
    latency_ms: int | None = None
    latency_p95_ms: int | None = None
    tokens_per_second: float | None = None
    answered_at: float | None = None
    """When it last answered, to five minutes."""
    uptime_24h: float | None = None
    """The share of the last 24 hours in which it was to be had, 0 to 1; of a shorter time, if it
    is known for a shorter one."""
