"""Rules by which answers are judged. Programs, not models; nothing of an answer is ever run.

An answer comes in many dresses: "391", "**391**", "The answer is $391$.", "\\boxed{391}", with
thoughts in <think> tags before it. Dress is taken off where the task is about the value. Where
the form is the task, only what surrounds the answer is: blanks and thoughts.

Every rule takes any text whatever, searches no more than `LONGEST` letters, and raises nothing.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
from msgspec import Struct

LONGEST: Final = 4000
"""Letters of an answer, without its thoughts. A longer one is right in nothing: the tasks allow
96 tokens at most."""


class Checker(Struct, frozen=True, kw_only=True):
    """One rule. Called with an answer, it tells the points, 0 to 1. `expected` says in words what
    would be right, for the sentence "expected 391, got 392"."""

    expected: str
    judge: Callable[[str], float]

    def __call__(self, answer: str) -> float:
        text = spoken(answer)
        return float(self.judge(text)) if 0 < len(text) <= LONGEST else 0.0


def spoken(answer: str) -> str:
    """An answer without the thoughts before it, finished or not, and without outer blanks."""
    rest = answer
    for tag in ("think", "thinking"):
        rest = rest.rpartition(f"</{tag}>")[2].partition(f"<{tag}>")[0]
    return rest.translate(_BLANKS).strip()


# Values: the dress does not matter.


def number(right: int | str) -> Checker:
    """The number that the answer comes to, as digits."""
    value = Decimal(right)
    return a_number(str(right), lambda found: found == value)


def a_number(expected: str, rule: Callable[[Decimal], bool]) -> Checker:
    """The same where many numbers are right."""

    def judge(text: str) -> float:
        found = _number(text)
        return float(found is not None and rule(found))

    return Checker(expected=expected, judge=judge)


def word(*right: str) -> Checker:
    """A word or a few, alone or as what a sentence says the answer is. Not merely mentioned."""
    keys = {_key(one) for one in right}

    def judge(text: str) -> float:
        found = [*_claims(text), *_only(_BOLD.findall(text))]
        return float(any(_key(one) in keys or _key(_clause(one)) in keys for one in found))

    return Checker(expected=right[0], judge=judge)


def one_of(right: str, others: Iterable[str]) -> Checker:
    """A name out of a few: the answer mentions it, and none of the others."""
    names = {_folded(one): _mention(one) for one in (right, *others)}

    def judge(text: str) -> float:
        for claim in (*_claims(text), *_only(_BOLD.findall(text))):
            folded = _folded(claim)
            if {name for name, seen in names.items() if seen(folded)} == {_folded(right)}:
                return 1.0
        return 0.0

    return Checker(expected=right, judge=judge)


def printed(*right: str) -> Checker:
    """What a program prints. Blanks do not matter, nor quotes around the whole."""
    keys = {_squeezed(one) for one in right}

    def judge(text: str) -> float:
        return float(any(_squeezed(claim) in keys for claim in _claims(text)))

    return Checker(expected=right[0], judge=judge)


def row(expected: str, letters: str, rule: Callable[[str], bool]) -> Checker:
    """All of `letters` in an order that satisfies the rule, however they are separated."""

    def judge(text: str) -> float:
        for claim in _claims(text):
            found = _SEPARATORS.sub("", claim).strip(_EDGES)
            if sorted(found) == sorted(letters):
                return float(rule(found))
        return 0.0

    return Checker(expected=expected, judge=judge)


# Forms: they are the task.


def exactly(right: str) -> Checker:
    """These very letters."""
    return form(repr(right), lambda text: text == right)


def form(expected: str, rule: Callable[[str], bool]) -> Checker:
    """An answer that satisfies the rule as a whole. Bold type is no matter of form."""
    return Checker(expected=expected, judge=lambda text: float(rule(text.replace("**", ""))))


def words(text: str) -> list[str]:
    """The words of one line, in lower case; none of a text of several lines."""
    return [] if "\n" in text else _WORD.findall(_folded(text))


def items(text: str) -> list[str]:
    """What stands between the commas of one line; none of a text of several lines."""
    return [] if "\n" in text else [one.strip() for one in text.removesuffix(".").split(",")]


def fields(right: Mapping[str, Any]) -> Checker:
    """A JSON object and nothing else, but a code fence: exactly these keys, values of the same
    type. The points are the share of values that are right."""

    def judge(text: str) -> float:
        fenced = _FENCED.fullmatch(text)
        try:
            found = msgspec.json.decode(fenced[1] if fenced else text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return 0.0
        if not isinstance(found, dict) or found.keys() != right.keys():
            return 0.0
        return sum(_same(found[name], value) for name, value in right.items()) / len(right)

    return Checker(expected=msgspec.json.encode(right).decode(), judge=judge)


# How values are found.

_EDGES: Final = " \t\n*_\"'.!,;:()"
_BLANKS: Final = {
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " "),
    **dict.fromkeys(map(ord, "\u200b\u2060\ufeff\r"), ""),
}
_TYPE: Final = {
    **dict.fromkeys(map(ord, "−\u2011\u2010"), "-"),
    **dict.fromkeys(map(ord, "’‘"), "'"),
    **dict.fromkeys(map(ord, "“”„«»"), '"'),
}
_BOLD: Final = re.compile(r"\*\*([^*\n]+)\*\*")
_BOXED: Final = re.compile(r"\\(?:boxed|fbox)\{((?:[^{}]|\{[^{}]*\})*)\}")
_MARKED: Final = re.compile(
    r"\b(?:answer|result|output|ответ|результат|вывод)(?:[ \t]+(?:is|будет)\b:?|[ \t]?[:=—–])"
    r"\s*([^\n]+)",
    re.IGNORECASE,
)
_TAIL: Final = re.compile(
    r"[^\n.,;!?]*(?:\b(?:is|are|prints|outputs|это|будет|выведет|напечатает)\b|[:=—–])"
    r"[ \t]+([^\n]+)",
    re.IGNORECASE,
)
_FENCED: Final = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
_FENCE: Final = re.compile(r"```\w*\n|```|`")
_LATEX: Final = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}")
_CLAUSE: Final = re.compile(
    r"[.;!?](?:\s|$)|\s[(\-—–]|,?\s(?:because|since|так как|потому)\b", re.IGNORECASE
)
_WORD: Final = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_SEPARATORS: Final = re.compile(r"[\s,;>→—–-]+")
_ASIDE: Final = re.compile(r"\([^()]*\)")

_DIGITS: Final = r"(?:\d{1,3}(?:(?P<by>[ ,'])\d{3}(?!\d))(?:(?P=by)\d{3}(?!\d))*|\d+)"
_NUMBER: Final = re.compile(
    rf"(?<![\w.])-?{_DIGITS}(?:[.,]\d+)?(?:[eE][+-]?\d{{1,3}})?(?!\d|[.,]\d|[eE][+-]?\d)"
)
_OPERATOR: Final = re.compile(r"\s*(?:[-+*/×·÷=<>^%]\s*\d|\\times|\\cdot|\\frac|[*/×·÷=])")
_HEDGE: Final = re.compile(
    r"(?:\d\s*(?:or|или)\s*-?\d)|(?:(?:\bnot|n't|\bне)\s+-?\d)", re.IGNORECASE
)


def _claims(text: str) -> tuple[str, ...]:
    """What an answer may be saying, without dress: what is boxed; else what is said to be the
    answer; else the whole, its first and last line, unless it only lists guesses, and what a
    single line ends in ("the word is house")."""
    if boxed := _BOXED.findall(text):
        return (_undressed(boxed[-1]),)
    plain = _undressed(text)
    if marked := _MARKED.findall(plain):
        return (marked[-1].strip(),)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if not lines or len({line for line in lines if " " not in line}) > 1:
        return ()
    tail = _TAIL.fullmatch(plain)
    return (plain, lines[0], lines[-1], *([tail[1].strip()] if tail else ()))


def _undressed(text: str) -> str:
    plain = _LATEX.sub(r"\1", _FENCE.sub("", text.translate(_TYPE)))
    plain = plain.replace("**", "").replace("{,}", ",")
    for mark in ("\\(", "\\)", "\\[", "\\]", "\\,", "\\ ", "$"):
        plain = plain.replace(mark, " " if mark == "\\ " else "")
    return plain.strip()


def _number(text: str) -> Decimal | None:
    """The number that an answer comes to: alone on its line, or the first behind "the answer
    is", or else the last there is. None where it hedges."""
    claims = _claims(text)
    if not claims or any(_HEDGE.search(claim) for claim in claims):
        return None
    for claim in claims:
        lone = _NUMBER.fullmatch(claim.strip(_EDGES))
        if lone:
            return _decimal(lone)
    said = claims[0]
    if len(claims) == 1 and (first := _NUMBER.match(said.lstrip(_EDGES))):
        rest = said.lstrip(_EDGES)[first.end() :]
        if not _OPERATOR.match(rest):
            return _decimal(first)
    found = list(_NUMBER.finditer(_ASIDE.sub(" ", said))) or list(_NUMBER.finditer(said))
    return _decimal(found[-1]) if found else None


def _decimal(found: re.Match[str]) -> Decimal | None:
    digits = found[0]
    if found["by"]:
        digits = digits.replace(found["by"], "")
    try:
        return Decimal(digits.replace(",", "."))
    except InvalidOperation:
        return None


def _folded(text: str) -> str:
    return text.casefold().replace("ё", "е")


def _key(text: str) -> str:
    return " ".join(_folded(text).strip(_EDGES).split())


def _clause(text: str) -> str:
    return _CLAUSE.split(text, 1)[0]


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text).strip("\"'.")


def _mention(name: str) -> Callable[[str], bool]:
    pattern = re.compile(rf"(?<![\w:]){re.escape(_folded(name))}(?![\w:]*\w)")
    return lambda folded: pattern.search(folded) is not None


def _only(found: Collection[str]) -> Collection[str]:
    """What is said in one voice, else nothing."""
    return found if len(set(found)) == 1 else ()


def _same(found: Any, right: Any) -> bool:
    """Equal, and of one type: 1, "1" and true are three things, 1 and 1.0 one."""
    if isinstance(right, dict):
        return (
            isinstance(found, dict)
            and found.keys() == right.keys()
            and all(_same(found[name], value) for name, value in right.items())
        )
    if isinstance(right, list):
        return (
            isinstance(found, list) and len(found) == len(right) and all(map(_same, found, right))
        )
    if isinstance(right, str):
        return isinstance(found, str) and found.strip() == right
    if isinstance(right, bool) or right is None:
        return found is right
    return not isinstance(found, bool) and bool(found == right)
