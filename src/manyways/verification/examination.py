"""One model, examined: which checks, in which order, and what follows from them.

    answers ─passed─▶ capabilities ─▶ anchors ─▶ the other tasks, where a score is due
        │                                │
        └─failed─▶ it is down            └─▶ fingerprint ─▶ drift? then a score is due

Each check is kept as soon as it is made. One that was made before, by a run that broke off, is
not made again.
"""

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from manyways.catalog.verified import SHOWN, Check, Fingerprint, Quality, Verdict, Verified
from manyways.errors import AttemptFailed, Refusal
from manyways.types import Model
from manyways.verification import quality
from manyways.verification.check import Finding, Step
from manyways.verification.checks import audio, embedding, image, speech, text, transcription
from manyways.verification.checks.words import quoted
from manyways.verification.fingerprint import drifted, fingerprint, is_doubtful
from manyways.verification.interview import BadAnswer, Interview
from manyways.verification.pacing import Postponed

UNCLAIMED: Final = ("streaming", "tools", "json_schema", "vision", "prefill")
"""Capabilities that are looked for where a model claims none; and of these, `ALWAYS` are looked
for in every model."""
ALWAYS: Final = ("streaming", "prefill")
DRIFT_KEPT: Final = 7 * 86400.0
"""Seconds behind which a model that has become another one is taken for what it is."""
DRIFT: Final = "drift"
_ON_THE_WAY: Final = frozenset(
    {"connect", "tls", "timeout", "reset", "cut", "garbled", "too_large"}
)
"""Failures that we put into words, as there was nobody to say anything."""
_TASK: Final = "task:"
_AGAIN: Final = "again:"
"""Beginnings of the names of tasks' checks: of the anchors, some are asked twice."""

NAMES: Final = (
    text.ANSWERS.name,
    *(step.name for step in text.CAPABILITIES.values()),
    *(step.name for step in (image.STEP, speech.STEP, transcription.STEP, embedding.STEP)),
)
"""All checks but the tasks of the quality set."""

Save = Callable[[Check], Awaitable[None]]
"""Keeps a check; returns once it is kept."""


class Brief(Struct, frozen=True, kw_only=True):
    """What is known of a model beforehand, and what is to be found out.

    `model` is as it is claimed to be, `before` what the verification before this one found.
    `made` are the checks that this run has made already, by name. Quality is scored where the
    last score is older than `score_every` seconds; with `scores` in any case, with
    `scores_nothing` in none, the anchors included. `briefly`: only whether it answers. `only`
    are the names of the only checks to be made, of tasks, too: nothing is scored then. `None`: all
    there are.
    """

    model: Model
    before: Verified | None = None
    made: Mapping[str, Check] = {}
    scores: bool = False
    scores_nothing: bool = False
    score_every: float = 0.0
    briefly: bool = False
    only: frozenset[str] | None = None


async def examine(
    brief: Brief, interview: Interview, save: Save, *, seed: str, now: Callable[[], float]
) -> Verified:
    """Examine one model. `seed` makes what is left to chance the same again for one run; `now`
    tells Unix seconds. Raises what `save` raises."""
    return await _Examination(brief, interview, save, seed, now).run()


class _Examination:
    def __init__(
        self,
        brief: Brief,
        interview: Interview,
        save: Save,
        seed: str,
        now: Callable[[], float],
    ) -> None:
        self._brief = brief
        self._interview = interview
        self._save = save
        self._seed = seed
        self._now = now
        self._checks: dict[str, Check] = {}
        self._soon = False  # what could not be asked can be asked soon

    async def run(self) -> Verified:
        model = self._brief.model
        first = _first_step(model)
        if first is None:
            return self._found("skipped", f"{model.category} models of this kind are not asked")
        alive = await self._make(first)
        if alive.verdict != "passed" and self._is_wanted(first.name):
            return self._not_alive(alive)
        if model.category != "text" or self._brief.briefly:
            return self._found("passed")
        claimed = model.capabilities or UNCLAIMED
        for name, step in text.CAPABILITIES.items():
            if name in claimed or name in ALWAYS or name in (self._brief.only or ()):
                await self._make(step)
        if self._brief.only is not None:
            await self._make_tasks()
        elif not self._brief.scores_nothing:
            return await self._judged()
        return self._found("passed")

    def _not_alive(self, alive: Check) -> Verified:
        before = self._brief.before
        found = self._found(alive.verdict, alive.reason)
        if alive.verdict == "failed" or not self._soon:
            return found
        return msgspec.structs.replace(found, postponed=1 + (before.postponed if before else 0))

    async def _judged(self) -> Verified:
        """Whether it is still the same model, and how good it is."""
        before = self._brief.before
        now = await self._fingerprint(_TASK)
        if now is None:  # then it cannot be told whether it has become another one
            scored = await self._scored(before) if self._is_due(None) else self._score(before)
            return msgspec.structs.replace(self._found("passed"), quality=scored)
        known = None if before is None else before.fingerprint
        drift = None
        if known is not None:
            again = await self._fingerprint(_AGAIN) if is_doubtful(known, now) else None
            drift = drifted(known, now, again)
        since = None if drift is None else (before and before.drift_since) or self._now()
        if since is not None and self._now() - since > DRIFT_KEPT:
            drift = since = None  # by now, it is what it is
        scored = await self._scored(before) if self._is_due(drift) else self._score(before)
        found = self._found("passed")
        flags = {name: why for name, why in found.flags.items() if name != DRIFT}
        return msgspec.structs.replace(
            found,
            fingerprint=now if drift is None else known,
            flags=flags if drift is None else {**flags, DRIFT: drift},
            drift_since=since,
            quality=scored,
        )

    async def _fingerprint(self, prefix: str) -> Fingerprint | None:
        """How it answers the anchors now; `None` where it could not be asked all of them: half a
        fingerprint proves nothing."""
        made = []
        for task in quality.ANCHORS:
            check = await self._make(_task_step(task, prefix))
            if check.verdict in ("unsure", "skipped"):
                return None
            made.append(msgspec.structs.replace(check, name=task.id))
        return fingerprint(made, quality.VERSION, self._now())

    def _is_due(self, drift: str | None) -> bool:
        """A score is due where there is none of this set of tasks, where it is old, and where the
        model seems to be another one."""
        brief = self._brief
        known = None if brief.before is None else brief.before.quality
        if brief.scores or known is None or known.version != quality.VERSION:
            return True
        newly = drift is not None and brief.before is not None and not brief.before.drift_since
        age = self._now() - known.at
        return newly or not 0 <= age < brief.score_every  # of the future: a clock was wrong

    async def _scored(self, before: Verified | None) -> Quality | None:
        await self._make_tasks(missing=len(quality.TASKS) - quality.FEWEST)
        points = {
            check.name.removeprefix(_TASK): check.points
            for check in self._checks.values()
            if check.points is not None
            and check.verdict in ("passed", "failed")
            and check.name.startswith(_TASK)
        }
        new = quality.score(points, quality.VERSION, self._now())
        return new if new is not None else self._score(before)

    async def _make_tasks(self, missing: int | None = None) -> None:
        """All of them; where more than so many are `missing`, no others."""
        unanswered = 0
        for task in quality.TASKS:
            check = await self._make(_task_step(task, _TASK))
            unanswered += _says_nothing(check)
            if missing is not None and unanswered > missing:
                return

    def _score(self, before: Verified | None) -> Quality | None:
        return None if before is None else before.quality

    async def _make(self, step: Step) -> Check:
        """One check, as often as it may be tried; what has been made is not made again."""
        known = self._checks.get(step.name) or self._brief.made.get(step.name)
        if known is None and not self._is_wanted(step.name):
            return Check(name=step.name, verdict="skipped", reason="it was not asked for")
        if known is None:
            # A string's hash differs between processes; `Random` takes the string itself.
            self._interview.chance = random.Random(f"{self._seed} {step.name}")  # noqa: S311
            known = await self._tried(step)
            await self._save(known)
        self._checks[step.name] = known
        return known

    def _is_wanted(self, name: str) -> bool:
        only = self._brief.only
        return only is None or name in only

    async def _tried(self, step: Step) -> Check:
        self._interview.begin()
        check = Check(name=step.name, verdict="skipped")
        for _ in range(max(1, step.tries)):
            finding, is_its_own = await self._found_out(step)
            check = self._check(step.name, finding)
            if check.verdict != "failed" or not is_its_own:
                break
        return check

    async def _found_out(self, step: Step) -> tuple[Finding, bool]:
        """What came of it, and whether that is the model's own answer: what its provider says
        instead is not said otherwise the next time."""
        try:
            return await step.ask(self._interview), True
        except BadAnswer as bad:
            return _not_told("failed", str(bad), self._interview.answered), True
        except Refusal as refusal:
            reason = f"the provider refuses it: {quoted(refusal.message)}"
            return _not_told("failed", reason, refusal.message), False
        except Postponed as postponed:
            self._soon = postponed.soon
            return _not_told("unsure" if postponed.asked else "skipped", str(postponed)), False
        except AttemptFailed as failure:
            # It may say that the model is down, but nothing about what it can do.
            first = _first_step(self._brief.model)
            is_first = first is not None and step.name == first.name
            verdict: Verdict = "failed" if is_first else "unsure"
            ours = failure.code in _ON_THE_WAY
            reason = failure.message if ours else quoted(failure.message)
            return _not_told(verdict, reason, self._interview.answered), False

    def _check(self, name: str, finding: Finding) -> Check:
        interview = self._interview
        spent = interview.spent
        return Check(
            name=name,
            verdict=finding.verdict,
            reason=finding.reason[:SHOWN],
            prompt=(finding.prompt or interview.asked)[:SHOWN],
            answer=finding.answer[:SHOWN],
            at=self._now(),
            ms=spent.ms,
            first_token_ms=spent.first_token_ms,
            tokens_per_second=spent.tokens_per_second,
            points=finding.points,
            reported=spent.reported,
            requests=spent.requests,
            usage=spent.usage,
            cost=spent.cost,
        )

    def _found(self, verdict: Verdict, reason: str = "") -> Verified:
        """What all checks so far come to. What is not looked at is as it was before."""
        brief = self._brief
        model, before = brief.model, brief.before
        checks = self._checks
        streamed = checks.get("streaming")
        first = next(iter(checks.values()), None)
        told = streamed if streamed is not None and streamed.first_token_ms is not None else first
        capabilities = {name: checks[name] for name in text.CAPABILITIES if name in checks}
        latency = None
        if told is not None and verdict == "passed":
            latency = told.ms if told.first_token_ms is None else told.first_token_ms
        return Verified(
            provider=model.provider,
            model=model.id,
            at=self._now(),
            verdict=verdict,
            reason=reason,
            latency_ms=latency,
            first_token_ms=None if streamed is None else streamed.first_token_ms,
            tokens_per_second=None if streamed is None else streamed.tokens_per_second,
            proven=_proven(capabilities, before),
            withdrawn=_withdrawn(capabilities, before, model),
            quality=self._score(before),
            fingerprint=None if before is None else before.fingerprint,
            flags={} if before is None else before.flags,
            drift_since=None if before is None else before.drift_since,
            failures=_failures(verdict, before),
            requests=sum(check.requests for check in checks.values()),
            tokens=sum(check.usage.total_tokens for check in checks.values()),
            cost=sum(check.cost for check in checks.values()),
        )


def _first_step(model: Model) -> Step | None:
    """Whether it does what it is for; `None` for kinds of models that are not asked."""
    match model.category:
        case "text":
            return text.ANSWERS
        case "image":
            return image.STEP if image.applies(model) else None
        case "audio":
            return audio.step(model)
        case "embedding":
            return embedding.STEP
    return None


def _task_step(task: quality.Task, prefix: str) -> Step:
    return msgspec.structs.replace(quality.step(task), name=f"{prefix}{task.id}")


def _failures(verdict: Verdict, before: Verified | None) -> int:
    """In a row; what could not be found out is none, and no success."""
    known = 0 if before is None else before.failures
    if verdict == "failed":
        return known + 1
    return 0 if verdict == "passed" else known


def _not_told(verdict: Verdict, reason: str, answer: str = "") -> Finding:
    """`answer`: what came back instead."""
    return Finding(verdict=verdict, prompt="", reason=reason, answer=answer)


def _proven(checks: Mapping[str, Check], before: Verified | None) -> tuple[str, ...]:
    """What was shown now, and what was shown before and could not be looked at now."""
    earlier = () if before is None else before.proven
    return tuple(
        name
        for name in text.CAPABILITIES
        if (name in checks and checks[name].verdict == "passed")
        or (name in earlier and _says_nothing(checks.get(name)))
    )


def _withdrawn(
    checks: Mapping[str, Check], before: Verified | None, model: Model
) -> dict[str, str]:
    """The same for what is claimed and not there."""
    earlier = {} if before is None else before.withdrawn
    found = {}
    for name in model.capabilities:
        check = checks.get(name)
        if check is not None and check.verdict == "failed":
            found[name] = check.reason
        elif name in earlier and _says_nothing(check):
            found[name] = earlier[name]
    return found


def _says_nothing(check: Check | None) -> bool:
    return check is None or check.verdict in ("unsure", "skipped")
