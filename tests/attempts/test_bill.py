"""What a request comes to, as its row says: told by the provider, or counted from what was said.

Providers are played by script, the gateway is asked from outside, its database is read.
"""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_wall import ChatWall, Speech, chat_wall
from tests.support.faults import error
from tests.support.gateway import COUNTS, Answer, Gateway, provider, running_gateway
from tests.support.wall import Answer as Play
from tests.support.wall import (
    Close,
    Moment,
    Pause,
    Request,
    Script,
    Send,
    Stall,
    WaitFor,
    piece,
)

pytestmark = pytest.mark.process

CONFIG = """
[routing]
order = "same-model-first"
first_token_timeout = "2s"
idle_timeout = "2s"
deadline = "8s"
retries = 0
retry_pause = "20ms"
rest = "50ms"
hedge = true
hedge_budget = 1.0
"""
PROVIDERS = ("Primary", "Fallback", "Billing", "Refusing")
MODELS = [f"m{n}" for n in range(40)]
PROMPT_PRICE, ANSWER_PRICE = 0.001, 0.01
PRICED = rf"\1\npricing = {{ prompt = {PROMPT_PRICE}, completion = {ANSWER_PRICE} }}"
MESSAGES = [{"role": "user", "content": "Go on, please"}]

SPEECH = Speech()
SILENT = Speech(tells="never")
OTHER = Speech(("No", " rain", ",", " no", " snow", "."), "chatcmpl-second")

Row = dict[str, Any]


@dataclass
class Office:
    """A gateway, its providers, and its books."""

    gateway: Gateway
    walls: dict[str, ChatWall]
    models: Iterator[str]
    path: Path
    model: str = ""
    """The one that was asked for last: health remembers, so each test has its own."""

    def body(self, *, stream: bool = False, **plays: Play) -> Row:
        """A request to these providers, who play that."""
        self.model = next(self.models)
        for name, play in plays.items():
            self.walls[name].models[self.model] = play
        wish = {"order": list(plays), "only": list(plays)}
        asked = {"model": self.model, "models": [self.model], "messages": MESSAGES}
        return {**asked, "stream": stream, "provider": wish}

    def ask(self, *, stream: bool = False, more: Row | None = None, **plays: Play) -> Answer:
        return self.gateway.chat({**self.body(stream=stream, **plays), **(more or {})})

    def asked(self, name: str) -> list[Row]:
        """The bodies that a provider got for the last model."""
        return [json.loads(each.body) for each in self.walls[name].asked(self.model)]

    def rows(self, query: str, *values: object) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def row(self, answer: Answer) -> Row:
        """Of an answer, once it is in the database."""
        return self.found("SELECT * FROM usage_stats WHERE id = ?", answer.headers["x-request-id"])

    def last(self) -> Row:
        """Of the request for the last model."""
        return self.found("SELECT * FROM usage_stats WHERE requested_model = ?", self.model)

    def told(self) -> Row:
        """Of the request for the last model, once its provider has told what it came to."""
        query = "SELECT * FROM usage_stats WHERE requested_model = ? AND usage_source = 'upstream'"
        return self.found(query, self.model)

    def drained(self, row: Row) -> Row:
        """Its first attempt, once its provider has told what it came to."""
        query = "SELECT * FROM usage_attempts WHERE request_id = ? AND number = 0"
        return self.found(f"{query} AND usage_source = 'upstream'", row["id"])

    def found(self, query: str, *values: object, limit: float = 10.0) -> Row:
        deadline = time.monotonic() + limit
        while not (rows := self.rows(query, *values)):
            assert time.monotonic() < deadline, (query, values)
            time.sleep(0.02)
        (row,) = rows
        return row

    def attempts(self, row: Row) -> list[Row]:
        query = "SELECT * FROM usage_attempts WHERE request_id = ? ORDER BY number"
        rows = self.rows(query, row["id"])
        assert len(rows) == row["attempts"]
        return rows

    def count(self) -> int:
        return int(self.rows("SELECT count(*) AS n FROM usage_stats")[0]["n"])


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with ExitStack() as stack:
        walls = {name: stack.enter_context(chat_wall()) for name in PROVIDERS}
        config = CONFIG
        for name, wall in walls.items():
            extra = "drain = true\n" if name == "Billing" else ""
            table = provider(wall.wall.url, *MODELS, name=name, extra=extra)
            config += re.sub(r'(id = "m\d+")', PRICED, table)
        home = tmp_path_factory.mktemp("bill")
        gateway = stack.enter_context(running_gateway(home, COUNTS + config))
        yield Office(gateway, walls, iter(MODELS), home / "manyways.db")


def tokens(row: Row) -> tuple[int, int, int]:
    return row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]


def price(row: Row) -> float:
    return float(row["prompt_tokens"] * PROMPT_PRICE + row["completion_tokens"] * ANSWER_PRICE)


def add_up(row: Row, parts: list[Row]) -> None:
    """What the row says is the sum of these attempts."""
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert row[name] == sum(part[name] for part in parts), name
    assert row["cost"] == pytest.approx(sum(part["cost"] for part in parts))


# Where the usage comes from


def test_a_whole_answer_is_billed_as_its_provider_tells(office: Office) -> None:
    body = office.body(Primary=SPEECH)
    answer = office.gateway.chat(body, headers={"X-Client-Request-Id": "mine-17"})
    row = office.row(answer)
    assert (row["endpoint"], row["stream"], row["status_code"]) == ("/chat/completions", 0, 200)
    assert (row["requested_model"], row["requested_provider"]) == (office.model, "Primary")
    assert (row["model"], row["provider"], row["attempts"]) == (office.model, "Primary", 1)
    assert (tokens(row), row["usage_source"]) == ((3, 7, 10), "upstream")
    assert row["cost"] == pytest.approx(3 * PROMPT_PRICE + 7 * ANSWER_PRICE)
    assert (row["error_code"], row["error_message"]) == (None, None)
    assert row["client_request_id"] == "mine-17"
    assert 0 <= row["response_time_ms"] < 5000
    (one,) = office.attempts(row)
    assert (one["outcome"], one["upstream_model"]) == ("answered", office.model)
    assert tokens(one) == tokens(row)


def test_a_stream_is_asked_for_its_usage_and_who_did_not_ask_does_not_see_it(
    office: Office,
) -> None:
    answer = office.ask(stream=True, Primary=SPEECH)
    assert answer.text == SPEECH.text
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in answer.chunks())
    assert office.asked("Primary")[0]["stream_options"] == {"include_usage": True}
    row = office.row(answer)
    assert (tokens(row), row["usage_source"], row["stream"]) == ((3, 7, 10), "upstream", 1)


def test_who_asked_for_the_usage_of_a_stream_sees_it_once(office: Office) -> None:
    asked = {"stream_options": {"include_usage": True}}
    answer = office.ask(stream=True, more=asked, Primary=SPEECH)
    told = [chunk["usage"] for chunk in answer.chunks() if chunk.get("usage")]
    assert [usage["total_tokens"] for usage in told] == [10]
    assert answer.chunks()[-1]["choices"] == []
    assert tokens(office.row(answer)) == (3, 7, 10)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_nobody_tells_is_counted_and_marked(office: Office, stream: bool) -> None:
    row = office.row(office.ask(stream=stream, Primary=SILENT))
    assert row["usage_source"] == "estimated"
    assert 3 <= row["prompt_tokens"] <= 15
    assert len(SILENT.words) - 2 <= row["completion_tokens"] <= len(SILENT.words) + 5
    assert row["total_tokens"] == row["prompt_tokens"] + row["completion_tokens"]
    assert row["cost"] == pytest.approx(price(row))


def test_a_provider_that_refuses_the_question_is_asked_without_it_and_remembered(
    office: Office,
) -> None:
    refuses = replace(SPEECH, tells="refuses")
    first = office.ask(stream=True, Refusing=refuses)
    assert first.text == SPEECH.text
    assert ["stream_options" in body for body in office.asked("Refusing")] == [True, False]
    assert office.row(first)["usage_source"] == "estimated"
    second = office.ask(stream=True, Refusing=refuses)
    assert second.text == SPEECH.text
    assert ["stream_options" in body for body in office.asked("Refusing")] == [False]


def test_a_request_that_nobody_answered_has_no_usage_and_tells_of_each_attempt(
    office: Office,
) -> None:
    answer = office.ask(Primary=error(500), Fallback=error(503, "come back later"))
    row = office.row(answer)
    assert (row["status_code"], row["error_code"]) == (503, "all_models_failed")
    assert row["error_message"]
    assert (tokens(row), row["usage_source"], row["cost"]) == ((0, 0, 0), "none", None)
    parts = office.attempts(row)
    assert [(part["provider"], part["status_code"]) for part in parts] == [
        ("Primary", 500),
        ("Fallback", 503),
    ]
    assert all(part["outcome"] != "answered" and part["cost"] is None for part in parts)


def test_a_fallback_costs_only_what_answered(office: Office) -> None:
    row = office.row(office.ask(Primary=error(500), Fallback=SPEECH))
    assert (row["provider"], row["attempts"], tokens(row)) == ("Fallback", 2, (3, 7, 10))
    failed, answered = office.attempts(row)
    assert (failed["usage_source"], answered["usage_source"]) == ("none", "upstream")


# More than one part


def test_a_continued_answer_costs_all_of_its_parts(office: Office) -> None:
    answer = office.ask(stream=True, Primary=SPEECH.begun(4, Close()), Fallback=SPEECH)
    assert answer.text == SPEECH.text
    row = office.row(answer)
    parts = office.attempts(row)
    assert [part["provider"] for part in parts] == ["Primary", "Fallback"]
    assert parts[0]["usage_source"] == "estimated"
    assert parts[0]["completion_tokens"] >= 3
    assert parts[0]["method"] is None
    assert parts[1]["method"]
    assert tokens(parts[1])[1] > 0
    add_up(row, parts)
    assert row["usage_source"] == "estimated"
    assert (row["status_code"], row["error_code"]) == (200, None)


def test_the_loser_of_a_race_is_accounted_for(office: Office) -> None:
    body = office.body(stream=True, Primary=paused(0.03), Fallback=(Stall(),))
    for _ in range(25):  # which show what is usual; on a busy machine one may be late, and raced
        assert office.gateway.chat(body).text == SPEECH.text
    office.walls["Primary"].models[office.model] = (Stall(),)
    office.walls["Fallback"].models[office.model] = OTHER
    answer = office.gateway.chat(body)
    assert answer.text == OTHER.text
    row = office.row(answer)
    assert (row["provider"], row["attempts"], tokens(row)) == ("Fallback", 2, (3, 6, 9))
    loser, winner = office.attempts(row)
    assert (loser["provider"], loser["outcome"]) == ("Primary", "cancelled")
    assert loser["latency_ms"] > 0
    assert (winner["outcome"], tokens(winner)) == ("answered", (3, 6, 9))


def paused(seconds: float) -> Play:
    def play(request: Request) -> Script:
        return (Pause(seconds), *SPEECH(request))

    return play


# Answers without an end


def test_a_cut_answer_is_billed_for_what_was_said(office: Office) -> None:
    cut = SPEECH.begun(5, Close())
    answer = office.ask(stream=True, Primary=cut)
    assert answer.error
    row = office.row(answer)
    assert row["status_code"] == 200
    assert row["error_code"] == answer.error["code"]
    assert row["usage_source"] == "estimated"
    parts = [part for part in office.attempts(row) if part["first_token_ms"] is not None]
    assert row["completion_tokens"] >= 4
    add_up(row, parts)


def test_a_caller_that_left_is_billed_for_what_was_said(office: Office) -> None:
    never = Moment()
    body = office.body(stream=True, Primary=SPEECH.begun(4, WaitFor(never)))
    with office.gateway.begin(body) as caller:
        heard = b""
        while SPEECH.words[3].encode() not in heard:
            heard += caller.recv(65536)
    row = office.last()
    never.set()
    assert (row["status_code"], row["usage_source"]) == (499, "estimated")
    assert 3 <= row["completion_tokens"] <= 10
    assert row["cost"] == pytest.approx(price(row))
    (one,) = office.attempts(row)
    assert one["outcome"] == "cancelled"


def held_back(go_on: Moment, steps: int) -> Play:
    """So many steps of an answer, and the rest on a sign."""

    def play(request: Request) -> Script:
        script = SPEECH(request)
        return (*script[:steps], WaitFor(go_on), *script[steps:])

    return play


def test_an_answer_that_is_read_on_is_billed_as_its_provider_tells(office: Office) -> None:
    """Recorded when its caller leaves, and as it was told later: in the sums as well."""
    go_on = Moment()
    body = office.body(stream=True, Billing=held_back(go_on, 4))
    with office.gateway.begin(body) as caller:
        heard = b""
        while SPEECH.words[0].encode() not in heard:
            heard += caller.recv(65536)
    office.gateway.logged('"status":499', office.model)
    go_on.set()
    row = office.told()
    assert (row["status_code"], tokens(row)) == (499, (3, 7, 10))
    assert 0 <= row["first_token_ms"] <= row["response_time_ms"]
    add_up(row, office.attempts(row))
    for table in ("usage_hourly", "usage_daily"):
        (sums,) = office.rows(f"SELECT * FROM {table} WHERE model = ?", office.model)  # noqa: S608
        assert (sums["requests"], sums["estimated"]) == (1, 0)
        assert (sums["prompt_tokens"], sums["completion_tokens"]) == (3, 7)
        assert sums["cost"] == pytest.approx(row["cost"])


@pytest.mark.parametrize("steps", [0, 2], ids=["before its headers", "inside its answer"])
def test_the_loser_of_a_race_is_paid_for_where_its_provider_bills_anyway(
    office: Office, steps: int
) -> None:
    """Told when the caller has its answer already: in the row of the attempt. What the caller
    has used is the winner's."""
    go_on = Moment()
    body = office.body(stream=True, Billing=paused(0.03), Fallback=(Stall(),))
    for _ in range(25):
        assert office.gateway.chat(body).text == SPEECH.text
    office.walls["Billing"].models[office.model] = held_back(go_on, steps)
    office.walls["Fallback"].models[office.model] = OTHER
    answer = office.gateway.chat(body)
    go_on.set()
    assert answer.text == OTHER.text
    row = office.row(answer)
    loser = office.drained(row)
    assert (loser["provider"], loser["outcome"]) == ("Billing", "cancelled")
    assert (tokens(loser), loser["cost"]) == ((3, 7, 10), pytest.approx(price(loser)))
    winner = office.attempts(row)[1]
    assert (winner["outcome"], tokens(winner)) == ("answered", (3, 6, 9))
    assert office.row(answer) == row
    add_up(row, [winner])


def test_a_silence_that_was_given_up_is_paid_for_where_its_provider_bills_anyway(
    office: Office,
) -> None:
    alive = (Pause(0.5), Send(piece(b": not yet\n\n")))

    def late(request: Request) -> Script:
        script = SPEECH(request)
        return (*script[:2], *(alive * 8), *script[2:])

    row = office.row(office.ask(stream=True, Billing=late, Primary=OTHER))
    silent = office.drained(row)
    assert (silent["outcome"], tokens(silent)) == ("timeout", (3, 7, 10))
    assert tokens(row) == tokens(office.attempts(row)[1]) == (3, 6, 9)


def test_the_times_of_a_stream_are_those_that_its_caller_saw(office: Office) -> None:
    began = time.monotonic()
    script = (Pause(0.2), *SPEECH.begun(1, Pause(0.2)))

    def slow(request: Request) -> Script:
        return (*script, *SPEECH(request)[2:])

    row = office.row(office.ask(stream=True, Primary=slow))
    seen = (time.monotonic() - began) * 1000
    assert 200 <= row["first_token_ms"] <= row["response_time_ms"] - 150
    assert 400 <= row["response_time_ms"] <= seen


# What has a row, and what has none


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_request"),
        ({"model": "m0"}, "invalid_request"),
        ({"model": "m0", "messages": []}, "invalid_request"),
        ({"model": "nobody-has-it", "messages": MESSAGES}, "model_not_found"),
    ],
)
def test_a_refused_body_has_a_row_without_attempts(office: Office, body: Any, code: str) -> None:
    answer = office.gateway.chat(body)
    row = office.row(answer)
    assert (row["status_code"], row["error_code"]) == (answer.status, code)
    assert 400 <= answer.status < 500
    assert (row["attempts"], row["usage_source"], row["cost"]) == (0, "none", None)
    assert row["error_message"]


def test_what_asks_no_model_has_no_row(office: Office) -> None:
    office.row(office.ask(Primary=SPEECH))
    before = office.count()
    for path in ("/v1/models", "/v1/models/m0", "/v1/providers", "/healthz", "/metrics"):
        for method in ("GET", "HEAD"):
            assert office.gateway.ask(path, method=method).status == 200
    assert office.gateway.ask("/v1/chat/completions", method="OPTIONS").status == 204
    assert office.gateway.chat({}, key="rvf_wrong").status == 401
    assert office.gateway.chat({}, key=None).status == 401
    assert office.gateway.ask("/v1/chat/completions").status == 405
    office.row(office.ask(Primary=SPEECH))
    assert office.count() == before + 1


def test_refusals_by_a_limit_are_counted_by_key_and_minute(office: Office) -> None:
    made = office.gateway.ask(
        "/admin/v1/keys", {"type": "full", "limits": {"requests": 1, "window": "1h"}}
    ).json()
    body = office.body(Primary=SPEECH)
    statuses = [office.gateway.chat(body, key=made["key"]).status for _ in range(4)]
    assert statuses == [200, 429, 429, 429]
    query = "SELECT sum(count) AS n, min(code) AS code FROM usage_refusals WHERE api_key_id = ?"
    deadline = time.monotonic() + 15
    while (row := office.rows(query, made["id"])[0])["n"] != 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert row["code"] == "rate_limit_exceeded"
    minutes = office.rows("SELECT minute FROM usage_refusals WHERE api_key_id = ?", made["id"])
    assert all(str(each["minute"]).split(".")[0].endswith(":00") for each in minutes)
    answered = office.rows("SELECT id FROM usage_stats WHERE api_key_id = ?", made["id"])
    assert len(answered) == 1, "they have no rows of their own"
