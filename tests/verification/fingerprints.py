"""Models that answer the fixed questions, each in its own way: what tests of drift play with."""

from random import Random

from manyways.catalog.verified import Check, Fingerprint
from manyways.types import Usage
from manyways.verification import quality
from manyways.verification.fingerprint import fingerprint

ANSWERS = {
    "arithmetic-4": ["136", "153", "204", "187", "170", "238", "374", "102", "459", "612"],
    "reasoning-2": ["EBACD", "EABCD", "EACBD", "ABECD", "ABCED", "BAECD", "BACED", "ECABD"],
    "format-1": [
        "The river flows gently through town.",
        "The river sparkled beneath morning sunlight.",
        "We walked along the quiet river.",
        "A river winds through the valley.",
        "Children love swimming in the river.",
        "The old river runs very deep.",
        "She watched the river at dawn.",
        "Fish swim quietly in the river.",
    ],
    "format-2": [
        "Sunshine warms the golden sand\nUmbrellas bloom on beaches\nNights sparkle with stars",
        "Sun shines bright above\nUnder blue skies we play\nNever want it to end",
        "Sandy toes and salty air\nUnder the warm sun\nNature blooms all around",
        "Sweet days of golden light\nUnending skies of blue\nNature sings with joy",
        "Summer breezes softly blow\nUpon the endless shore\nNight brings gentle rest",
        "Swimming in the cool lake\nUnwinding under tall trees\nNapping through hot noons",
    ],
    "format-3": [
        "писать, петь, плавать, прыгать",
        "читать, петь, писать, прыгать",
        "пить, петь, писать, плыть",
        "помогать, понимать, приходить, покупать",
        "плавать, прыгать, писать, понимать",
        "пойти, принести, прочитать, показать",
        "пилить, прятать, путать, парить",
    ],
    "language-2": [
        "Big brown bears bring berries.",
        "Brave boys bought blue balloons.",
        "Bright birds build beautiful bungalows.",
        "Bold Betty baked buttery biscuits.",
        "Busy bees buzz beneath blossoms.",
        "Bob bravely battled big bullies.",
    ],
}
"""Answers as models give them, the usual ones first."""
TOKENS = {"o200k": [28, 56, 19, 37, 49, 23], "llama3": [28, 56, 19, 37, 55, 23]}
SYNONYMS = ["calm", "Blue", "петь", "softly", "137"]


class Simulated:
    """A model: its own answer to each question, what its chat adds to a prompt, its speed.

    With `noise`, so many of its answers differ each time: half of them in a word, half of them
    altogether. `steady` models give the same answer when asked again within a day.
    """

    def __init__(self, chance: Random, *, tokenizer: str = "o200k", added: int = 7) -> None:
        self._chance = chance
        self._own = {name: self._drawn(name) for name in ANSWERS}
        self._tokens = dict(zip(ANSWERS, TOKENS[tokenizer], strict=True))
        self._added = added
        self._speed = chance.uniform(20, 150)

    def asked(
        self, *, noise: float = 0.0, counts: bool = True, reported: str = "", hurried: float = 1.0
    ) -> Fingerprint:
        """Its fingerprint on one day. `counts`: it tells how many tokens there were."""
        speed = self._speed * hurried * self._chance.lognormvariate(0, 0.3)
        checks = []
        for name, own in self._own.items():
            answer = self._varied(name, own) if self._chance.random() < noise else own
            usage = Usage(
                prompt_tokens=self._tokens[name] + self._added,
                completion_tokens=len(answer) // 4 + 1,
                source="upstream" if counts else "none",
            )
            checks.append(
                Check(
                    name=name,
                    verdict="passed",
                    answer=answer,
                    ms=round(1000 * (len(answer) / 4) / speed) + 200,
                    tokens_per_second=speed,
                    reported=reported,
                    requests=1,
                    usage=usage,
                )
            )
        return fingerprint(checks, quality.VERSION, 0.0)

    def _drawn(self, name: str) -> str:
        """One of the answers, a usual one rather than others."""
        answers = ANSWERS[name]
        weights = [1 / (1 + place) for place in range(len(answers))]
        return self._chance.choices(answers, weights)[0]

    def _varied(self, name: str, own: str) -> str:
        if self._chance.random() < 0.5:
            return self._drawn(name)
        words = own.split(" ")
        words[self._chance.randrange(len(words))] = self._chance.choice(SYNONYMS)
        return " ".join(words)
