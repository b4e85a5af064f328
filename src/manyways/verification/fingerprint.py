"""Whether a model is still the one it was: how it answers a few fixed questions tells.

What is seen on one day differs from another day's for many reasons. So each sign has a weight,
and only together, or where one leaves no doubt, do they mean that it is another model:

| sign                                                                      | weight |
|---------------------------------------------------------------------------|--------|
| the same prompts come to other numbers of tokens: nearly all of them      | 2      |
| some of them                                                              | 1      |
| all by the same few tokens, as a date among hidden instructions does      | 0.5    |
| the provider says that it is another model                                | 2      |
| the provider tells another name, of which that is not clear               | 1      |
| most answers are unlike the ones before, and given again when asked again | 2      |
| most answers are unlike the ones before                                   | 1      |
| answers are more than twice as long, or as short                          | 0.5    |
| it is more than 2.5 times as fast, or as slow                             | 0.5    |

Two are enough. Answers alone are not, as long as it was asked only once: many models never
answer twice alike.
"""

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from manyways.catalog.verified import Check, Fingerprint, Sample
from manyways.verification.reported import bare, likeness

ENOUGH: Final = 2.0
KEPT: Final = 300
"""Letters of an answer that are kept: more than the questions ask for."""
FEWEST: Final = 3
"""Samples that must have what is compared, on both sides."""
NEARLY_ALL: Final = 0.75
MOST: Final = 2 / 3
FEW_TOKENS: Final = 3
"""A prompt with today's date in it may differ by so many from day to day."""
ALIKE: Final = 0.5
"""Answers with more in common than this are alike."""
LONGER: Final = 2.0
FASTER: Final = 2.5


def fingerprint(checks: Sequence[Check], version: str, at: float) -> Fingerprint:
    """What the checks of the fixed questions tell; samples have the checks' names. Counts of
    tokens are kept where they are the provider's own, and of one request only."""
    answered = [check for check in checks if check.verdict in ("passed", "failed")]
    speeds = [check.tokens_per_second for check in answered if check.tokens_per_second]
    names = Counter(check.reported for check in answered if check.reported)
    return Fingerprint(
        at=at,
        version=version,
        samples={check.name: _sample(check) for check in answered},
        tokens_per_second=statistics.median(speeds) if speeds else None,
        reported=names.most_common(1)[0][0] if names else "",
    )


def drifted(before: Fingerprint, now: Fingerprint, again: Fingerprint | None = None) -> str | None:
    """Why the model must be another one than before; `None` where nothing, or not enough, says
    so. `again` are the answers to the same questions asked once more on the same day: they show
    which answers are given every time.

    Fingerprints of different sets of questions say nothing, nor does what is missing in one.
    """
    if before.version != now.version:
        return None
    signs = list(_signs(before, now, again))
    if sum(sign.weight for sign in signs) < ENOUGH:
        return None
    signs.sort(key=lambda sign: -sign.weight)
    return "; ".join(sign.words for sign in signs)


def is_doubtful(before: Fingerprint, now: Fingerprint) -> bool:
    """Whether asking the same questions again could decide what cannot be decided now."""
    if before.version != now.version or drifted(before, now):
        return False
    return any(sign.again_tells for sign in _signs(before, now, None))


class _Sign(NamedTuple):
    weight: float
    words: str
    again_tells: bool = False


def _signs(before: Fingerprint, now: Fingerprint, again: Fingerprint | None) -> Iterator[_Sign]:
    """All that differs."""
    pairs = {
        name: (before.samples[name], now.samples[name])
        for name in before.samples
        if name in now.samples
    }
    repeats = {} if again is None else again.samples
    found = (
        _by_prompts(pairs.values()),
        _by_name(before.reported, now.reported),
        _by_answers(pairs, repeats),
        _by_length(pairs.values()),
        _by_speed(before, now),
    )
    return (sign for sign in found if sign is not None)


def _sample(check: Check) -> Sample:
    usage = check.usage
    # Of several requests the sum was counted, and not even all of them told.
    told = usage.source == "upstream" and check.requests <= 1
    return Sample(
        answer=check.answer[:KEPT],
        ms=check.ms or 0,
        prompt_tokens=(usage.prompt_tokens or None) if told else None,
        completion_tokens=(usage.completion_tokens or None) if told else None,
    )


Pair = tuple[Sample, Sample]


def _by_prompts(pairs: Iterable[Pair]) -> _Sign | None:
    counts = [
        (old.prompt_tokens, new.prompt_tokens)
        for old, new in pairs
        if old.prompt_tokens and new.prompt_tokens
    ]
    changes = [new - old for old, new in counts if new != old]
    if len(counts) < FEWEST or not changes:
        return None
    first = next((old, new) for old, new in counts if new != old)
    words = (
        f"{len(changes)} of {len(counts)} prompts come to another number of tokens"
        f" ({first[1]} instead of {first[0]}): another tokenizer, or other hidden instructions"
    )
    date = len(set(changes)) == 1 and abs(changes[0]) <= FEW_TOKENS
    certain = len(changes) > NEARLY_ALL * len(counts) and not date
    return _Sign(2.0 if certain else 0.5 if date else 1.0, words)


def _by_name(before: str, now: str) -> _Sign | None:
    if not before or not now or bare(before) == bare(now):
        return None
    other = "other" in (likeness(before, now), likeness(now, before))
    return _Sign(2.0 if other else 1.0, f"it calls itself {now}, and {before} before")


def _by_answers(pairs: Mapping[str, Pair], again: Mapping[str, Sample]) -> _Sign | None:
    told = {name: pair for name, pair in pairs.items() if all(_words(one.answer) for one in pair)}
    if len(told) < FEWEST:
        return None
    unlike = [name for name, (old, new) in told.items() if not are_alike(old.answer, new.answer)]
    if len(unlike) < MOST * len(told):
        return None
    # Said twice today, and otherwise before.
    steady = [
        name
        for name in unlike
        if name in again
        and are_alike(told[name][1].answer, again[name].answer)
        and not are_alike(told[name][0].answer, again[name].answer)
    ]
    words = f"{len(unlike)} of {len(told)} answers are unlike the ones before"
    if len(steady) >= MOST * len(told):
        return _Sign(2.0, f"{words}, and {len(steady)} of them the same when asked again")
    return _Sign(1.0, words, again_tells=not again)


def _by_length(pairs: Iterable[Pair]) -> _Sign | None:
    lengths = [
        (len(old.answer), len(new.answer)) for old, new in pairs if old.answer and new.answer
    ]
    if len(lengths) < FEWEST:
        return None
    times = statistics.median(new / old for old, new in lengths)
    return _changed(times, LONGER, lambda words: f"answers are {words} long")


def _by_speed(before: Fingerprint, now: Fingerprint) -> _Sign | None:
    if not before.tokens_per_second or not now.tokens_per_second:
        return None
    times = now.tokens_per_second / before.tokens_per_second
    return _changed(times, FASTER, lambda words: f"it is {words} fast")


def _changed(times: float, most: float, words: Callable[[str], str]) -> _Sign | None:
    if 1 / most <= times <= most:
        return None
    return _Sign(0.5, words(f"{times:.2g} times as"))


def are_alike(one: str, other: str) -> bool:
    """Whether two answers say much the same: most of their words are the same ones, in whatever
    order, dress and case."""
    first, second = Counter(_words(one)), Counter(_words(other))
    common = (first & second).total()
    return 2 * common > ALIKE * (first.total() + second.total())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
