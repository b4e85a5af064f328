"""What is asked of chat models: whether they answer at all, and each of their capabilities."""

import re
from typing import Final

from manyways.errors import AttemptFailed
from manyways.verification.check import Ask, Finding, Step, failed, passed
from manyways.verification.checks.json_schema import json_schema
from manyways.verification.checks.prefill import prefill
from manyways.verification.checks.reasoning import reasoning
from manyways.verification.checks.tools import tools
from manyways.verification.checks.vision import vision
from manyways.verification.checks.web_search import web_search
from manyways.verification.checks.words import quoted
from manyways.verification.interview import Interview

_COUNTED: Final = 12
_CANNOT: Final = re.compile(r"(?:not|n['’]t) (?:\w+ )?support|unsupported", re.IGNORECASE)


async def answers(interview: Interview) -> Finding:
    """It says anything at all, in a whole answer."""
    prompt = "Say hello in one word."
    said = await interview.say(prompt, limit=16)
    if said.text.strip():
        return passed(prompt, said.text)
    if said.reasoning.strip():
        return failed(prompt, "", "it thinks, and then says nothing")
    if said.tool_calls:
        return failed(prompt, "", "it calls a function that it was never given, and says nothing")
    return failed(prompt, said.text, "its answer is empty")


async def streaming(interview: Interview) -> Finding:
    """What it says comes piece by piece, and has an end."""
    first = interview.chance.randint(2, 80)
    prompt = f"Count from {first} to {first + _COUNTED - 1}. Write only the numbers."
    said = await interview.say(prompt, limit=80, stream=True)
    if not said.text.strip() and not said.reasoning.strip():
        return failed(prompt, "", "its stream ends without a word")
    if said.pieces < 2:
        return failed(prompt, said.text, "its whole answer comes as one piece")
    return passed(prompt, said.text)


def _told(ask: Ask) -> Ask:
    """The same check, which also fails where the provider says that it cannot do that: some say
    so with the status of a failure."""

    async def asked(interview: Interview) -> Finding:
        try:
            return await ask(interview)
        except AttemptFailed as failure:
            words = failure.words or failure.message
            if not _CANNOT.search(words):
                raise
            return failed("", words, f"its provider says {quoted(words)}")

    return asked


ANSWERS: Final = Step(name="answers", ask=answers, tries=2)
"""Whether it is there: what fails here is asked nothing else."""

CAPABILITIES: Final = {
    "streaming": Step(name="streaming", ask=streaming),
    "tools": Step(name="tools", ask=_told(tools), tries=2),
    "json_schema": Step(name="json_schema", ask=_told(json_schema), tries=2),
    "vision": Step(name="vision", ask=_told(vision), tries=2),
    "reasoning": Step(name="reasoning", ask=reasoning, tries=2),
    "web_search": Step(name="web_search", ask=_told(web_search), tries=2),
    "prefill": Step(name="prefill", ask=prefill, tries=2),
}
"""By the names that the catalog has for capabilities; cheap ones first."""
