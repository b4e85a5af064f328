"""Providers that claim of their models whatever they like, on top of the wall.

    with street(House("Capi", Offer("sage", chats()))) as houses:
        houses.config("Capi")                                # its `[[providers]]` table
        houses["Capi"].offers["sage"] = Offer("sage", says(failure(500, "No.")))

A house is a provider. An offer is what its list says of a model, and who really answers: an
honest model passes every check from the request alone, and each liar lies in one way.
"""

import array
import base64
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from manyways.verification import quality
from manyways.verification.checks import transcription
from tests.support import media
from tests.support.chat_provider import reply, stream
from tests.support.honest import honest_chat
from tests.support.wall import END, Request, Script, Send, Wall, wall_in_thread, whole
from tests.verification.quality.right import RIGHT

Json = dict[str, Any]
Mind = Callable[[Json], Json]
"""Makes the message that answers the fields of a chat request."""

CHAT = "/chat/completions"
CREATED = 1_760_000_000
_PARAMETERS = {
    "tools": ("tools", "tool_choice"),
    "json_schema": ("response_format", "structured_outputs"),
    "reasoning": ("reasoning",),
}
_PIECE = 6
_MODEL = re.compile(rb'name="model"\r\n\r\n([^\r\n]*)\r\n')


@dataclass(frozen=True)
class Question:
    """One request about a model: `path` below the base URL, `fields` of its JSON, `at` of the
    monotonic clock."""

    path: str
    model: str
    fields: Json
    body: bytes
    at: float


Speaker = Callable[[Question], Script]


@dataclass
class Offer:
    """A model: who `answers`, and what its provider's list says of it. `prices` are USD a token
    of prompt and completion."""

    id: str
    answers: Speaker
    claims: tuple[str, ...] = ()
    category: str = "text"
    prices: tuple[float, float] | None = None

    def listed(self) -> Json:
        """Its entry of the list, as aggregators write it."""
        entry: Json = {"id": self.id, "object": "model", "created": CREATED, "owned_by": "house"}
        if self.category != "text":
            return {**entry, "type": self.category}
        takes = ["text", "image"] if "vision" in self.claims else ["text"]
        entry["architecture"] = {"input_modalities": takes, "output_modalities": ["text"]}
        if self.claims:
            named = [name for claim in self.claims for name in _PARAMETERS.get(claim, ())]
            entry["supported_parameters"] = ["temperature", "max_tokens", *named]
            entry["capabilities"] = [one for one in self.claims if one not in _PARAMETERS]
        if self.prices:
            entry["pricing"] = dict(zip(("prompt", "completion"), self.prices, strict=True))
        return entry


class House:
    """A provider. `asked` are the questions to its models, in their order; `lists` counts those
    for its list. Offers may be changed, put in and taken out at any time."""

    def __init__(self, name: str, *offers: Offer) -> None:
        self.name = name
        self.offers = {offer.id: offer for offer in offers}
        self.asked: list[Question] = []
        self.lists = 0

    def __repr__(self) -> str:
        return f"<House {self.name}, {len(self.offers)} offers, {len(self.asked)} asked>"

    def asked_of(self, model: str) -> list[Question]:
        """The questions to one model."""
        return [one for one in self.asked if one.model == model]

    def replace(self, model: str, answers: Speaker) -> None:
        """Have somebody else answer; the list says what it said."""
        offer = self.offers[model]
        claims, category, prices = offer.claims, offer.category, offer.prices
        self.offers[model] = Offer(model, answers, claims, category, prices)

    def answer(self, path: str, body: bytes) -> Script:
        """What it answers at a path below its base URL."""
        if path == "/models":
            self.lists += 1
            listed = [offer.listed() for offer in list(self.offers.values())]
            return reply({"object": "list", "data": listed})
        fields: Json = json.loads(body) if body.startswith(b"{") else {}
        named = _MODEL.search(body)
        model = fields.get("model") or (named[1].decode() if named else "")
        question = Question(path, model, fields, body, time.monotonic())
        self.asked.append(question)
        offer = self.offers.get(model)
        if offer is None:
            error = {"message": f"The model `{model}` does not exist", "code": "model_not_found"}
            return reply({"error": error}, 404)
        return offer.answers(question)


@dataclass
class Street:
    """Houses at one wall."""

    houses: dict[str, House]
    wall: Wall = field(init=False)

    def __getitem__(self, name: str) -> House:
        return self.houses[name]

    def __call__(self, request: Request) -> Script:
        name, _, path = request.path.removeprefix("/").partition("/v1")
        return self.houses[name].answer(path, request.body)

    def config(self, *names: str, extra: str = "") -> str:
        """The `[[providers]]` tables of these houses, or of all."""
        return "\n".join(
            f'[[providers]]\nname = "{name}"\nprotocol = "openai"\n'
            f'base_url = "{self.wall.url}/{name}/v1"\napi_key = "house-secret"\n{extra}\n'
            for name in names or self.houses
        )


@contextmanager
def street(*houses: House) -> Iterator[Street]:
    """Opens them, on a free port."""
    found = Street({house.name: house for house in houses})
    with wall_in_thread(found) as found.wall:
        yield found


# Minds


def wise(fields: Json) -> Json:
    """Does all that verification asks, and has every task of the quality set right."""
    task = _task(fields)
    return honest_chat(fields) if task is None else _message(RIGHT[task][0])


def otherwise(fields: Json) -> Json:
    """Just as good, in other words."""
    task = _task(fields)
    return honest_chat(fields) if task is None else _message(RIGHT[task][-1])


def small(fields: Json) -> Json:
    """A small model: it talks, and gets hardly any task right."""
    task = _task(fields)
    return honest_chat(fields) if task is None else _message("That is a good question! Perhaps 3.")


def blind(fields: Json) -> Json:
    """Guesses the number in a picture."""
    content = fields["messages"][-1]["content"]
    return _message("The number is 407.") if isinstance(content, list) else wise(fields)


def prosaic(fields: Json) -> Json:
    """Says what it would do instead of calling a function."""
    if not fields.get("tools"):
        return wise(fields)
    return _message("Of course! I will order the boxes for you.")


def fencing(fields: Json) -> Json:
    """Puts JSON into a fence of backticks."""
    told = wise(fields)
    if "response_format" in fields:
        told["content"] = f"```json\n{told['content']}\n```"
    return told


def _task(fields: Json) -> str | None:
    return _TASKS.get(fields["messages"][-1]["content"]) if _is_plain(fields) else None


def _is_plain(fields: Json) -> bool:
    return isinstance(fields["messages"][-1]["content"], str)


_TASKS = {task.prompt: task.id for task in quality.TASKS}


def _message(content: str) -> Json:
    return {"role": "assistant", "content": content}


# Speakers


def says(script: Script) -> Speaker:
    """Always the same, whatever it is asked."""
    return lambda _: script


def chats(
    mind: Mind = wise,
    *,
    reports: str | None = None,
    tokens: Callable[[str], int] = lambda text: len(text) // 4 + 8,
    at_once: bool = False,
) -> Speaker:
    """A chat model. `reports` is what it calls itself, where that is not what it is asked for;
    `tokens` counts a prompt's; a stream comes `at_once` where it is none in truth."""

    def answers(question: Question) -> Script:
        fields = question.fields
        message = mind(fields)
        text = message["content"] or ""
        name = reports or question.model
        counts = tokens(_words(fields)), len(text.split()) + 1
        usage = {
            "prompt_tokens": counts[0],
            "completion_tokens": counts[1],
            "total_tokens": sum(counts),
        }
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        if not fields.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return reply({**_envelope("", name), "choices": [choice], "usage": usage})
        size = len(text) or 1 if at_once else _PIECE
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        deltas: list[Json] = [
            {"role": "assistant", "content": ""},
            *({"content": piece} for piece in pieces),
            *_beside(message),
        ]
        events = [*(_choice(delta, None) for delta in deltas), _choice({}, finish)]
        last = {**_envelope(".chunk", name), "choices": [], "usage": usage}
        return stream([*({**_envelope(".chunk", name), **one} for one in events), last])

    return answers


def _beside(message: Json) -> Iterator[Json]:
    """What a stream tells of a message behind its text."""
    for name, value in message.items():
        if name == "tool_calls":
            yield {name: [{"index": at, **call} for at, call in enumerate(value)]}
        elif name not in ("role", "content"):
            yield {name: value}


def _words(fields: Json) -> str:
    content = fields["messages"][-1]["content"]
    return content if isinstance(content, str) else json.dumps(content)


def _envelope(kind: str, model: str) -> Json:
    return {
        "id": "chatcmpl-house",
        "object": f"chat.completion{kind}",
        "created": CREATED,
        "model": model,
    }


def _choice(delta: Json, finish: str | None) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def at_first(count: int, script: Script, then: Speaker) -> Speaker:
    """The script for so many requests, and then what it would have answered."""
    left = [script] * count
    return lambda question: left.pop() if left else then(question)


def in_turn(good: int, bad: Script, answers: Speaker) -> Speaker:
    """So many good answers, then a bad one, and so on."""
    asked = iter(range(10**9))
    return lambda question: bad if next(asked) % (good + 1) == good else answers(question)


def breaks_off(answers: Speaker) -> Speaker:
    """Its streams end in good order behind their first pieces, without a finish."""

    def cut(question: Question) -> Script:
        script = answers(question)
        return (*script[:4], Send(END)) if question.fields.get("stream") else script

    return cut


def draws(picture: bytes | None = None) -> Speaker:
    """An image model: a picture of the size that is asked for, or this one."""

    def answers(question: Question) -> Script:
        width, height = map(int, question.fields["size"].split("x"))
        data = picture or media.picture("PNG", (width, height))
        return whole(media.pictures(data), 200, [("Content-Type", "application/json")])

    return answers


def speaks(sound: bytes | None = None) -> Speaker:
    """A speech model: a spoken sentence, or this WAV."""
    kind = "audio/mpeg" if sound is None else "audio/wav"
    return lambda _: whole(sound or media.spoken("mp3"), 200, [("Content-Type", kind)])


def hears(words: str | None = None) -> Speaker:
    """A transcription model: what is said in the sound it is sent, or these words."""

    def answers(question: Question) -> Script:
        known = transcription.sound() in question.body
        return reply({"text": words or (transcription.SENTENCE if known else "")})

    return answers


_MEANINGS = ("doctor physician", "sick ill", "child kid", "looked examined", "tourist", "castle")


def embeds(*, alike: bool = False) -> Speaker:
    """An embedding model: vectors by what words mean, or one vector for everything."""

    def vector(text: str) -> list[float]:
        told = set(re.findall(r"\w+", text.casefold()))
        found = [float(bool(told & set(words.split()))) for words in _MEANINGS]
        found.append(len(text) / 500)  # no two texts are quite the same
        size = math.hypot(*found)
        return [0.5] * len(found) if alike else [number / size for number in found]

    def answers(question: Question) -> Script:
        texts = question.fields["input"]
        rows: list[Any] = [vector(text) for text in texts]
        if question.fields.get("encoding_format") == "base64":
            rows = [base64.b64encode(array.array("f", row).tobytes()).decode() for row in rows]
        data = [{"object": "embedding", "index": at, "embedding": r} for at, r in enumerate(rows)]
        return reply({"object": "list", "data": data, "model": question.model})

    return answers
