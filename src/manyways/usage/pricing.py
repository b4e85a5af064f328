"""What an answer costs, by the prices that the catalog has for its model."""

from collections.abc import Mapping

from manyways.types import Usage


def cost(prices: Mapping[str, float] | None, usage: Usage) -> float | None:
    """USD; `None` where the prices do not tell.

    `prompt` and `completion` are for a token, `input_cache_read` takes the place of `prompt`
    for those that were cached, `request` is for one answer. What has no price of its own is in
    these: thoughts are a part of the completion.
    """
    if not prices:
        return None
    prompt, completion = prices.get("prompt"), prices.get("completion")
    each = prices.get("request")
    if prompt is None and completion is None and each is None:
        return None
    prompt, completion = prompt or 0.0, completion or 0.0
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return (
        (usage.prompt_tokens - cached) * prompt
        + cached * prices.get("input_cache_read", prompt)
        + usage.completion_tokens * completion
        + (each or 0.0)
    )
