"""One model, examined: in which order, what is asked at all, and what follows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from manyways.catalog.verified import Check, Quality, Verified
from manyways.errors import AttemptFailed, Refusal, StoreError
from manyways.types import Model
from manyways.verification import quality
from manyways.verification.examination import (
    DRIFT_KEPT,
    NAMES,
    Brief,
    examine,
)
from manyways.verification.quality import ANCHORS, TASKS
from tests.support.asked import Asked, Reply, Script, chat, chunks, interview, model
from tests.support.honest import honest_chat
from tests.verification.quality.right import RIGHT

NOON = 1_800_000_000.0
DAY = 86_400.0
CLAIMS = ("streaming", "tools", "json_schema", "prefill")
_ANSWERS = {task.prompt: RIGHT[task.id][0] for task in TASKS}


def able(path: str, fields: dict[str, Any]) -> Reply:
    """The script of a model that can do everything and knows all answers."""
    prompt = fields["messages"][-1]["content"]
    known = _ANSWERS.get(prompt) if isinstance(prompt, str) else None
    message = honest_chat(fields) if known is None else {"content": known}
    if fields.get("stream"):
        return chunks(*(f"{word}, " for word in str(message["content"]).split(", ")))
    return chat(message.pop("content"), **message)


def other(path: str, fields: dict[str, Any]) -> Reply:
    """A model that can do the same, and answers the fixed questions otherwise."""
    prompt = fields["messages"][-1]["content"]
    if isinstance(prompt, str) and prompt in {task.prompt for task in ANCHORS}:
        answer = json.loads(chat("something altogether different"))
        answer["usage"] = {"prompt_tokens": 77, "completion_tokens": 5, "total_tokens": 82}
        answer["model"] = "somebody-else"
        return json.dumps(answer).encode()
    return able(path, fields)


def unlike(script: Script, replies: Mapping[str, Reply]) -> Script:
    """The same script, but for requests in which one of these words is."""

    def answered(path: str, fields: dict[str, Any]) -> Reply:
        text = json.dumps(fields)
        found = (reply for word, reply in replies.items() if word in text)
        return next(found, None) or script(path, fields)

    return answered


@dataclass
class Office:
    """Examines, keeps the checks of each examination, and holds a clock."""

    script: Script = able
    model: Model = field(default_factory=lambda: model(capabilities=CLAIMS))
    now: float = NOON
    kept: dict[str, Check] = field(default_factory=dict)
    asker: Asked = field(default_factory=lambda: Asked(able))

    async def examine(self, before: Verified | None = None, **brief: Any) -> Verified:
        made = brief.pop("made", {})
        self.kept = {}
        self.asker = Asked(self.script)

        async def save(check: Check) -> None:
            assert check.name not in self.kept, "a check is made once"
            self.kept[check.name] = check

        return await examine(
            Brief(model=self.model, before=before, made=made, **{"score_every": 7 * DAY} | brief),
            interview(self.model, self.asker),
            save,
            seed="run 1",
            now=lambda: self.now,
        )

    @property
    def asked(self) -> list[str]:
        """The checks that were made, in their order."""
        return list(self.kept)


class TestOrder:
    async def test_first_whether_it_answers_then_what_it_can_then_how_well(self) -> None:
        office = Office()
        found = await office.examine()
        anchors = [f"task:{task.id}" for task in ANCHORS]
        rest = [f"task:{task.id}" for task in TASKS if task not in ANCHORS]
        assert office.asked == [
            "answers",
            "streaming",
            "tools",
            "json_schema",
            "prefill",
            *anchors,
            *rest,
        ]
        assert found.verdict == "passed"
        assert found.proven == CLAIMS
        assert found.withdrawn == {}
        assert found.quality is not None
        assert found.quality.score == 10.0
        assert found.fingerprint is not None
        assert found.fingerprint.samples.keys() == {task.id for task in ANCHORS}

    async def test_a_model_that_does_not_answer_is_asked_nothing_else(self) -> None:
        office = Office(unlike(able, {"Say hello": chat("")}))
        found = await office.examine()
        assert office.asked == ["answers"]
        assert (found.verdict, found.reason) == ("failed", "its answer is empty")
        assert found.requests == 2, "models do not always answer alike"
        assert found.latency_ms is None

    @pytest.mark.parametrize(
        ("reply", "verdict"),
        [
            (AttemptFailed("model_gone", "no such model"), "failed"),
            (AttemptFailed("connect", "cannot be reached"), "failed"),
            (AttemptFailed("out_of_sockets", "was not asked"), "skipped"),
            (AttemptFailed("crowded", "had no connection free"), "skipped"),
            (Refusal("invalid_request", "we do not want to"), "failed"),
            (b"<html>", "failed"),
            (AttemptFailed("rate_limited", "later", retry_after=1e6), "unsure"),
        ],
    )
    async def test_why_it_does_not_answer_decides(self, reply: Reply, verdict: str) -> None:
        office = Office(lambda *_: reply)
        found = await office.examine()
        assert office.asked == ["answers"]
        assert found.verdict == verdict
        assert found.reason
        assert found.requests <= 2, "what a provider says is not asked for again"

    @pytest.mark.parametrize(
        ("failure", "reason"),
        [
            (AttemptFailed("connect", "cannot be reached"), "cannot be reached"),
            (AttemptFailed("provider_error", "We are sorry.", status=500), "“We are sorry.”"),
        ],
    )
    async def test_a_provider_that_is_down_proves_nothing_about_a_capability(
        self, failure: AttemptFailed, reason: str
    ) -> None:
        """Also where nothing else was asked before; and only what somebody has said is quoted."""
        office = Office(lambda *_: failure)
        found = await office.examine(only=frozenset({"tools"}))
        assert office.asked == ["tools"]
        assert (office.kept["tools"].verdict, office.kept["tools"].reason) == ("unsure", reason)
        assert found.withdrawn == {}

    async def test_what_fails_later_says_nothing_about_whether_it_is_there(self) -> None:
        office = Office(unlike(able, {"order_boxes": AttemptFailed("provider_error", "oops")}))
        found = await office.examine()
        assert found.verdict == "passed"
        assert office.kept["tools"].verdict == "unsure"
        assert "tools" not in found.withdrawn
        assert "tools" not in found.proven

    async def test_kinds_of_models_that_nobody_can_judge_are_not_asked(self) -> None:
        office = Office(model=model(category="video"))
        found = await office.examine()
        assert (found.verdict, office.asked, office.asker.requests) == ("skipped", [], [])

    async def test_other_kinds_are_asked_one_thing(self) -> None:
        office = Office(lambda *_: b"{}", model=model(category="embedding"))
        found = await office.examine()
        assert office.asked == ["embedding"]
        assert found.verdict == "failed"

    async def test_briefly_means_only_whether_it_answers(self) -> None:
        office = Office()
        assert (await office.examine(briefly=True)).verdict == "passed"
        assert office.asked == ["answers"]

    async def test_what_it_was_is_not_forgotten_by_a_brief_look(self) -> None:
        office = Office()
        full = await office.examine()
        brief = await office.examine(full, briefly=True)
        assert (brief.proven, brief.quality, brief.fingerprint) == (
            full.proven,
            full.quality,
            full.fingerprint,
        )

    @pytest.mark.parametrize("more", [{}, {"scores": True}, {"scores_nothing": True}])
    async def test_only_what_is_wanted_is_asked(self, more: dict[str, Any]) -> None:
        office = Office()
        found = await office.examine(only=frozenset({"tools", "task:code-1"}), **more)
        assert office.asked == ["tools", "task:code-1"]
        assert found.quality is None

    async def test_without_scores_no_task_is_asked(self) -> None:
        office = Office()
        found = await office.examine(scores_nothing=True)
        assert not [name for name in office.asked if name.startswith("task:")]
        assert found.quality is None

    def test_every_check_has_a_name_of_its_own(self) -> None:
        assert len(set(NAMES)) == len(NAMES)


class TestCapabilities:
    async def test_where_nothing_is_claimed_the_usual_ones_are_looked_for(self) -> None:
        office = Office(model=model())
        found = await office.examine(scores_nothing=True)
        assert office.asked == ["answers", "streaming", "tools", "json_schema", "vision", "prefill"]
        assert set(found.proven) == set(office.asked) - {"answers"}

    async def test_what_is_not_claimed_and_not_there_is_nothing_to_withdraw(self) -> None:
        office = Office(unlike(able, {"order_boxes": chat("I would, but")}), model=model())
        found = await office.examine(scores_nothing=True)
        assert "tools" not in found.proven
        assert found.withdrawn == {}

    async def test_what_is_claimed_and_not_there_is_withdrawn_with_the_reason(self) -> None:
        office = Office(unlike(able, {"order_boxes": chat("I would, but")}))
        found = await office.examine(scores_nothing=True)
        assert found.verdict == "passed"
        assert found.withdrawn == {"tools": "it answered in prose: “I would, but”"}
        assert set(found.proven) == set(CLAIMS) - {"tools"}
        assert office.kept["tools"].requests == 2

    async def test_what_could_not_be_looked_at_is_as_it_was(self) -> None:
        office = Office(unlike(able, {"order_boxes": chat("prose"), "wrong schema": chat("")}))
        before = await office.examine(scores_nothing=True)
        away = AttemptFailed("timeout", "silence")
        office.script = unlike(able, {"order_boxes": away, "json_schema": away})
        found = await office.examine(before, scores_nothing=True)
        assert found.withdrawn == before.withdrawn
        assert found.proven == before.proven

    async def test_what_is_shown_again_is_withdrawn_no_longer(self) -> None:
        office = Office(unlike(able, {"order_boxes": chat("prose")}))
        before = await office.examine(scores_nothing=True)
        office.script = able
        found = await office.examine(before, scores_nothing=True)
        assert found.withdrawn == {}
        assert "tools" in found.proven


class TestWhatItComesTo:
    async def test_everything_that_was_asked_is_counted(self) -> None:
        office = Office()
        found = await office.examine()
        checks = office.kept.values()
        assert found.requests == len(office.asker.requests) == sum(one.requests for one in checks)
        assert found.tokens == sum(one.usage.total_tokens for one in checks)
        assert found.tokens >= 15 * len(TASKS)

    async def test_it_costs_what_its_checks_cost(self) -> None:
        priced = model(capabilities=CLAIMS, pricing={"prompt": 1e-6, "completion": 1e-6})
        office = Office(model=priced)
        found = await office.examine()
        assert found.cost == pytest.approx(sum(one.cost for one in office.kept.values()))
        assert found.cost > 15e-6 * len(TASKS)

    async def test_it_is_of_the_moment_of_its_end(self) -> None:
        office = Office()

        def slowly(path: str, fields: dict[str, Any]) -> Reply:
            office.now += 10.0
            return able(path, fields)

        office.script = slowly
        found = await office.examine()
        assert found.at == office.now
        assert [one.at for one in office.kept.values()] == sorted(
            one.at for one in office.kept.values()
        )

    async def test_the_first_token_of_its_stream_is_its_latency(self) -> None:
        found = await Office().examine(scores_nothing=True)
        assert found.first_token_ms is not None
        assert found.latency_ms == found.first_token_ms

    async def test_long_texts_are_cut(self) -> None:
        office = Office(unlike(able, {"Say hello": chat("hello " * 9999)}))
        await office.examine(briefly=True)
        assert len(office.kept["answers"].answer) == 2000

    async def test_what_cannot_be_kept_ends_it(self) -> None:
        async def save(check: Check) -> None:
            raise StoreError("full")

        asker = Asked(able)
        with pytest.raises(StoreError):
            await examine(
                Brief(model=model()), interview(model(), asker), save, seed="1", now=lambda: NOON
            )
        assert len(asker.requests) == 1


class TestResuming:
    async def test_what_was_made_is_not_made_again(self) -> None:
        office = Office()
        whole = await office.examine()
        all_checks = dict(office.kept)
        for count in range(len(all_checks) + 1):
            made = dict(list(all_checks.items())[:count])
            found = await office.examine(made=made)
            assert office.asked == list(all_checks)[count:]
            assert len(office.asker.requests) == len(all_checks) - count
            assert _untimed(found) == _untimed(whole)

    async def test_what_is_left_to_chance_is_the_same_again(self) -> None:
        """Whoever is asked a second time is asked the same thing."""
        first, second = Office(), Office()
        await first.examine()
        made = dict(list(first.kept.items())[:2])
        await second.examine(made=made)
        assert second.asker.bodies == first.asker.bodies[2:]

    async def test_a_model_that_had_failed_before_the_end_is_not_asked_again(self) -> None:
        office = Office(unlike(able, {"Say hello": chat("")}))
        await office.examine()
        found = await office.examine(made=office.kept)
        assert office.asker.requests == []
        assert found.verdict == "failed"


class TestScores:
    @staticmethod
    def known(at: float, version: str = quality.VERSION) -> Quality:
        return Quality(score=5.0, low=4.0, high=6.0, version=version, at=at)

    @pytest.mark.parametrize(
        ("at", "version", "due"),
        [
            (NOON - 6 * DAY, quality.VERSION, False),
            (NOON - 7 * DAY, quality.VERSION, True),
            (NOON - 1 * DAY, "older", True),
        ],
    )
    async def test_a_score_is_due_where_it_is_old_or_of_another_set(
        self, at: float, version: str, due: bool
    ) -> None:
        office = Office()
        before = msgspec.structs.replace(
            await office.examine(), quality=self.known(at, version), at=at
        )
        found = await office.examine(before)
        assert found.quality is not None
        assert (found.quality.score == 10.0) is due
        anchors = {f"task:{task.id}" for task in ANCHORS}
        assert {name for name in office.asked if name.startswith("task:")} == (
            {f"task:{task.id}" for task in TASKS} if due else anchors
        )

    async def test_it_is_scored_in_any_case_where_that_is_asked_for(self) -> None:
        office = Office()
        before = msgspec.structs.replace(await office.examine(), quality=self.known(NOON))
        found = await office.examine(before, scores=True)
        assert found.quality is not None
        assert found.quality.score == 10.0

    async def test_too_few_answers_leave_the_score_as_it_was(self) -> None:
        office = Office()
        before = msgspec.structs.replace(await office.examine(), quality=self.known(0.0))
        away = AttemptFailed("timeout", "silence")
        prompts = [task.prompt for task in TASKS if task not in ANCHORS][:20]
        broken = {json.dumps(prompt)[1:-1]: away for prompt in prompts}
        office.script = unlike(able, broken)
        found = await office.examine(before)
        assert found.quality == before.quality

    async def test_a_question_that_is_refused_is_worth_nothing(self) -> None:
        refused = Refusal("content_filter", "not that")
        task = next(task for task in TASKS if task not in ANCHORS)
        office = Office(unlike(able, {json.dumps(task.prompt)[1:-1]: refused}))
        found = await office.examine()
        assert found.quality is not None
        assert found.quality.tasks[task.id] == 0.0
        assert len(found.quality.tasks) == len(TASKS)

    async def test_half_a_fingerprint_is_none(self) -> None:
        """And what was known before stays."""
        office = Office()
        before = await office.examine()
        office.script = unlike(
            able, {json.dumps(ANCHORS[-1].prompt)[1:-1]: AttemptFailed("timeout", "silence")}
        )
        found = await office.examine(before)
        assert found.fingerprint == before.fingerprint
        assert found.quality == before.quality
        assert found.verdict == "passed"


class TestDrift:
    async def test_the_same_model_stays_itself(self) -> None:
        office = Office()
        before = await office.examine()
        office.now += DAY
        found = await office.examine(before)
        assert found.flags == {}
        assert found.drift_since is None
        assert found.fingerprint is not None
        assert found.fingerprint.at == office.now

    async def test_another_one_is_flagged_and_scored_at_once(self) -> None:
        office = Office()
        before = await office.examine()
        office.now += DAY
        office.script = other
        found = await office.examine(before)
        assert "somebody-else" in found.flags["drift"]
        assert found.drift_since == office.now
        assert found.fingerprint == before.fingerprint, "it is compared with what it was"
        assert len([name for name in office.asked if name.startswith("task:")]) == len(TASKS)
        assert found.quality is not None
        assert before.quality is not None
        assert found.quality.score < before.quality.score

    async def test_it_is_scored_for_that_once(self) -> None:
        office = Office()
        before = await office.examine()
        office.script = other
        for _ in range(2):
            office.now += DAY
            before = await office.examine(before)
        assert len(office.asked) == len(("answers", *CLAIMS, *ANCHORS))
        assert before.flags.keys() == {"drift"}
        assert before.drift_since == office.now - DAY

    async def test_what_comes_back_is_cleared(self) -> None:
        office = Office()
        first = await office.examine()
        office.script = other
        drifted = await office.examine(first)
        office.script = able
        found = await office.examine(msgspec.structs.replace(drifted, flags={"impostor": "who?"}))
        assert found.flags == {"impostor": "who?"}
        assert found.drift_since is None

    async def test_what_stays_is_taken_for_what_it_is(self) -> None:
        office = Office()
        before = await office.examine()
        office.script = other
        before = await office.examine(before)
        office.now += DRIFT_KEPT
        before = await office.examine(before)
        assert before.flags.keys() == {"drift"}
        office.now += 1.0
        found = await office.examine(before)
        assert found.flags == {}
        assert found.drift_since is None
        assert found.fingerprint is not None
        assert found.fingerprint.reported == "somebody-else"

    @pytest.mark.parametrize("steady", [True, False])
    async def test_what_is_doubtful_is_asked_again_on_the_same_day(self, steady: bool) -> None:
        """Other answers by the same name, tokens and speed: what is said twice decides."""
        office = Office()
        before = await office.examine()
        told = iter(range(1000))
        prompts = {task.prompt for task in ANCHORS}

        def moody(path: str, fields: dict[str, Any]) -> Reply:
            prompt = fields["messages"][-1]["content"]
            if not isinstance(prompt, str) or prompt not in prompts:
                return able(path, fields)
            return chat("another" if steady else f"answer{next(told)}")

        office.script = moody
        found = await office.examine(before)
        again = [name for name in office.asked if name.startswith("again:")]
        assert again == [f"again:{task.id}" for task in ANCHORS]
        assert ("drift" in found.flags) is steady

    async def test_where_nothing_is_doubtful_nothing_is_asked_twice(self) -> None:
        office = Office()
        before = await office.examine()
        for script in (able, other):
            office.script = script
            await office.examine(before)
            assert not [name for name in office.asked if name.startswith("again:")]


def _untimed(found: Verified) -> tuple[object, ...]:
    """All but the times."""
    assert found.fingerprint is not None
    assert found.quality is not None
    answers = {name: one.answer for name, one in found.fingerprint.samples.items()}
    return found.verdict, found.proven, found.quality.tasks, answers, found.requests, found.tokens
