import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from structlog.testing import capture_logs

from manyways.catalog.catalog import AT_ONCE, FIRST_RETRY, Catalog, Claim
from manyways.catalog.settings import Settings
from manyways.catalog.trouble import Trouble
from manyways.catalog.verified import Verified
from manyways.errors import AttemptFailed, Refusal
from manyways.types import Model, ModelEntry, Provider

CAPI = Provider(name="Capi", protocol="openai", base_url="http://capi/v1")
SPACE = Provider(name="Space", protocol="openai", base_url="http://space/v1")
LISTED = Provider(
    name="Listed", protocol="openai", models=(ModelEntry(id="one"), ModelEntry(id="two"))
)
LOCAL = Provider(name="Embedded", protocol="local", models=(ModelEntry(id="small"),))


def listing(*ids: str, **more: object) -> bytes:
    return msgspec.json.encode({"data": [{"id": name, **more} for name in ids]})


REFUSED = AttemptFailed("connect", "nobody listens there")


class Providers:
    """Fake providers: each answers its script's next line, and then the last one for ever.

    A provider in `held` does not answer until it is let go.
    """

    def __init__(self, **scripts: list[bytes | Exception]) -> None:
        self.scripts = scripts
        self.held: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    async def ask(self, provider: Provider) -> bytes:
        self.asked.append(provider.name)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if provider.name in self.held:
                await self.held[provider.name].wait()
        finally:
            self.at_once -= 1
        script = self.scripts[provider.name]
        said = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(said, Exception):
            raise said
        return said


class Clock:
    """Virtual time: sleepers wake in order when the test lets time pass."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.waits: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, len(self.waits), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        until = self.now + seconds
        await calm()
        while self._sleepers and min(self._sleepers)[0] <= until:
            self._sleepers.sort(key=lambda sleeper: sleeper[:2])
            self.now, _, woken = self._sleepers.pop(0)
            woken.set_result(None)
            await calm()
        self.now = until


async def calm() -> None:
    """Let every task run until it waits for something."""
    for _ in range(50):
        await asyncio.sleep(0)


def middle(low: float, high: float) -> float:
    return (low + high) / 2


class World:
    """A catalog among fake providers in virtual time."""

    def __init__(
        self,
        providers: list[Provider],
        *,
        interval: float = 900.0,
        jitter: Callable[[float, float], float] = middle,
        remembered: tuple[Claim, ...] = (),
        forget_after: float = 0.0,
        **scripts: list[bytes | Exception],
    ) -> None:
        self.clock = Clock()
        self.providers = Providers(**scripts)
        self.heard: list[str] = []
        self.catalog = Catalog(
            Settings(discovery_interval=interval, forget_after=forget_after),
            providers,
            self.providers.ask,
            clock=self.clock,
            sleep=self.clock.sleep,
            jitter=jitter,
            remembered=remembered,
        )
        self.catalog.on_change(self.heard.append)

    def ids(self, name: str) -> list[str]:
        return [model.id for model in self.catalog.snapshot.of_provider(name)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.catalog.run())
        await calm()
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


# Before anybody has answered


def test_what_the_configuration_lists_is_there_at_once() -> None:
    world = World([CAPI, LISTED, LOCAL])
    assert world.catalog.snapshot.provider_names == ("Capi", "Listed", "Embedded")
    assert [(m.provider, m.id) for m in world.catalog.snapshot.models] == [
        ("Listed", "one"),
        ("Listed", "two"),
        ("Embedded", "small"),
    ]
    assert world.catalog.snapshot.made_at == 1_000_000.0


def claim(provider: str, model_id: str, gone_since: float | None = None) -> Claim:
    row = Model(id=model_id, provider=provider, upstream_id=model_id, created=5)
    return Claim(model=row, gone_since=gone_since)


def test_rows_of_an_earlier_life_keep_their_date() -> None:
    first, second = World([LISTED], remembered=(claim("Listed", "one"),)).catalog.snapshot.models
    assert (first.created, second.created) == (5, 1_000_000)


async def test_what_is_remembered_is_served_until_the_provider_answers() -> None:
    remembered = (claim("Capi", "a"), claim("Capi", "z"))
    world = World([CAPI], remembered=remembered, forget_after=60.0, Capi=[listing("a", "b")])
    assert world.ids("Capi") == ["a", "z"]
    assert world.catalog.snapshot.untold == (), "it has told them, in an earlier life"
    await world.catalog.refresh()
    assert [(m.id, m.created, m.status) for m in world.catalog.snapshot.models] == [
        ("a", 5, "active"),
        ("b", 1_000_000, "active"),
        ("z", 5, "down"),
    ]


# What is not listed any more


async def test_a_model_that_is_not_listed_any_more_is_down_for_a_while_and_then_leaves() -> None:
    lists: list[bytes | Exception] = [listing("a", "b"), *[listing("a")] * 3]
    world = World([CAPI], forget_after=600.0, Capi=lists)
    await world.catalog.refresh()
    await world.catalog.refresh()
    gone = world.catalog.snapshot.by_id("b")[0]
    assert (gone.status, gone.asked_last) == ("down", True)
    world.clock.now += 599
    await world.catalog.refresh()
    assert world.ids("Capi") == ["a", "b"]
    world.clock.now += 1
    await world.catalog.refresh()
    assert world.ids("Capi") == ["a"]
    assert world.heard == ["Capi"] * 3, "the third time, nothing had changed"


async def test_a_model_that_is_listed_again_is_what_it_was() -> None:
    lists: list[bytes | Exception] = [listing("a", "b"), listing("a"), listing("a", "b")]
    world = World([CAPI], forget_after=60.0, Capi=lists)
    for _ in range(3):
        await world.catalog.refresh()
    back = world.catalog.snapshot.by_id("b")[0]
    assert (back.status, back.asked_last, back.created) == ("active", False, 1_000_000)


async def test_a_model_that_the_configuration_lists_never_leaves() -> None:
    world = World([LISTED], Listed=[listing("one")])
    await world.catalog.refresh()
    assert [m.status for m in world.catalog.snapshot.models] == ["active", "active"]


# What was found out


def test_what_was_verified_is_told_and_what_nobody_has_is_not() -> None:
    world = World([LISTED])
    found = [
        Verified(provider="Listed", model="one", at=1_000_000.0, verdict="passed", latency_ms=120),
        Verified(provider="Listed", model="left", at=1_000_000.0, verdict="passed"),
        Verified(provider="Nobody", model="one", at=1_000_000.0, verdict="passed"),
    ]
    world.catalog.learn(found)
    one, two = world.catalog.snapshot.models
    assert (one.latency_ms, one.last_verified) == (120, "1970-01-12 13:46:40")
    assert (two.latency_ms, two.last_verified) == (None, None)
    before = world.catalog.snapshot
    world.catalog.learn(found)
    assert world.catalog.snapshot is before, "nothing new is no new snapshot"


async def test_what_was_verified_outlives_the_next_list() -> None:
    world = World([CAPI], Capi=[listing("a"), listing("a", "b")])
    await world.catalog.refresh()
    world.catalog.learn([Verified(provider="Capi", model="a", at=1.0, verdict="failed")])
    await world.catalog.refresh()
    assert [m.status for m in world.catalog.snapshot.models] == ["down", "active"]


def test_what_is_left_alone_is_down_and_yet_asked_like_others() -> None:
    world = World([LISTED])
    world.catalog.see({}, {("Listed", "one")})
    one, two = world.catalog.snapshot.models
    assert (one.status, one.asked_last, two.status) == ("down", False, "active")
    world.catalog.see({}, ())
    assert world.catalog.snapshot.models[0].status == "active"


# Who has not told its models


async def test_whoever_is_asked_for_its_models_is_untold_until_it_has_told_them() -> None:
    world = World([CAPI, SPACE, LISTED, LOCAL], Capi=[REFUSED, listing("a"), REFUSED], Space=[b""])
    assert list(world.catalog.snapshot.untold) == ["Capi", "Space"]
    begun = world.catalog.snapshot
    await world.catalog.refresh("Capi")
    assert world.catalog.snapshot is begun
    await world.catalog.refresh("Capi")
    assert list(world.catalog.snapshot.untold) == ["Space"]
    await world.catalog.refresh("Capi")
    assert list(world.catalog.snapshot.untold) == ["Space"]  # it keeps what it told


async def test_a_provider_that_says_it_has_no_models_has_told_them() -> None:
    world = World([CAPI], Capi=[listing()])
    with capture_logs() as lines:
        await world.catalog.refresh()
    assert world.catalog.snapshot.untold == ()
    assert lines == []


async def test_troubles_tell_why_and_since_when_until_they_are_over() -> None:
    odd = AttemptFailed("provider_error", "overloaded", status=503)
    world = World([CAPI, LISTED], Capi=[REFUSED, odd, listing("a")], Listed=[REFUSED])
    assert world.catalog.troubles == {}
    await world.catalog.refresh()
    refused = Trouble(reason="nobody listens there", since=1_000_000.0)
    assert world.catalog.troubles == {"Capi": refused, "Listed": refused}
    world.clock.now += 60
    await world.catalog.refresh("Capi")
    assert world.catalog.troubles["Capi"] == Trouble(
        reason="HTTP 503: overloaded", since=1_000_000.0
    )
    await world.catalog.refresh("Capi")
    assert list(world.catalog.troubles) == ["Listed"]


# Refreshing


async def test_refreshing_asks_every_provider_and_says_how_it_went() -> None:
    world = World(
        [CAPI, SPACE, LOCAL, LISTED], Capi=[listing("a", "b")], Space=[REFUSED], Listed=[b"<html>"]
    )
    outcomes = await world.catalog.refresh()
    assert [(o.provider, o.models, o.error) for o in outcomes] == [
        ("Capi", 2, None),
        ("Space", 0, "nobody listens there"),
        ("Embedded", 1, None),
        ("Listed", 2, "the answer is a web page, not a list of models"),
    ]
    assert sorted(world.providers.asked) == ["Capi", "Listed", "Space"]


async def test_refreshing_one_provider_asks_no_other() -> None:
    world = World([CAPI, SPACE], Capi=[listing("a")], Space=[listing("b")])
    await world.catalog.refresh("Space")
    assert world.providers.asked == ["Space"]
    assert world.ids("Space") == ["b"]


async def test_refreshing_an_unknown_provider_is_refused() -> None:
    with pytest.raises(Refusal, match="Capi") as refusal:
        await World([CAPI]).catalog.refresh("Kapi")
    assert refusal.value.code == "provider_not_found"


async def test_a_configured_list_stays_the_list_and_gains_details() -> None:
    world = World([LISTED], Listed=[listing("two", "three", context_length=8192)])
    await world.catalog.refresh()
    assert [(m.id, m.context_window) for m in world.catalog.snapshot.models] == [
        ("one", None),
        ("two", 8192),
    ]


async def test_a_provider_that_fails_keeps_its_models() -> None:
    world = World([CAPI], Capi=[listing("a"), REFUSED])
    await world.catalog.refresh()
    kept = world.catalog.snapshot
    await world.catalog.refresh()
    assert world.catalog.snapshot is kept
    assert world.ids("Capi") == ["a"]


async def test_the_snapshot_is_swapped_whole_and_only_when_something_changed() -> None:
    world = World([CAPI, SPACE], Capi=[listing("a"), listing("a"), listing("b")], Space=[REFUSED])
    first = world.catalog.snapshot
    await world.catalog.refresh()
    second = world.catalog.snapshot
    assert first.models == ()
    assert second is not first
    world.clock.now += 60
    await world.catalog.refresh()
    assert world.catalog.snapshot is second
    await world.catalog.refresh()
    assert [m.id for m in second.models] == ["a"]
    assert [m.id for m in world.catalog.snapshot.models] == ["b"]
    assert world.catalog.snapshot.made_at == 1_000_060.0


async def test_readers_see_the_old_catalog_or_the_new_one_and_nothing_between() -> None:
    old, new = ("a", "b", "c"), ("b", "d")
    world = World([CAPI], Capi=[listing(*old), listing(*new)])
    await world.catalog.refresh()
    seen = set()
    refreshing = asyncio.create_task(world.catalog.refresh())
    while not refreshing.done():
        seen.add(tuple(world.ids("Capi")))
        await asyncio.sleep(0)
    seen.add(tuple(world.ids("Capi")))
    assert seen == {old, new}


async def test_an_earlier_answer_never_replaces_a_later_one() -> None:
    world = World([CAPI], Capi=[listing("old"), listing("new")])
    gate = world.providers.held["Capi"] = asyncio.Event()
    first = asyncio.create_task(world.catalog.refresh())
    second = asyncio.create_task(world.catalog.refresh())
    await calm()
    assert world.providers.asked == ["Capi"]
    gate.set()
    await asyncio.gather(first, second)
    assert world.ids("Capi") == ["new"]


async def test_what_nobody_expected_of_one_provider_costs_the_others_nothing() -> None:
    odd = ZeroDivisionError("odd")
    world = World([CAPI, SPACE], Capi=[odd, listing("late")], Space=[listing("a"), listing("b")])
    with capture_logs() as logs:
        async with world.running():
            await world.clock.advance(0)
            assert (world.ids("Capi"), world.ids("Space")) == ([], ["a"])
            await world.clock.advance(FIRST_RETRY)
            assert world.ids("Capi") == ["late"]
            await world.clock.advance(900)
            assert world.ids("Space") == ["b"]
    assert [line["exc_info"] for line in logs if "exc_info" in line] == [odd]
    assert (await World([CAPI], Capi=[odd]).catalog.refresh())[0].error is not None


async def test_those_that_hang_do_not_keep_others_waiting() -> None:
    many = [Provider(name=f"P{n}", protocol="openai") for n in range(40)]
    world = World(many)
    world.providers.scripts = {p.name: [listing("m")] for p in many}
    world.providers.held = {p.name: asyncio.Event() for p in many[:-1]}
    async with world.running():
        await calm()
        assert world.ids("P39") == ["m"]


async def test_only_so_many_providers_are_asked_at_once() -> None:
    many = [Provider(name=f"P{n}", protocol="openai") for n in range(3 * AT_ONCE)]
    world = World(many)
    world.providers.scripts = {p.name: [listing("m")] for p in many}
    gate = asyncio.Event()
    world.providers.held = {p.name: gate for p in many}
    refreshing = asyncio.create_task(world.catalog.refresh())
    await calm()
    assert world.providers.at_once == AT_ONCE
    gate.set()
    assert len(await refreshing) == 3 * AT_ONCE
    assert world.providers.most_at_once == AT_ONCE


# The loop


async def test_every_provider_is_asked_at_start_and_again_every_interval() -> None:
    world = World(
        [CAPI, SPACE, LOCAL], interval=100, Capi=[listing("a"), listing("b")], Space=[listing("s")]
    )
    async with world.running():
        assert sorted(world.providers.asked) == ["Capi", "Space"]
        assert (world.ids("Capi"), world.ids("Embedded")) == (["a"], ["small"])
        await world.clock.advance(99)
        assert len(world.providers.asked) == 2
        await world.clock.advance(1)
        assert len(world.providers.asked) == 4
        assert world.ids("Capi") == ["b"]


async def test_a_slow_provider_holds_up_no_other() -> None:
    world = World([CAPI, SPACE], Capi=[listing("a")], Space=[listing("s")])
    world.providers.held["Capi"] = asyncio.Event()
    async with world.running():
        assert (world.ids("Capi"), world.ids("Space")) == ([], ["s"])
        await world.clock.advance(900)
        assert world.providers.asked.count("Space") == 2


async def test_a_provider_that_fails_is_asked_again_later_and_later() -> None:
    world = World([CAPI], interval=60, Capi=[*[REFUSED] * 6, listing("a"), REFUSED, listing("a")])
    async with world.running():
        for _ in range(8):
            await world.clock.advance(60)
    assert world.clock.waits[:6] == [5, 10, 20, 40, 60, 60]
    assert world.clock.waits[6] == 60  # it answered
    assert world.clock.waits[7] == FIRST_RETRY  # and one failure is the first again


async def test_a_provider_that_never_answers_does_not_end_the_loop() -> None:
    world = World([CAPI], interval=10, Capi=[REFUSED])
    async with world.running():
        await world.clock.advance(20_000)
        assert len(world.providers.asked) > 1100


async def test_waits_are_spread_so_that_providers_are_not_asked_in_step() -> None:
    low = World([CAPI], interval=100, jitter=lambda low, _: low, Capi=[listing("a")])
    high = World([CAPI], interval=100, jitter=lambda _, high: high, Capi=[listing("a")])
    async with low.running(), high.running():
        pass
    assert low.clock.waits == pytest.approx([90])
    assert high.clock.waits == pytest.approx([110])


async def test_with_nobody_to_ask_the_loop_ends_at_once() -> None:
    await World([LOCAL]).catalog.run()


async def test_a_loop_that_is_stopped_in_the_middle_of_asking_leaves_nothing_behind() -> None:
    world = World([CAPI], Capi=[listing("a")])
    world.providers.held["Capi"] = asyncio.Event()
    async with world.running():
        assert world.providers.at_once == 1
    assert world.providers.at_once == 0
    assert len(asyncio.all_tasks()) == 1
    assert (
        repr(world.catalog) == "<Catalog <Snapshot 0 models: Capi 0>, 1 not asked yet, 0 failing>"
    )


# Waiting for the first answer


async def test_whoever_waits_for_the_first_answer_sees_its_models() -> None:
    world = World([CAPI, SPACE], Capi=[listing("a")], Space=[listing("s")])
    gate = world.providers.held["Capi"] = asyncio.Event()
    async with world.running():
        waiting = asyncio.create_task(world.catalog.settled(["Capi"], 60))
        await calm()
        assert not waiting.done()
        gate.set()
        assert await waiting is True
        assert world.ids("Capi") == ["a"]


async def test_a_failure_settles_too() -> None:
    world = World([CAPI], Capi=[REFUSED])
    async with world.running():
        assert await world.catalog.settled(["Capi"], 60) is True


async def test_nobody_waits_longer_than_the_limit() -> None:
    world = World([CAPI, SPACE], Capi=[listing("a")], Space=[listing("s")])
    world.providers.held["Capi"] = asyncio.Event()
    async with world.running():
        assert await world.catalog.settled(["Space", "Capi"], 0.0) is False
        assert await world.catalog.settled(["Space"], 0.0) is True


async def test_nobody_waits_for_what_is_already_known_or_never_comes() -> None:
    world = World([CAPI, LISTED, LOCAL])
    assert await world.catalog.settled(["Listed", "Embedded", "nobody"], 0.0) is True
    assert await world.catalog.settled([], 0.0) is True


# What is told


async def test_changes_are_told_once_and_in_plain_words() -> None:
    world = World(
        [CAPI],
        Capi=[
            listing("a", "b"),
            listing("b", "c"),
            listing("b", "c"),
            REFUSED,
            REFUSED,
            listing("c"),
        ],
    )
    told = []
    for _ in range(6):
        with capture_logs() as lines:
            await world.catalog.refresh()
        told.append(lines)
    assert [[(line["log_level"], line["event"]) for line in lines] for lines in told] == [
        [("info", "The models of Capi have changed")],
        [("info", "The models of Capi have changed")],
        [],
        [("warning", "Capi does not tell its models")],
        [("debug", "Capi does not tell its models")],
        [("info", "Capi tells its models again"), ("info", "The models of Capi have changed")],
    ]
    assert (told[1][0]["added"], told[1][0]["removed"]) == (["c"], ["a"])
    assert told[3][0]["reason"] == "nobody listens there"


async def test_the_repr_tells_how_things_stand() -> None:
    world = World([CAPI, SPACE, LOCAL], Capi=[REFUSED])
    await world.catalog.refresh("Capi")
    assert (
        repr(world.catalog)
        == "<Catalog <Snapshot 1 models: Capi 0, Space 0, Embedded 1>, 1 not asked yet, 1 failing>"
    )


# Settings


def test_the_settings_begin_as_the_contract_has_them() -> None:
    settings = Settings()
    assert (settings.title, settings.refresh, settings.timezone) == (
        "Manyways",
        "02:00",
        "Europe/Moscow",
    )
    assert (settings.probe, settings.discovery_interval) == (True, 900.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"refresh": "24:00"},
        {"refresh": "2:00"},
        {"refresh": "02:00\n"},
        {"timezone": "Europe/Mosow"},
        {"timezone": "../etc/passwd"},
        {"timezone": ""},
        {"discovery_interval": 0.0},
        {"discovery_interval": float("nan")},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert(wrong, Settings)
