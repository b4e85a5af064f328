"""Models that are not what they are said to be: each lie is found by the running gateway, and the
reason is told wherever operators and callers look."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support import media
from tests.support.ahead import Clock
from tests.support.catalog_pages import (
    chat,
    is_listed,
    refresh,
    row,
    rows,
    run_of,
    until,
    verified,
)
from tests.support.catalog_provider import (
    House,
    Offer,
    Street,
    at_first,
    blind,
    breaks_off,
    chats,
    draws,
    embeds,
    fencing,
    hears,
    in_turn,
    otherwise,
    prosaic,
    says,
    small,
    speaks,
    street,
)
from tests.support.chat_provider import failure, reply
from tests.support.gateway import Gateway, running_gateway
from tests.support.wall import html

pytestmark = pytest.mark.process

Json = dict[str, Any]

BROKEN = failure(500, "The engine is on fire.")
SLOWLY = failure(429, "Too many requests.", headers=[("Retry-After", "1")])
NOT_TODAY = failure(429, "Too many requests today.", headers=[("Retry-After", "3600")])
BUDGET = 0.004
ALL = ("tools", "vision", "json_schema", "reasoning", "web_search", "streaming", "prefill")

ASKED_ONLY = """
[catalog]
probe = false
probe_pause = "2ms"
discovery_interval = "1s"
"""
UNASKED = ASKED_ONLY.replace("probe = false", "probe = true")


# Three days of a street


def foreign(text: str) -> int:
    """Tokens, as a model's tokenizer counts that knows no Russian."""
    return 8 + len(re.findall(r"[a-z]{1,5}|[^a-z\s]", text, re.IGNORECASE))


def liars() -> list[House]:
    good = (
        Offer("sage", chats(), ALL),
        Offer("gpt-4o", chats(reports="gpt-4o-2024-08-06"), ALL),
        Offer("house-model", chats()),
        Offer("painter", draws(), category="image"),
        Offer("tts-clear", speaks(), category="audio"),
        Offer("whisper-sharp", hears(), category="audio"),
        Offer("embed-wise", embeds(), category="embedding"),
    )
    bad = (
        Offer("blind", chats(blind), ("vision", "streaming")),
        Offer("prosaic", chats(prosaic), ("tools",)),
        Offer("fencing", chats(fencing), ("json_schema",)),
        Offer("at-once", chats(at_once=True), ("tools", "streaming")),
        Offer("breaks-off", breaks_off(chats()), ("tools", "streaming")),
        Offer("gpt-4o", chats(small, reports="smollm2-135m"), ("tools",)),
        Offer("gpt-4o-mini", chats(tokens=foreign)),
        Offer("painter", draws(media.picture()[:-2000]), category="image"),
        Offer("tts-mute", speaks(media.tone(loudness=0.0)), category="audio"),
        Offer("whisper-deaf", hears("Buy our carpets today."), category="audio"),
        Offer("embed-alike", embeds(alike=True), category="embedding"),
        Offer("polite", says(reply({"error": {"message": "No capacity left."}}))),
        Offer("portal", says(html())),
        Offer("silent", says(reply({"choices": [{"message": {"content": ""}}]}))),
    )
    return [
        House("Honest", *good),
        House("Lying", *bad),
        House("Second", Offer("house-model", chats(otherwise))),
        House("Third", Offer("house-model", chats(small))),
        House("Mimic", Offer("gpt-4o", chats(small, reports="gpt-4o"))),
        House("Changing", *(Offer(name, chats()) for name in ("loud", "quiet", "steady"))),
        House("Busy", Offer("waits", at_first(2, SLOWLY, chats()))),
        House("Leaving", Offer("leaves", chats())),
    ]


@dataclass
class Day:
    """What was known at the end of a day."""

    run: Json
    known: dict[str, Json]
    shown: dict[str, Json]

    def __getitem__(self, name: str) -> Json:
        """What verification has found out about a model, by `provider/model`."""
        return self.known[name]


@dataclass
class Days:
    """A street, and what the gateway found there on each of three days."""

    street: Street
    gateway: Gateway
    days: list[Day] = field(default_factory=list)

    def __getitem__(self, number: int) -> Day:
        return self.days[number - 1]

    def live(self, **scope: str) -> None:
        """Another day goes by."""
        run = refresh(self.gateway, **scope)
        known = {f"{r['provider']}/{r['model']}": r for r in rows(self.gateway, "verifications")}
        listed = self.gateway.ask("/v1/models?status=all", key=None).json()["data"]
        shown = {f"{r['provider']}/{r['id']}": r for r in listed}
        self.days.append(Day(run, known, shown))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Days]:
    home = tmp_path_factory.mktemp("days")
    with street(*liars()) as houses, running_gateway(home, ASKED_ONLY + houses.config()) as gateway:
        for house in houses.houses.values():
            for model in house.offers:
                until(partial(is_listed, gateway, f"{house.name}/{model}"))
        found = Days(houses, gateway)
        found.live()
        changing = houses["Changing"]
        changing.replace("loud", chats(otherwise, reports="qwen2.5-3b", tokens=len))
        changing.replace("quiet", chats(otherwise))
        houses["Leaving"].replace("leaves", says(NOT_TODAY))
        found.live()
        changing.replace("loud", chats())
        changing.replace("quiet", chats())
        found.live(provider="Changing")
        yield found


# What callers find out


@dataclass
class Outage:
    """A model was well when it was verified; callers find it down, and back. Seconds are from
    when that began."""

    first: Json = field(default_factory=dict)
    before: Json = field(default_factory=dict)
    private: list[int] = field(default_factory=list)
    dear: dict[str, Json] = field(default_factory=dict)
    lists: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    incidents: list[Json] = field(default_factory=list)
    table: str = ""
    rechecked: Json = field(default_factory=dict)
    recovered: list[Json] = field(default_factory=list)
    risen: list[Json] = field(default_factory=list)


def outage(home: Path) -> Outage:
    found = Outage()
    capi = House("Capi", Offer("night", chats()), Offer("phoenix", says(BROKEN)))
    dear = House(
        "Dear",
        Offer("costs", chats(), ("tools",), prices=(1e-5, 1e-4)),
        Offer("too-dear", chats(), ALL, prices=(1e-2, 1e-2)),
    )
    private = House("Private", Offer("mine", chats()))
    clock = Clock(home / "clock")
    with street(capi, dear, private) as houses:
        config = (
            f"{UNASKED}probe_budget = {BUDGET}\n{houses.config('Capi', 'Dear')}"
            f"{houses.config('Private', extra='probe = false')}"
        )
        with running_gateway(home, config, env=clock.env) as gateway:
            found.first = run_of(gateway, "first start")
            found.before = row(gateway, "Capi/night")
            found.private.append(len(private.asked))
            found.dear = {m: verified(gateway, "Dear", m) for m in dear.offers}
            refresh(gateway, provider="Private")
            found.private.append(len(private.asked))
            _callers(gateway, capi, found)
        # What is over was told at the stop at the latest: nobody waits for the next look.
        told = gateway.command("models", "incidents", "--model", "night", "--json").stdout
        found.incidents += json.loads(told)
        capi.replace("phoenix", chats())
        clock.forward(3600)
        with running_gateway(home, config, env=clock.env) as gateway:
            found.rechecked = run_of(gateway, "failed before")
            until(lambda: row(gateway, "Capi/phoenix")["status"] == "active")
            found.recovered = rows(gateway, "changes?model=phoenix")
            found.risen = rows(gateway, "incidents?model=phoenix")
    return found


def _callers(gateway: Gateway, capi: House, found: Outage) -> None:
    """They go on asking while it is down, and when it is back."""

    def shown() -> str:
        chat(gateway, "Capi", "night")
        return str(row(gateway, "Capi/night")["status"])

    def noted() -> list[Json]:
        chat(gateway, "Capi", "night")
        return rows(gateway, "incidents?model=night")

    capi.replace("night", says(BROKEN))
    began = time.monotonic()
    until(lambda: shown() == "down")
    found.seconds["down"] = time.monotonic() - began
    found.lists.append(gateway.ask("/v1/models", key=None).body.decode())
    found.incidents += until(noted)
    found.table = gateway.command("models", "incidents", "--open").stdout
    capi.replace("night", chats())
    began = time.monotonic()
    until(lambda: shown() == "active")
    found.seconds["active"] = time.monotonic() - began


@dataclass
class Later:
    """What is known at once, and when the clock has gone on."""

    unasked: int = -1
    asked: int = 0
    rows: dict[str, list[Json]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    gone: list[Json] = field(default_factory=list)
    changes: list[Json] = field(default_factory=list)


def later(home: Path) -> Later:
    found = Later()
    capi = House(
        "Capi",
        Offer("late", says(BROKEN)),
        Offer("shaky", chats()),
        Offer("fleeting", chats()),
        Offer("steady", chats()),
    )
    clock = Clock(home / "clock")
    with (
        street(capi) as houses,
        running_gateway(
            home, f'{ASKED_ONLY}forget_after = "2h"\n{houses.config()}', env=clock.env
        ) as gateway,
    ):

        def look(*names: str) -> None:
            for name in names:
                found.rows.setdefault(name, []).append(row(gateway, f"Capi/{name}"))

        until(lambda: capi.lists >= 3)
        found.unasked = len(capi.asked)
        refresh(gateway)
        found.asked = len(capi.asked)
        look("late", "shaky", "fleeting")
        clock.forward(2)  # answers are known to the second, and only later ones count
        capi.replace("late", chats())
        capi.replace("shaky", in_turn(3, BROKEN, chats()))
        until(lambda: rows(gateway, "changes?model=fleeting"))
        fleeting = capi.offers.pop("fleeting")
        found.statuses["late"] = [chat(gateway, "Capi", "late") for _ in range(8)]
        found.statuses["shaky"] = [chat(gateway, "Capi", "shaky") for _ in range(24)]
        found.gone += until(lambda: rows(gateway, "incidents?model=fleeting"))
        look("fleeting")
        capi.offers["fleeting"] = fleeting
        until(lambda: rows(gateway, "incidents?model=fleeting")[0]["ended_at"])
        look("fleeting")
        found.changes = rows(gateway, "changes?model=fleeting")
        clock.forward(400)
        until(lambda: row(gateway, "Capi/late")["status"] == "active")
        look("late", "shaky")
        del capi.offers["fleeting"]
        until(lambda: row(gateway, "Capi/fleeting")["status"] == "down")
        clock.forward(3 * 3600)
        until(lambda: not is_listed(gateway, "Capi/fleeting"))
    return found


@dataclass
class Stories:
    outage: Future[Outage]
    later: Future[Later]


@pytest.fixture(scope="module", autouse=True)
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    """They begin with the first test: all of them wait most of the time."""
    with ThreadPoolExecutor(2) as pool:
        yield Stories(
            pool.submit(outage, tmp_path_factory.mktemp("outage")),
            pool.submit(later, tmp_path_factory.mktemp("later")),
        )


def fails(found: Json) -> str:
    return str(found["reason"]) if found["verdict"] == "failed" else ""


def lacks(capability: str, found: Json) -> str:
    return str(found["withdrawn"].get(capability, "")) if found["verdict"] == "passed" else ""


def flag(name: str, found: Json) -> str:
    return str(found["flags"].get(name, ""))


LIES: dict[str, tuple[Callable[[Json], str], str]] = {
    "Lying/blind": (partial(lacks, "vision"), "and said “The number is 407.”"),
    "Lying/prosaic": (partial(lacks, "tools"), "it answered in prose: “Of course!"),
    "Lying/fencing": (partial(lacks, "json_schema"), "its JSON stands in a fence of backticks"),
    "Lying/at-once": (partial(lacks, "streaming"), "its whole answer comes as one piece"),
    "Lying/breaks-off": (partial(lacks, "streaming"), "its stream ends without a finish"),
    "Lying/painter": (fails, "the picture is cut off"),
    "Lying/tts-mute": (fails, "the sound is silent"),
    "Lying/whisper-deaf": (fails, "it heard “Buy our carpets today.”"),
    "Lying/embed-alike": (fails, "it sends the same vector for different sentences"),
    "Lying/polite": (fails, "it answers 200 with an error: No capacity left."),
    "Lying/portal": (fails, "its answer is not JSON of that kind: <!DOCTYPE html>"),
    "Lying/silent": (fails, "its answer is empty"),
    "Lying/gpt-4o": (partial(flag, "impostor"), "says that smollm2-135m has answered"),
    "Lying/gpt-4o-mini": (partial(flag, "impostor"), "not counted as by that model's tokenizer"),
    "Mimic/gpt-4o": (partial(flag, "impostor"), "that model reaches 6.5 at least"),
    "Third/house-model": (partial(flag, "impostor"), "and 10.0 at "),
}
"""Where each lie shows, and in which words. The others' scores are known on the second day."""


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_and_the_reason_told(days: Days, name: str) -> None:
    reason, words = LIES[name]
    (result,) = (
        one for one in days[2].run["results"] if f"{one['provider']}/{one['model']}" == name
    )
    for found in (result, days[2][name], verified(days.gateway, *name.split("/"))):
        assert words in reason(found)


@pytest.mark.parametrize("name", LIES)
def test_callers_are_not_told_the_lie(days: Days, name: str) -> None:
    found, shown = days[2][name], days[2].shown[name]
    assert shown["last_verified"] is not None
    if found["verdict"] == "failed":
        assert (shown["status"], shown["latency_ms"]) == ("down", None)
    elif found["withdrawn"]:
        assert shown["status"] == "degraded"
        assert not {*found["withdrawn"]} & {*shown["capabilities"]}
    elif "tokenizer" not in found["flags"]["impostor"]:
        assert shown["quality_score"] < 2.0
    listed = days.gateway.ask("/v1/models", key=None).json()["data"]
    names = {f"{one['provider']}/{one['id']}" for one in listed}
    assert (name in names) == (found["verdict"] == "passed")


def test_who_is_honest_is_accused_of_nothing(days: Days) -> None:
    for day in days.days[:2]:
        honest = {name: one for name, one in day.known.items() if name.startswith("Honest/")}
        assert len(honest) == 7
        for name, found in honest.items():
            told = (found["verdict"], found["reason"], found["withdrawn"], found["flags"])
            assert told == ("passed", None, {}, {}), name
            shown = day.shown[name]
            assert (shown["status"], shown["last_verified"] is not None) == ("active", True)
            assert isinstance(shown["latency_ms"], int)
    for name in ("sage", "gpt-4o"):
        shown = days[1].shown[f"Honest/{name}"]
        assert {*shown["capabilities"]} == {*ALL} == {*days[1][f"Honest/{name}"]["proven"]}
        assert shown["quality_score"] == 10.0


def test_another_model_is_noticed_the_next_day_and_cleared_when_the_old_one_is_back(
    days: Days,
) -> None:
    flags = [
        [flag("drift", days[day][f"Changing/{model}"]) for day in (1, 2, 3)]
        for model in ("loud", "quiet", "steady")
    ]
    loud, quiet, steady = flags
    assert "it calls itself qwen2.5-3b, and loud before" in loud[1]
    assert "answers are unlike the ones before, and 6 of them the same when asked again" in quiet[1]
    assert [loud[0], loud[2], quiet[0], quiet[2], *steady] == [""] * 7
    for model in ("loud", "quiet"):
        told = rows(days.gateway, f"changes?provider=Changing&model={model}")
        kinds = [one["kind"] for one in told if one["field"] == "drift"]
        assert kinds == ["cleared", "flagged"]


def test_operators_see_the_lies_on_the_command_line(days: Days) -> None:
    listed = days.gateway.command("models", "list", "--status", "all").stdout.splitlines()
    told = {f"{cells[1]}/{cells[0]}": cells for line in listed[1:] if (cells := line.split("\t"))}
    for name, found in days[2].known.items():
        assert told[name][7] == days[2].shown[name]["status"]
        if not name.startswith("Changing/"):
            assert told[name][8] == ",".join(found["flags"])
    diff = days.gateway.command("models", "diff").stdout
    for words in (
        "Lying/blind: vision is withdrawn: it was shown",
        "Lying/painter fails: the picture is cut off",
        "Mimic/gpt-4o is flagged: impostor: its quality is 0.0",
        "Changing/quiet is flagged: drift: 6 of 6 answers",
        "Changing/quiet is not flagged any more: drift",
    ):
        assert words in diff
    incidents = days.gateway.command("models", "incidents", "--open").stdout
    down = {name for name, found in days[2].known.items() if found["verdict"] == "failed"}
    table = [line.split("\t") for line in incidents.splitlines()[1:]]
    assert {f"{cells[2]}/{cells[3]}": cells[6] for cells in table} == {
        name: days[1][name]["reason"] for name in down
    }


def test_who_wants_fewer_requests_is_asked_more_slowly_and_is_not_down(days: Days) -> None:
    waits = days.street["Busy"].asked_of("waits")
    gaps = [later.at - one.at for one, later in pairwise(waits)]
    assert min(gaps[:2]) >= 0.99, "a second, on a clock that ticks in milliseconds"
    assert days[1]["Busy/waits"]["verdict"] == "passed"
    assert days[1].shown["Busy/waits"]["status"] == "active"


def test_who_can_not_be_asked_today_keeps_the_word_of_yesterday(days: Days) -> None:
    results = {one["model"]: one for one in days[2].run["results"]}
    assert results["leaves"]["verdict"] == "unsure"
    assert "it wants fewer requests" in results["leaves"]["reason"]
    assert days[2].run["counts"]["unsure"] == 1
    assert days[2]["Leaving/leaves"] == days[1]["Leaving/leaves"]
    assert days[2]["Leaving/leaves"]["verdict"] == "passed"
    shown = [day.shown["Leaving/leaves"] for day in days.days]
    assert [one["status"] for one in shown] == ["active"] * 3
    assert shown[1]["last_verified"] == shown[0]["last_verified"] is not None


def test_what_breaks_after_its_verification_is_down_within_seconds_and_back_as_soon(
    stories: Stories,
) -> None:
    found = stories.outage.result()
    assert (found.before["status"], found.before["quality_score"]) == ("active", 10.0)
    assert found.seconds["down"] < 10.0
    assert found.seconds["active"] < 10.0
    assert '"id":"night"' not in found.lists[0]
    began, over = found.incidents
    assert (began["source"], began["ended_at"]) == ("traffic", None)
    assert "The engine is on fire." in began["why"]
    assert over["id"] == began["id"]
    assert over["began_at"] == began["began_at"] < over["ended_at"]
    assert any("night\t" in line and "on fire" in line for line in found.table.splitlines())


def test_what_failed_is_tried_again(stories: Stories) -> None:
    found = stories.outage.result()
    results = {one["model"]: one for one in found.first["results"]}
    assert (results["phoenix"]["verdict"], results["phoenix"]["reason"]) == (
        "failed",
        "“The engine is on fire.”",
    )
    assert [one["model"] for one in found.rechecked["results"]] == ["phoenix"]
    assert [one["kind"] for one in found.recovered if one["kind"] != "added"] == [
        "recovered",
        "failed",
    ]
    assert [one["ended_at"] is not None for one in found.risen] == [True]


def test_a_provider_that_is_not_to_be_probed_is_asked_only_when_somebody_asks(
    stories: Stories,
) -> None:
    found = stories.outage.result()
    assert {one["provider"] for one in found.first["results"]} == {"Capi", "Dear"}
    unasked, asked = found.private
    assert unasked == 0
    assert asked > 10


def test_a_verification_costs_no_more_than_it_may_and_tells_what_it_left_out(
    stories: Stories,
) -> None:
    found = stories.outage.result()
    assert 0.0 < found.first["cost_usd"] <= BUDGET
    assert found.first["cost_usd"] == pytest.approx(found.dear["costs"]["cost_usd"])
    checks = {one["name"]: one for one in found.dear["costs"]["checks"]}
    assert checks["answers"]["verdict"] == "passed"
    left_out = [one for one in checks.values() if one["verdict"] == "skipped"]
    assert left_out
    for one in (*left_out, found.dear["too-dear"]):
        assert "more than is left of the budget" in one["reason"]
        assert one["cost_usd"] == 0.0
    assert found.dear["too-dear"]["verdict"] == "skipped"


def test_where_nothing_is_to_be_probed_only_a_verification_that_is_asked_for_asks(
    stories: Stories,
) -> None:
    found = stories.later.result()
    assert found.unasked == 0
    assert found.asked > 30


def test_what_failed_is_listed_again_once_callers_have_answers_of_it(stories: Stories) -> None:
    found = stories.later.result()
    before, after = found.rows["late"]
    assert found.statuses["late"] == [200] * 8
    assert (before["status"], after["status"]) == ("down", "active")
    assert after["last_verified"] == before["last_verified"]


def test_what_fails_one_time_in_four_is_degraded(stories: Stories) -> None:
    found = stories.later.result()
    before, after = found.rows["shaky"]
    assert {*found.statuses["shaky"]} == {200}, "they are asked again"
    assert (before["status"], after["status"]) == ("active", "degraded")


def test_what_its_provider_lists_no_more_is_down_and_leaves_in_the_end(stories: Stories) -> None:
    found = stories.later.result()
    assert [one["status"] for one in found.rows["fleeting"]] == ["active", "down", "active"]
    (incident,) = found.gone
    assert (incident["source"], incident["ended_at"]) == ("list", None)
    assert incident["why"] == "its provider does not list it any more"
    kinds = [one["kind"] for one in found.changes][::-1]
    assert kinds == ["added", "gone", "returned"]
