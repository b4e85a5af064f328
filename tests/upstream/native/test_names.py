"""Names are looked up once for all who ask, and kept for so long."""

import asyncio
import gc
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest

from manyways.errors import Refusal
from manyways.upstream.native.names import Names
from manyways.upstream.transport import Address
from tests.support.virtual_time import virtual_time


class Directory:
    """Looks names up: the `n`-th answer is 10.0.0.n. `asked` counts, `ended` those that did."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: list[str] = []
        self.ended = 0
        self.error: Exception | None = None
        self._seconds = seconds

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        number = len(self.asked)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return [Address(socket.AF_INET, f"10.0.0.{number}", port)]


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is left for asyncio to report, like a failure that nobody looked at."""
    yield
    gc.collect()
    assert not caplog.records


async def hosts(names: Names, host: str = "a.test") -> list[str]:
    return [one.host for one in await names.addresses(host, 443)]


def test_what_was_found_is_served_for_so_long_and_no_longer() -> None:
    async def ask() -> None:
        names = Names(Directory(), 30)
        assert await hosts(names) == ["10.0.0.1"]
        await asyncio.sleep(29.9)
        assert await hosts(names) == ["10.0.0.1"]
        await asyncio.sleep(0.2)
        assert await hosts(names) == ["10.0.0.2"]
        assert repr(names) == "<Names known=1 asked=0>"

    with virtual_time() as run:
        run(ask())


async def test_nothing_is_kept_for_no_time() -> None:
    names = Names(Directory(), 0)

    assert [await hosts(names), await hosts(names)] == [["10.0.0.1"], ["10.0.0.2"]]
    assert repr(names) == "<Names known=0 asked=0>"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%1"])
async def test_an_address_is_not_looked_up(host: str) -> None:
    directory = Directory()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    assert await Names(directory).addresses(host, 80) == (Address(family, host, 80),)
    assert directory.asked == []


def test_all_who_ask_at_once_share_one_look_up() -> None:
    async def ask() -> None:
        directory = Directory(1)
        names = Names(directory)
        found = await asyncio.gather(*(hosts(names) for _ in range(5)), hosts(names, "b.test"))
        assert found == [["10.0.0.1"]] * 5 + [["10.0.0.2"]]
        assert directory.asked == ["a.test", "b.test"]

    with virtual_time() as run:
        run(ask())


def test_a_look_up_goes_on_for_whoever_asks_next_when_nobody_waits_any_more() -> None:
    async def ask() -> None:
        directory = Directory(1)
        names = Names(directory)
        asking = [asyncio.create_task(hosts(names)) for _ in range(3)]
        await asyncio.sleep(0.5)
        for one in asking:
            one.cancel()
        await asyncio.wait(asking)
        assert repr(names) == "<Names known=0 asked=1>"
        assert await hosts(names) == ["10.0.0.1"]
        assert directory.asked == ["a.test"]
        assert repr(names) == "<Names known=1 asked=0>"

    with virtual_time() as run:
        run(ask())


def test_who_closes_ends_what_is_asked() -> None:
    async def ask() -> None:
        directory = Directory(1)
        names = Names(directory)
        asking = asyncio.create_task(hosts(names))
        await asyncio.sleep(0.5)
        names.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert directory.ended == 1
        assert repr(names) == "<Names known=0 asked=0>"

    with virtual_time() as run:
        run(ask())


def test_a_failure_is_everybodys_but_not_the_next_ones() -> None:
    async def ask() -> None:
        directory = Directory(1)
        directory.error = socket.gaierror(-2, "Name or service not known")
        names = Names(directory)
        asking = [asyncio.create_task(hosts(names)) for _ in range(3)]
        await asyncio.wait(asking)
        assert [type(one.exception()) for one in asking] == [socket.gaierror] * 3
        directory.error = None
        assert await hosts(names) == ["10.0.0.2"]

    with virtual_time() as run:
        run(ask())


def test_a_failure_that_nobody_waits_for_is_not_reported() -> None:
    async def stubborn(_host: str, _port: int) -> Sequence[Address]:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise OSError("interrupted") from None
        return ()

    async def ask() -> None:
        asking = asyncio.create_task(hosts(Names(stubborn)))
        await asyncio.sleep(0.5)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await asyncio.sleep(1)

    with virtual_time() as run:
        run(ask())


def test_a_look_up_that_never_ends_is_given_up() -> None:
    async def ask() -> float:
        with pytest.raises(OSError, match="in time"):
            await hosts(Names(Directory(10_000)))
        return asyncio.get_running_loop().time()

    with virtual_time() as run:
        assert run(ask()) == pytest.approx(1030)


async def test_a_refusal_is_passed_on() -> None:
    directory = Directory()
    directory.error = Refusal("provider_refused", "no")

    with pytest.raises(Refusal):
        await hosts(Names(directory))


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test"])
async def test_a_name_that_cannot_be_one_is_nowhere(host: str) -> None:
    async def system(host: str, port: int) -> Sequence[Address]:
        host.encode("idna")
        return ()

    with pytest.raises(OSError, match="no name"):
        await hosts(Names(system), host)


async def test_a_host_without_addresses_is_nowhere() -> None:
    async def none(_host: str, _port: int) -> Sequence[Address]:
        return ()

    with pytest.raises(OSError, match="no address"):
        await hosts(Names(none))


async def test_what_could_not_be_reached_is_looked_up_again() -> None:
    names = Names(Directory())
    await hosts(names)
    names.forget("a.test", 443)
    names.forget("b.test", 443)

    assert await hosts(names) == ["10.0.0.2"]


async def test_no_more_than_so_many_names_are_kept() -> None:
    directory = Directory()
    names = Names(directory)
    for number in range(1030):
        await hosts(names, f"{number}.test")

    assert repr(names) == "<Names known=1024 asked=0>"
    await hosts(names, "1029.test")
    assert len(directory.asked) == 1030
    await hosts(names, "0.test")
    assert len(directory.asked) == 1031


async def test_what_was_reached_comes_first_for_as_long_as_it_is_known() -> None:
    found = [Address(socket.AF_INET, f"10.0.0.{number}", 443) for number in (1, 2, 3)]

    async def lookup(_host: str, _port: int) -> list[Address]:
        return found

    names = Names(lookup)
    assert await hosts(names) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    names.prefer("a.test", 443, "10.0.0.2")
    names.prefer("b.test", 443, "10.0.0.2")
    assert await hosts(names) == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    names.forget("a.test", 443)
    assert await hosts(names) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
