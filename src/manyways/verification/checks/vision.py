"""Vision: a number is read from a picture."""

import re
from base64 import b64encode

from manyways.verification.check import Finding, failed, passed
from manyways.verification.checks.picture import drawn
from manyways.verification.checks.words import quoted, spoken
from manyways.verification.interview import Interview


async def vision(interview: Interview) -> Finding:
    """It tells the three digits that it is shown: one guess in 900 would be right."""
    number = str(interview.chance.randint(100, 999))
    prompt = "Which number is in this picture? Answer with its three digits only."
    address = f"data:image/png;base64,{b64encode(drawn(number)).decode()}"
    said = await interview.say(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": prompt},
                    {"type": "image_url", "image_url": {"url": address}},
                ],
            }
        ],
        limit=32,
    )
    asked = f"{prompt} (it shows {number})"
    answer = spoken(said)
    # Who names several has not read any.
    if set(re.findall(r"(?<![0-9])[0-9]{3}(?![0-9])", answer)) == {number}:
        return passed(asked, said.text)
    reason = f"it was shown {number} and said {quoted(answer)}"
    return failed(asked, said.text, reason)
