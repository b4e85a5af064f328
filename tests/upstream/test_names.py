"""Names that the system looks up."""

import threading

import pytest

from manyways.upstream.names import AT_ONCE, system_addresses


async def test_a_look_up_that_gets_no_thread_takes_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refused)
        for _ in range(AT_ONCE + 1):
            with pytest.raises(OSError, match="no thread to look it up"):
                await system_addresses("127.0.0.1", 80)
    (found,) = await system_addresses("127.0.0.1", 80)
    assert (found.host, found.port) == ("127.0.0.1", 80)
