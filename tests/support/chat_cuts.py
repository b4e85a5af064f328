"""A whole `chat.completion`, cut into the stream that a provider could have sent instead."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

Json = dict[str, Any]

ENVELOPE = ("id", "created", "model", "provider")


def cut(answer: Json, chance: Random) -> list[Json]:
    """Chunks that say together what `answer` says, cut where `chance` has it."""
    envelope = {name: answer[name] for name in ENVELOPE if name in answer}
    envelope["object"] = "chat.completion.chunk"
    queues = [list(_choice(choice, chance)) for choice in answer["choices"]]
    chunks = [{**envelope, "choices": [choice]} for choice in _shuffled(queues, chance)]
    beside = {name: value for name, value in answer.items() if name not in {*envelope, "choices"}}
    last: Json = {**envelope, "choices": []}
    for name, value in beside.items():
        if name == "usage":
            for chunk in chunks:
                chunk["usage"] = None
            last["usage"] = value
        elif isinstance(value, dict) and len(value) > 1 and not name.startswith("_"):
            *first, rest = value.items()
            chance.choice(chunks)[name] = dict(first)
            last[name] = dict([rest])
        else:
            for chunk in chance.choice([chunks, chunks[:1], chunks[-1:]]):
                chunk[name] = value
    return [*chunks, last] if len(last) > len(envelope) + 1 else chunks


def pieces(text: str, chance: Random) -> list[str]:
    """A text in pieces, none of them empty unless it is."""
    cuts = sorted(chance.sample(range(1, len(text)), chance.randint(0, min(4, len(text) - 1)))
                  if len(text) > 1 else [])  # fmt: skip
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _choice(choice: Json, chance: Random) -> Iterator[Json]:
    message = dict(choice["message"])
    first = {"role": message.pop("role")}
    if chance.random() < 0.5 and not message.get("content"):
        first["content"] = message.pop("content")
    queues = [[{name: piece} for piece in _field(name, message[name], chance)] for name in message]
    deltas = [first, *_shuffled(queues, chance), {}]
    probabilities = iter(_probabilities(choice["logprobs"], len(deltas) - 1, chance))
    beside = {
        name: value
        for name, value in choice.items()
        if name not in {"index", "message", "logprobs", "finish_reason"}
    }
    for delta in deltas:
        event = {"index": choice["index"], "delta": delta}
        event["logprobs"] = next(probabilities, None)
        event["finish_reason"] = None if delta else choice["finish_reason"]
        yield event if delta else event | beside


def _field(name: str, value: Any, chance: Random) -> list[Any]:
    """A field of a message as its deltas bring it."""
    match value:
        case str():
            return list(pieces(value, chance))
        case dict():
            return _object(value, chance)
        case list() if name == "tool_calls":
            return _calls(value, chance)
        case [dict(), *_] if name == "reasoning_details":
            return [[piece] for part in value for piece in _part(part, chance)]
        case [_, *_]:
            at = chance.randint(0, len(value))
            return [half for half in (value[:at], value[at:]) if half]
        case _:
            return [value]


def _object(value: Json, chance: Random) -> list[Json]:
    """What is told once at once, texts in pieces behind it."""
    at_once = {name: item for name, item in value.items() if name not in _GROWING}
    queues = [
        [{name: piece} for piece in cut(value[name], chance)]
        for name, cut in _GROWING.items()
        if name in value
    ]
    return [at_once, *_shuffled(queues, chance)]


def _name(name: str, chance: Random) -> list[str]:
    """A name in pieces, none of which looks like all of it told again."""
    found = pieces(name, chance)
    told = itertools.accumulate(found)
    again = any(piece == before for piece, before in zip(found[1:], told, strict=False))
    return [name] if again else found


_GROWING: Final[dict[str, Callable[[str, Random], list[str]]]] = {
    "name": _name,
    **dict.fromkeys(("arguments", "input", "data", "transcript", "text", "summary"), pieces),
}
"""Texts inside objects that come in pieces, and how they are cut."""


def _part(part: Json, chance: Random) -> Iterator[Json]:
    same = {name: part[name] for name in ("type", "index")}
    rest = {name: value for name, value in part.items() if name not in same}
    for name in ("text", "summary"):
        for piece in pieces(rest.pop(name, ""), chance):
            if piece:
                yield {**same, name: piece}
    if rest:
        yield {**same, **rest}


def _calls(calls: list[Json], chance: Random) -> list[list[Json]]:
    """Each call begins in its turn; what follows may come in any order."""
    begun, more = [], []
    for index, call in enumerate(calls):
        kind = call["type"]
        head, *tail = _object(call[kind], chance)
        begun.append([{**call, "index": index, kind: head}])
        more.append([[{"index": index, kind: piece}] for piece in tail])
    if chance.random() < 0.5:
        return [*begun, *_shuffled(more, chance)]
    return [event for first, rest in zip(begun, more, strict=True) for event in (first, *rest)]


def _probabilities(logprobs: Json | None, events: int, chance: Random) -> list[Json | None]:
    """Log probabilities spread over at most so many events, in order."""
    if logprobs is None:
        return []
    items = logprobs["content"]
    at = chance.randint(0, len(items)) if events > 1 else len(items)
    return [{**logprobs, "content": half} for half in (items[:at], items[at:]) if half]


def _shuffled(queues: Sequence[Sequence[Any]], chance: Random) -> Iterator[Any]:
    """All items; each queue's own stay in order."""
    waiting = [list(queue) for queue in queues if queue]
    while waiting:
        queue = chance.choice(waiting)
        yield queue.pop(0)
        if not queue:
            waiting.remove(queue)
