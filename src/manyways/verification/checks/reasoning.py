"""Reasoning: a model thinks before it speaks, and it can be seen that it does."""

from contextlib import suppress

from manyways.errors import Refusal
from manyways.verification.check import Finding, failed, passed
from manyways.verification.checks.words import quoted, spoken, thoughts
from manyways.verification.interview import Interview, Said


async def reasoning(interview: Interview) -> Finding:
    """Thoughts come with its answer, or it is told how many tokens they were."""
    chance = interview.chance
    brothers, sisters = chance.randint(2, 6), chance.randint(2, 6)
    prompt = (
        f"Anna has {brothers} brothers. Each of them has {sisters} sisters. How many sisters has"
        " Anna? Think, then answer with the number only."
    )
    said = await interview.say(prompt, limit=32)
    if not _thought(said):
        with suppress(Refusal):  # some think only when they are told to
            said = await interview.say(prompt, limit=32, reasoning_effort="low")
    if _thought(said):
        return passed(prompt, said.text or thoughts(said))
    reason = f"no thoughts came with its answer: {quoted(spoken(said))}"
    return failed(prompt, said.text, reason)


def _thought(said: Said) -> bool:
    return bool(thoughts(said)) or said.usage.reasoning_tokens > 0
