"""Limits from outside, over sockets: in one process, in two workers, on two nodes.

`RUNS` in the environment says how often a crowd comes, with a fresh key each time.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.chat_wall import GOOD_WHOLE, ChatWall, chat_wall
from tests.support.company import Company, company
from tests.support.crowd import Heard, chat, crowd, waiting_crowd
from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.valkey import until
from tests.support.wall import Moment, Stall, WaitFor, whole

pytestmark = pytest.mark.process

RUNS = int(os.environ.get("RUNS", "1"))
CROWD = 1000
LIMIT = 30
CHAT = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
"""Reserves 108 tokens, uses 10, of which 7 are paid for."""
FAILS = {**CHAT, "model": "broken", "provider": {"allow_fallbacks": False}}

Limits = Mapping[str, Any]

KINDS: dict[str, tuple[Limits, str]] = {
    "requests": ({"requests": LIMIT, "window": "1h"}, "rate_limit_exceeded"),
    "tokens": ({"tokens": LIMIT * 110, "tokens_window": "1h"}, "rate_limit_exceeded"),
    "concurrent": ({"concurrent": LIMIT}, "concurrent_requests"),
    "quota of requests": ({"quota": [{"requests": LIMIT, "per": "ever"}]}, "quota_exceeded"),
    "quota of tokens": ({"quota": [{"tokens": LIMIT * 110, "per": "ever"}]}, "quota_exceeded"),
    "quota of cost": ({"quota": [{"cost": LIMIT * 1.0, "per": "ever"}]}, "quota_exceeded"),
}
"""Each lets in 30 of `CHAT` that run at the same time, and refuses with that code."""


NEAR_AND_FAR = pytest.mark.parametrize("place", ["one process", "two nodes"], indirect=True)
"""Workers of one node are to each other as nodes are."""


@dataclass(frozen=True)
class Place:
    """Gateways that count together, and the one where keys are made."""

    desk: Gateway
    urls: list[str]
    company: Company | None = None

    def key(self, limits: Limits, **more: object) -> str:
        """The secret of a new key."""
        return str(self.made(limits, **more)["key"])

    def made(self, limits: Limits, **more: object) -> dict[str, Any]:
        answer = self.desk.ask("/admin/v1/keys", {"type": "open", "limits": limits, **more})
        assert answer.status == 201, answer.body
        found: dict[str, Any] = answer.json()
        return found


def config(wall: ChatWall) -> str:
    """One provider with two models, each token of an answer for a cent; keys without limits.
    As one type limits tokens, what counts them is loaded at the start."""
    return (
        "[keys.types.open]\n[keys.types.counted]\ntokens = 1\ntokens_window = '1h'\n"
        "[routing]\nretries = 0\n"
        + provider(wall.wall.url, "broken", "m")
        + "pricing = { prompt = 0.0, completion = 0.01 }\n"
    )


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        chats.models["broken"] = whole(b"{}", 503)
        yield chats


@pytest.fixture(scope="module", params=["one process", "two workers", "two nodes"])
def place(
    request: pytest.FixtureRequest, wall: ChatWall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("place")
    with contextlib.ExitStack() as stack:
        if request.param == "one process":
            gateway = stack.enter_context(running_gateway(home, config(wall)))
            yield Place(gateway, [gateway.root])
        else:
            nodes, workers = (1, 2) if request.param == "two workers" else (2, 1)
            several = stack.enter_context(company(home, config(wall), nodes=nodes, workers=workers))
            yield Place(several.nodes[0], several.urls, several)


@pytest.fixture(autouse=True)
def _answering(wall: ChatWall) -> None:
    wall.answer = GOOD_WHOLE
    wall.wall.requests.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_thousand_at_once_exactly_as_many_get_in_as_may(
    place: Place, wall: ChatWall, kind: str
) -> None:
    limits, code = KINDS[kind]
    for _ in range(RUNS):
        wall.wall.requests.clear()
        heard = held(place, wall, place.key(limits), CROWD)
        refused = [one for one in heard if one.status != 200]
        assert len(heard) - len(refused) == LIMIT == len(wall.requests)
        assert {(one.status, one.code) for one in refused} == {(429, code)}


def held(place: Place, wall: ChatWall, key: str, count: int) -> list[Heard]:
    """What a crowd hears whose answers wait until each has been let in or refused."""
    gate = Moment()
    wall.answer = (WaitFor(gate), *GOOD_WHOLE)
    with waiting_crowd(place.urls, count, CHAT, key) as waiting:
        try:
            until(
                lambda: len(waiting.heard) + len(wall.requests) >= count,
                30.0,
                "some were neither let in nor refused",
            )
        finally:
            gate.set()
    return waiting.heard


@NEAR_AND_FAR
def test_what_was_reserved_becomes_what_was_used(place: Place, wall: ChatWall) -> None:
    """Of 3300 tokens, 300 are gone when 30 answers are there: 27 times 108 are left."""
    key = place.key(KINDS["tokens"][0])
    assert statuses(held(place, wall, key, 40)) == {200: 30, 429: 10}
    wall.wall.requests.clear()
    assert statuses(held(place, wall, key, 40)) == {200: 27, 429: 13}


@NEAR_AND_FAR
def test_of_many_refused_at_once_no_more_than_the_limit_are_told_the_same_hour(
    place: Place,
) -> None:
    heard = crowd(place.urls, CROWD, CHAT, place.key(KINDS["requests"][0]))
    hours = Counter(round(one.retry_after / 3600) for one in heard if one.status == 429)
    assert hours == dict.fromkeys(range(1, 33), LIMIT) | {33: CROWD - 33 * LIMIT}


@NEAR_AND_FAR
def test_an_account_is_counted_over_all_its_keys(place: Place) -> None:
    limits = {"requests": LIMIT, "window": "1h"}
    assert place.desk.ask("/admin/v1/accounts", {"name": "ann", "limits": limits}).status == 201
    wide = {"requests": 10 * LIMIT, "window": "1h"}
    keys = [place.key(wide, account="ann") for _ in range(2)]
    heard = crowd(place.urls, 200, CHAT, keys)
    assert statuses(heard) == {200: LIMIT, 429: 200 - LIMIT}


@NEAR_AND_FAR
def test_what_failed_is_given_back(place: Place) -> None:
    key = place.key(KINDS["requests"][0])
    for _ in range(4):
        assert statuses(crowd(place.urls, LIMIT, FAILS, key)) == {503: LIMIT}
    assert statuses(crowd(place.urls, 2 * LIMIT, CHAT, key)) == {200: LIMIT, 429: LIMIT}


@NEAR_AND_FAR
def test_whoever_leaves_gives_its_place_back(place: Place, wall: ChatWall) -> None:
    key = place.key(KINDS["concurrent"][0])
    wall.answer = (Stall(),)
    with contextlib.ExitStack() as leaving:
        for _ in range(LIMIT):
            leaving.enter_context(replace(place.desk, key=key).begin(CHAT))
        until(lambda: len(wall.requests) == LIMIT, 10.0, "not all get in")
        assert place.desk.chat(CHAT, key=key).error["code"] == "concurrent_requests"
    until(lambda: gets_in(place, wall, key, LIMIT), 5.0, "places stay taken")


def gets_in(place: Place, wall: ChatWall, key: str, count: int) -> bool:
    """Whether so many may run at the same time."""
    wall.wall.requests.clear()
    return statuses(held(place, wall, key, count)) == {200: count}


@NEAR_AND_FAR
@pytest.mark.parametrize("limits", [{"concurrent": 1}, {"tokens": 10_000, "tokens_window": "1h"}])
async def test_who_asks_one_after_the_other_is_not_in_its_own_way(
    place: Place, limits: Limits
) -> None:
    """What an answer held is free when its last byte is there, whichever node is asked next."""
    key = await asyncio.to_thread(place.key, limits)
    async with aiohttp.ClientSession() as session:
        for number in range(40):
            url = place.urls[number % len(place.urls)]
            assert (await chat(session, url, key, CHAT)).status == 200, number


LONE: list[Limits] = [
    {"requests": 1, "window": "1s"},
    {"requests": 3, "window": "2s"},
    {"tokens": 150, "tokens_window": "2s"},
    {"requests": 2, "window": "1s", "tokens": 200, "tokens_window": "2s"},
]


@NEAR_AND_FAR
async def test_who_waits_as_told_gets_in(place: Place) -> None:
    """A lone caller is never refused twice. Of sixty at once, where twenty may in two seconds,
    each is refused once, and the last wait for two windows."""
    keys = [await asyncio.to_thread(place.key, limits) for limits in LONE for _ in range(3)]
    shared = await asyncio.to_thread(place.key, {"requests": 20, "window": "2s"})
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        crowd_ = [
            group.create_task(obedient(session, place.urls[number % len(place.urls)], shared))
            for number in range(60)
        ]
        for key in keys:
            group.create_task(alone(session, place.urls, key))
    assert Counter(each.result() for each in crowd_) == {(200,): 20, (429, 200): 40}


async def obedient(session: aiohttp.ClientSession, url: str, key: str) -> tuple[int, ...]:
    """What is heard by one who asks, and once more when it was told to."""
    first = await chat(session, url, key, CHAT)
    if first.status == 200:
        return (200,)
    await asyncio.sleep(first.retry_after)
    return (first.status, (await chat(session, url, key, CHAT)).status)


async def alone(session: aiohttp.ClientSession, urls: list[str], key: str) -> None:
    refusals = number = 0
    refused = False
    while refusals < 2:
        number += 1
        heard = await chat(session, urls[number % len(urls)], key, CHAT)
        if heard.status == 200:
            refused = False
            continue
        assert heard.status == 429
        assert not refused, "refused again, though it had waited as it was told"
        refused = True
        refusals += 1
        await asyncio.sleep(heard.retry_after)


@pytest.mark.parametrize("place", ["two nodes"], indirect=True)
def test_a_quota_outlives_what_the_shared_memory_forgets(place: Place) -> None:
    made = place.made(KINDS["quota of requests"][0])
    several = place.company
    assert several is not None
    assert statuses(crowd(place.urls, LIMIT, CHAT, made["key"])) == {200: LIMIT}
    query = "SELECT api_key_id, count(*) FROM usage_stats GROUP BY api_key_id"
    until(
        lambda: (made["id"], LIMIT) in several.rows(query),
        20.0,
        "records do not reach the database",
    )
    several.valkey.ask("FLUSHALL")
    assert statuses(crowd(place.urls, LIMIT, CHAT, made["key"])) == {429: LIMIT}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_hands_nothing_out_anew(
    wall: ChatWall, tmp_path: Path, end: signal.Signals
) -> None:
    """How many a lone caller may: with 308 tokens, or 1.75 USD, until less than what `CHAT`
    reserves is left."""
    may: list[tuple[Limits, int]] = [
        ({"requests": 30, "window": "1h"}, 30),
        ({"tokens": 308, "tokens_window": "1h"}, 21),
        ({"quota": [{"requests": 20, "per": "ever"}]}, 20),
        ({"quota": [{"tokens": 308, "per": "ever"}]}, 21),
        ({"quota": [{"cost": 1.75, "per": "ever"}]}, 11),
    ]
    with running_gateway(tmp_path, config(wall)) as gateway:
        keys = [Place(gateway, []).key(limits) for limits, _ in may]
        for key in keys:
            assert [gateway.chat(CHAT, key=key).status for _ in range(8)] == [200] * 8
        gateway.stop(end)
    with running_gateway(tmp_path, config(wall)) as gateway:
        for key, (_, count) in zip(keys, may, strict=True):
            left = count - 8
            heard = [gateway.chat(CHAT, key=key).status for _ in range(left + 3)]
            assert heard == [200] * left + [429] * 3
        gateway.stop(end)
    with running_gateway(tmp_path, config(wall)) as gateway:
        assert [gateway.chat(CHAT, key=key).status for key in keys] == [429] * len(keys)


def statuses(heard: list[Heard]) -> dict[int, int]:
    return dict(Counter(one.status for one in heard))
