"""The catalog is kept true over restarts, and told alike by all: in virtual time, on real
databases."""

import asyncio
import time

from structlog.testing import capture_logs

from manyways.app.upkeep import FIGURES, Upkeep
from manyways.catalog import listings
from manyways.catalog.figures import GRACE, SLICE
from manyways.routing.candidate import Ticket
from manyways.store import catalog as store
from manyways.store import incidents, verifications
from manyways.types import Model, Usage
from manyways.usage.record import AttemptRecord
from tests.app.life import DAY, Node, World, asked, listed


def shown(node: Node) -> tuple[str, ...]:
    return tuple(f"{row.id} {row.status}" for row in node.catalog.snapshot.models)


def etag(node: Node) -> str:
    return listings.models(node.catalog.snapshot, status="all").etag


def history(world: World) -> list[str]:
    database = world.database()
    rows = database.run(lambda connection: store.changes(connection, limit=100))
    return [f"{row.kind} {row.model}" for row in reversed(rows)]


def attempt(model: str, *, ms: int = 500, outcome: str = "answered") -> AttemptRecord:
    return AttemptRecord(
        provider="Capi",
        model=model,
        upstream_model=model,
        outcome=outcome,
        latency_ms=ms,
        first_token_ms=ms // 2,
        usage=Usage(completion_tokens=100),
        started_at=0.0,
    )


async def beside(upkeep: Upkeep, seconds: float) -> None:
    """Its endless works, for a while."""
    works = (upkeep.follow, upkeep.watch, upkeep.count)
    tasks = [asyncio.ensure_future(work()) for work in works]
    await asyncio.sleep(seconds)
    over = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert over == [], "they go on whatever happens"


# Over restarts


def test_models_are_there_after_a_restart_though_their_provider_is_down(world: World) -> None:
    world.providers = (asked("Space"), listed("Capi", "z", "b"))
    world.lists = {"Space": ["d", "c", "e"]}
    world.broken = {"e"}

    async def story() -> None:
        async with world.node() as node:
            await beside(node.upkeep, 700)
            before = node.catalog.snapshot.models
            tag = etag(node)
        world.lists["Space"] = None
        await asyncio.sleep(10)
        async with world.node() as node:
            assert node.catalog.snapshot.models == before, "from the first moment"
            assert etag(node) == tag
            assert shown(node) == ("c active", "d active", "e down", "z active", "b active")
            await asyncio.sleep(600)
            assert etag(node) == tag, "and nobody who was asked in vain takes them away"

    world.run(story())
    assert history(world).count("added c") == 1
    assert not [line for line in history(world) if line.startswith(("gone", "left", "returned"))]


def test_whatever_order_a_provider_lists_its_models_in_the_catalog_has_one(world: World) -> None:
    world.providers = (asked("Space"),)
    world.lists = {"Space": ["b", "a", "c"]}

    async def story() -> None:
        async with world.node(leads=False) as one:
            await asyncio.sleep(1)
            world.lists["Space"] = ["c", "b", "a"]
            async with world.node("b", leads=False) as other:
                await asyncio.sleep(1)
                assert shown(one) == shown(other) == ("a active", "b active", "c active")

    world.run(story())


def test_a_model_that_disappears_is_down_for_a_week_and_leaves_over_restarts(
    world: World,
) -> None:
    world.providers = (asked("Space"),)
    world.lists = {"Space": ["a", "b", "c"]}

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(100)
        world.lists["Space"] = ["a"]
        for day in range(9):
            if day == 2:
                world.lists["Space"] = ["a", "c"]
            async with world.node() as node:
                await asyncio.sleep(100)
                rows = dict(row.split() for row in shown(node))
            assert rows.get("b") == ("down" if day < 7 else None)
            assert rows["c"] == ("down" if day < 2 else "active")
            await asyncio.sleep(DAY - 50)
        async with world.node():
            await asyncio.sleep(4000)

    world.run(story())
    told = ["gone b", "gone c", "returned c", "left b"]
    assert [line for line in history(world) if line in told] == told
    database = world.database()
    assert {row[1] for row in database.run(verifications.verified)} == {"a", "c"}


def test_a_provider_that_is_taken_out_does_not_come_back_and_is_forgotten(world: World) -> None:
    world.providers = (asked("Space"), listed("Capi", "a"))
    world.lists = {"Space": ["s"]}

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(100)
        space, capi = world.providers
        world.providers = (capi,)
        async with world.node() as node:
            await asyncio.sleep(100)
            assert shown(node) == ("a active",)
        world.providers = (space, capi)
        async with world.node() as node:
            await asyncio.sleep(100)
            assert shown(node) == ("s active", "a active")
        assert len(world.asked_for("s")) == 1, "what was verified holds"
        world.providers = (capi,)
        async with world.node():
            await asyncio.sleep(100)
        await asyncio.sleep(7 * DAY - 3600)  # in which nobody lives: that is quick
        async with world.node():
            await asyncio.sleep(100)
            assert [line for line in history(world) if line == "left s"] == []
            await asyncio.sleep(2 * 3600)

    world.run(story())
    told = [line for line in history(world) if line.endswith(" s")]
    assert told == ["added s", "gone s", "returned s", "gone s", "left s"]
    database = world.database()
    assert [row.provider for row in database.run(store.remembered)] == ["Capi"]


def test_who_begins_to_lead_forgets_nothing_that_another_has_heard_later(world: World) -> None:
    world.providers = (asked("Space"),)
    world.lists = {"Space": ["old"]}

    async def story() -> None:
        async with world.node("b", leads=False) as follower:
            await asyncio.sleep(10)
            world.lists["Space"] = ["old", "new"]
            async with world.node("a"):
                await asyncio.sleep(100)
            assert shown(follower) == ("old active",)
            leading = asyncio.ensure_future(follower.schedule.run())
            await asyncio.sleep(60)
            assert [row.split()[0] for row in shown(follower)] == ["new", "old"]
            leading.cancel()
            await asyncio.wait([leading])

    world.run(story())
    assert history(world) == ["added new", "added old"]
    assert len(world.asked_for("new")) == 1


def test_what_is_to_be_remembered_is_not_lost_where_leading_ends_in_between(
    world: World,
) -> None:
    world.providers = (listed("Capi", "a"), listed("Space", "b"))

    async def story() -> None:
        async with world.node(leads=False) as node:
            leading = asyncio.ensure_future(node.upkeep._remember())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            leading.cancel()
            await asyncio.wait([leading])
            await node.upkeep._remember()

    world.run(story())
    database = world.database()
    assert [row.provider for row in database.run(store.remembered)] == ["Capi", "Space"]


# Figures


def test_all_processes_tell_the_same_of_what_callers_have_seen(world: World) -> None:
    world.providers = (listed("Capi", "a", "b"),)

    async def story() -> None:
        async with world.node("a") as one, world.node("b", leads=False) as other:
            for ms in (100, 300, 900):
                for node in (one, other, one):
                    node.upkeep.saw(attempt("a", ms=ms), world.now())
            one.upkeep.saw(attempt("b", outcome="timeout"), world.now())
            works = [asyncio.ensure_future(beside(node.upkeep, 800)) for node in (one, other)]
            await asyncio.sleep(SLICE + GRACE + FIGURES + 5)
            live = one.upkeep.live("Capi", "a")
            assert live is not None
            assert (live.attempts, live.success_rate, live.uptime_24h) == (9, 1.0, 1.0)
            assert live == other.upkeep.live("Capi", "a")
            assert etag(one) == etag(other)
            await asyncio.gather(*works)
            async with world.node("c", leads=False) as late:
                assert etag(late) == etag(one), "who comes later, at once"

    world.run(story())


def test_what_was_seen_while_the_database_was_away_is_told_later(world: World) -> None:
    world.providers = (listed("Capi", "a"),)

    async def story() -> None:
        async with world.node(leads=False) as node:
            for _ in range(10):
                node.upkeep.saw(attempt("a"), world.now())
            work = asyncio.ensure_future(beside(node.upkeep, 2500))
            await asyncio.sleep(10)
            node.database.away = True
            candidate = node.health.candidate(
                Model(id="a", provider="Capi", upstream_id="a", created=1)
            )
            for _ in range(3):
                ticket = Ticket(candidate, 0, time.monotonic(), stream=False)
                node.health.begin(ticket)
                node.health.failed(ticket, time.monotonic(), "connect", "refused", retry_after=60.0)
            await asyncio.sleep(1000)
            node.database.away = False
            await asyncio.sleep(400)
            live = node.upkeep.live("Capi", "a")
            assert live is not None
            assert live.attempts == 10
            rows = node.database.run(lambda one: incidents.listed(one, limit=9))
            assert [row.why for row in rows] == ["connect: refused"]
            await work

    with capture_logs() as log:
        world.run(story())
    warned = [line["event"] for line in log if line["log_level"] not in ("debug", "info")]
    assert warned == ["Capi does not tell its models"]


def test_what_was_seen_until_the_end_is_kept(world: World) -> None:
    world.providers = (listed("Capi", "a"),)

    async def story() -> None:
        async with world.node(leads=False) as node:
            for _ in range(10):
                node.upkeep.saw(attempt("a"), world.now())
            await node.upkeep.close()
        await asyncio.sleep(SLICE + GRACE)
        async with world.node("b", leads=False) as other:
            live = other.upkeep.live("Capi", "a")
            assert live is not None
            assert live.attempts == 10

    world.run(story())


def test_a_start_and_a_stop_wait_for_no_database(world: World) -> None:
    world.providers = (listed("Capi", "a"),)

    async def story() -> None:
        async with world.node(leads=False) as node:
            node.upkeep.saw(attempt("a"), world.now())
            node.database.away = True
            await node.upkeep.begin()
            await node.upkeep.close()

    with capture_logs() as log:
        world.run(story())
    warned = [line["event"] for line in log if line["log_level"] == "warning"]
    assert [line for line in warned if "Capi" not in line] == [
        "what was known of models is read later",
        "the latest live figures are lost",
    ]


def test_what_another_has_verified_is_told_of_within_seconds(world: World) -> None:
    world.providers = (listed("Capi", *(f"m{number}" for number in range(6))),)
    world.broken = {"m3"}

    async def story() -> None:
        async with world.node("b", leads=False) as other:
            work = asyncio.ensure_future(beside(other.upkeep, 100))
            async with world.node("a") as one:
                await asyncio.sleep(50)
                assert "m3 down" in shown(other)
                assert etag(one) == etag(other)
            await work

    world.run(story())


def test_incidents_are_pruned_and_hourly_work_leaves_what_is_young(world: World) -> None:
    world.providers = (listed("Capi", "bad"),)
    world.broken = {"bad"}

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(2 * 3600)
            rows = node.database.run(lambda one: incidents.listed(one, open_only=True, limit=9))
            assert [(row.model, row.source) for row in rows] == [("bad", "verification")]

    world.run(story())
