"""The name under which a provider says that it has answered, beside the one it was asked for.

Names are written in many ways: with a maker before them and a date behind, short ones stand for
long ones. So two names contradict each other only where both say something of the same kind, and
not the same: another family of models, another size, another version, another tier.
"""

import re
from typing import Final, Literal

from msgspec import Struct

from manyways.catalog import known

Likeness = Literal["same", "alike", "other"]
"""`alike`: the same model of another date, or not clearly another one."""

# A family has several spellings, and its makers' other lines that are given for one another.
_FAMILIES: Final = {
    "gpt-oss": ("gptoss",),
    "gpt": ("gpt", "davinci"),
    "o": (),  # o1, o3, o4: told by their numbers
    "claude": ("claude",),
    "gemini": ("gemini",),
    "gemma": ("gemma",),
    "llama": ("llama", "nemotron", "vicuna", "alpaca", "sonar"),
    "mistral": ("mistral", "mixtral", "ministral", "codestral", "pixtral", "magistral", "devstral"),
    "qwen": ("qwen", "qwq", "qvq", "tongyi"),
    "deepseek": ("deepseek",),
    "phi": (),
    "grok": ("grok",),
    "command": ("command", "cohere"),
    "kimi": ("kimi", "moonshot"),
    "glm": ("glm",),
    "minimax": ("minimax", "abab"),
    "nova": (),
    "smollm": ("smollm",),
    "granite": ("granite",),
    "hunyuan": ("hunyuan",),
    "ernie": ("ernie",),
    "falcon": ("falcon",),
    "olmo": ("olmo",),
    "hermes": ("hermes",),
    "yi": (),
}
_WHOLE_WORDS: Final = ("phi", "nova", "yi")
_TUNED: Final = frozenset({"hermes", "deepseek"})
_OPEN: Final = frozenset({"llama", "qwen", "mistral", "gemma", "phi", "yi"})
"""Models of the first are often named after those of the second that they were made from."""
_TIERS: Final = (
    "nano", "mini", "micro", "tiny", "small", "medium", "large", "lite", "flash", "pro", "ultra",
    "plus", "max", "haiku", "sonnet", "opus", "instant", "scout", "maverick", "air",
)  # fmt: skip
_BARE: Final = frozenset({"gpt", "o", "grok"})
"""Families in which a name without a tier is a model of its own, and the large one."""
_SMALL: Final = frozenset({"nano", "mini", "micro", "tiny", "small", "lite"})

_TERMS: Final = re.compile(r"(?::(?:free|beta|nitro|floor|online|exacto|extended)|-latest)+$")
_DATE: Final = re.compile(
    r"[-@_](?:20\d\d-?[01]\d(?:-?[0-3]\d)?|[01]\d-20\d\d|[01]\d-[0-3]\d|[01]\d[0-3]\d|2[3-9][01]\d)"
    r"(?=[-@_:]|$)",
    re.ASCII,
)
_SIZE: Final = re.compile(r"(?<![a-z\d.])(\d+x)?(\d+(?:\.\d+)?)([bm])(?![a-z\d])", re.ASCII)
_O_SERIES: Final = re.compile(r"(?<![a-z\d])o(\d)(?![\d.])", re.ASCII)
_VERSION: Final = re.compile(r"(?<![\d.])v?(\d{1,2})(?:[.-](\d{1,2}))?(?![\dbkmx.])", re.ASCII)


class _Told(Struct, frozen=True):
    """What a name tells; empty where it does not."""

    families: frozenset[str]
    sizes: frozenset[str]
    tiers: frozenset[str]
    version: tuple[str, ...]


def likeness(asked: str, said: str) -> Likeness:
    """How near two names are: `other` where the second one contradicts the first."""
    if bare(asked) == bare(said):
        return "same"
    first, second = known.find(asked), known.find(said)
    if first is not None and second is not None and first.id == second.id:
        return "alike"
    return "other" if _contradict(_told(asked), _told(said)) else "alike"


def bare(name: str) -> str:
    """A name without its maker, terms of use, and how it is written: `gpt-4o-2024-08-06` for
    `OpenAI/GPT-4o-2024-08-06:free`."""
    last = name.strip().casefold().rstrip("/").rpartition("/")[2]
    return re.sub(r"[\s_]+", "-", _TERMS.sub("", last))


def is_telling(name: str) -> bool:
    """Whether a name tells which family it belongs to."""
    return bool(_told(name).families)


def _told(name: str) -> _Told:
    plain = _DATE.sub("", bare(name))
    joined = re.sub(r"[^a-z\d]", "", plain)
    words = re.findall(r"[a-z]+", plain)
    families = {
        family
        for family, spellings in _FAMILIES.items()
        if any(spelling in joined for spelling in spellings)
    }
    families |= {family for family in _WHOLE_WORDS if family in words}
    series = _O_SERIES.search(plain)
    if series:
        families.add("o")
    if "gpt-oss" in families:
        families.discard("gpt")
    sizes = frozenset(
        f"{float(number) / (1000 if unit == 'm' else 1) * int(times[:-1] or 1):g}"
        for times, number, unit in ((t or "1x", n, u) for t, n, u in _SIZE.findall(plain))
    )
    without = _SIZE.sub("", plain)
    version = _VERSION.search(without) if not series else None
    numbers: tuple[str, ...] = (series[1],) if series else ()
    if version:
        numbers = tuple(number for number in version.groups() if number)
    if numbers == ("35",):  # as Azure writes it
        numbers = ("3", "5")
    tiers = frozenset(word for word in words if word in _TIERS)
    return _Told(frozenset(families), sizes, tiers, numbers)


def _contradict(asked: _Told, said: _Told) -> bool:
    """Only what both tell can contradict."""
    if not asked.families or not said.families:
        return False
    sizes = bool(asked.sizes and said.sizes and not asked.sizes & said.sizes)
    common = asked.families & said.families
    if not common:
        return sizes or not (_is_made_from(asked, said) or _is_made_from(said, asked))
    return sizes or _other_version(asked.version, said.version) or _other_tier(asked, said)


def _other_tier(asked: _Told, said: _Told) -> bool:
    smaller = said.tiers & _SMALL - asked.tiers
    if asked.tiers and said.tiers:
        return bool(smaller) or not asked.tiers & said.tiers
    return bool(smaller and asked.families & said.families & _BARE)


def _is_made_from(tuned: _Told, base: _Told) -> bool:
    return bool(tuned.families & _TUNED and base.families & _OPEN)


def _other_version(asked: tuple[str, ...], said: tuple[str, ...]) -> bool:
    """A longer number may only be more exact than a shorter one."""
    return any(one != other for one, other in zip(asked, said, strict=False))
