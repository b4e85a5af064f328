"""The embedded model is really asked all tasks, twice."""

import time
from collections.abc import AsyncGenerator
from random import Random

import pytest

from manyways.types import Model, Provider
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.local import LocalModel
from manyways.upstream.local_child import MODEL
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits
from manyways.verification.asking import JSON, Answer
from manyways.verification.interview import CHAT, Interview
from manyways.verification.pacing import Pace, Places, Purse
from manyways.verification.quality import TASKS, VERSION, comparable, overlap, score, step


class Embedded:
    """Asks the embedded model."""

    def __init__(self, provider: OpenAIProvider) -> None:
        self._provider = provider

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        assert path == CHAT
        limits = Limits(connect=limit, headers=limit, idle=limit)
        response = await self._provider.chat(body, limits, stream=False)
        async with response:
            return Answer(body=await response.body(1024 * 1024))

    def stream(
        self, model: Model, path: str, body: bytes, *, limit: float, largest: int
    ) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError

    async def fetch(self, model: Model, url: str, *, limit: float) -> Answer:
        raise NotImplementedError


@pytest.mark.model
async def test_the_embedded_model_scores_alike_twice() -> None:
    child = LocalModel()
    carrier = AiohttpTransport()
    child.start()
    row = Provider(name="embedded", protocol="local")
    provider = OpenAIProvider(row, carrier, address=child, api_keys=(child.api_key,))
    interview = Interview(
        Model(id=MODEL, provider="embedded", upstream_id=MODEL, created=1),
        Embedded(provider),
        pace=Pace(0.0),
        places=Places(1, 1),
        purse=Purse(0.0),
        timeout=60.0,
        chance=Random(1),
    )
    scores = []
    try:
        await child.address(60.0)
        for turn in range(2):
            began = time.perf_counter()
            points: dict[str, float] = {}
            for task in TASKS:
                finding = await step(task).ask(interview)
                assert finding.points is not None
                points[task.id] = finding.points
                if not turn:
                    print(f"{task.id}: {finding.points:.2f} {finding.answer!r}")
            found = score(points, VERSION, at=float(turn))
            assert found is not None
            scores.append(found)
            seconds = time.perf_counter() - began
            print(f"score {found.score} ({found.low} to {found.high}) in {seconds:.1f} s")
    finally:
        await child.stop()
        await carrier.aclose()

    first, second = scores
    assert first.low <= second.score <= first.high
    assert overlap(first, second)
    assert not comparable(first, second).proven
    assert first.score < 5, "so small a model cannot be so good: some task is too easy to guess"
