"""Answers that began and broke: no word is lost, none repeated, and no joint is made up.

Seen from outside: Primary breaks, and somebody else (or Primary itself) is asked to go on from
what the caller already has. `Fallback` says nothing of prefill, `Prefilling` takes it.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import pytest

from tests.support.chat_wall import JSON_TYPE, SSE_TYPE, ChatWall, Speech, Turns, chat_wall, event
from tests.support.faults import error, verdict, whole_stream
from tests.support.gateway import COUNTS, Answer, Gateway, provider, running_gateway
from tests.support.wall import END, Close, Request, Script, Send, Stall, Step, head, whole
from tests.support.wall import Answer as Play

pytestmark = pytest.mark.process

CONFIG = """
[routing]
order = "same-model-first"
first_token_timeout = "1s"
idle_timeout = "600ms"
deadline = "5s"
retries = 1
retry_pause = "20ms"
rest = "50ms"
"""
PROVIDERS = ("Primary", "Fallback", "Prefilling")
MODELS = [f"m{n}" for n in range(150)]
"""Health remembers: each exchange has a model of its own."""

SPEECH = Speech()
SENT = "".join(SPEECH.words[:4])
SAME = replace(SPEECH.recut(5), id="chatcmpl-second", model="second-name")
OTHER = Speech(("No", " rain", ",", " no", " snow", "."), "chatcmpl-second")
PROMPT = [{"role": "user", "content": "Go on"}]

Json = dict[str, Any]


@dataclass
class Stage:
    """The walls, and gateways that differ in what they do about a broken answer."""

    walls: dict[str, ChatWall]
    start: Callable[[str], Gateway]
    models: Iterator[str]
    model: str = ""
    """The one that was asked for last."""

    def ask(
        self,
        primary: Play,
        continuation: str = "true",
        *,
        whole: bool = False,
        more: Json | None = None,
        fallback: Play | None = None,
        prefilling: Play | None = None,
    ) -> Answer:
        """An answer of a gateway with this setting, Primary and these others behind it."""
        self.model = next(self.models)
        plays = {"Primary": primary}
        plays.update({"Fallback": fallback} if fallback else {})
        plays.update({"Prefilling": prefilling} if prefilling else {})
        for name, play in plays.items():
            self.walls[name].models[self.model] = play
        wish = {"order": list(plays), "only": list(plays)}
        body: Json = {"model": self.model, "models": [self.model], "messages": PROMPT}
        body |= {"stream": not whole, "provider": wish}
        return self.start(continuation).chat({**body, **(more or {})})

    def asked(self, name: str) -> list[Json]:
        """The bodies that a provider got for the last answer."""
        return [json.loads(each.body) for each in self.walls[name].asked(self.model)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        walls = {name: stack.enter_context(chat_wall()) for name in PROVIDERS}
        running: dict[str, Gateway] = {}

        def start(continuation: str) -> Gateway:
            if continuation not in running:
                setting = "assemble = true" if continuation == "assemble" else ""
                setting = setting or f"continuation = {continuation}"
                config = f"{CONFIG}{setting}\n"
                for name, wall in walls.items():
                    table = provider(wall.wall.url, *MODELS, name=name)
                    if name == "Prefilling":
                        prefill = r'\1\ncapabilities = ["prefill"]'
                        table = re.sub(r'(id = "m\d+")', prefill, table)
                    config += table
                directory = tmp_path_factory.mktemp("continuation")
                running[continuation] = stack.enter_context(
                    running_gateway(directory, COUNTS + config)
                )
            return running[continuation]

        yield Stage(walls, start, iter(MODELS))


def last_message(request: Request) -> Json:
    found: Json = json.loads(request.body)["messages"][-1]
    return found


def going_on(speech: Speech, otherwise: Play) -> Callable[[Request], Script]:
    """Goes on from a trailing assistant message; anything else gets `otherwise`."""

    def answer(request: Request) -> Script:
        last = last_message(request)
        if last["role"] == "assistant" and speech.text.startswith(last["content"]):
            return speech.rest(last["content"])(request)
        return otherwise(request) if callable(otherwise) else otherwise

    return answer


def no_prefill(otherwise: Speech, refusal: Script) -> Callable[[Request], Script]:
    """A server that wants the last message to be the user's."""

    def answer(request: Request) -> Script:
        return refusal if last_message(request)["role"] == "assistant" else otherwise(request)

    return answer


def is_complete(answer: Answer, text: str = SPEECH.text, continuations: int = 1) -> None:
    assert verdict(answer, text) == "continued"
    told = answer.metadata["continuations"]
    assert (told if isinstance(told, int) else len(told)) == continuations


def is_broken(answer: Answer, sent: str = SENT) -> None:
    """An honest error behind exactly what had been said, and of nobody's making but ours."""
    assert answer.status == 200
    assert answer.text == sent
    assert "[DONE]" not in answer.events()
    assert answer.events()[-1] == {"error": answer.error}
    assert answer.error["code"] == "all_models_failed"
    assert answer.error["type"] == "service_unavailable_error"


# Asking again


def test_wherever_an_answer_breaks_no_word_is_lost_and_none_repeated(stage: Stage) -> None:
    text = 'Neither "rain"\nnor \\snow\\ nor \N{SNOWMAN} \N{GRINNING FACE} stays these bytes.'
    speech = Speech(tuple(text))
    again = replace(speech.recut(3), id="chatcmpl-second")

    def played(count: int) -> Answer:
        return stage.ask(speech.begun(count, Close()), fallback=again)

    for count in range(1, len(text) + 1, 3):
        is_complete(played(count), text)


def test_a_text_is_the_same_however_it_is_escaped(stage: Stage) -> None:
    text = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE}/ done"
    speech = Speech(tuple(text))

    def unescaped(_request: Request) -> Script:
        events = [speech.chunk({"content": word}) for word in speech.recut(4).words]
        raw = [json.dumps(json.loads(each), ensure_ascii=False) for each in events]
        raw = [each.replace("/", "\\/") for each in raw]
        return opened(*map(event, (*raw, speech.finish, "[DONE]")), Send(END))

    for count in (5, 7, 9):
        is_complete(stage.ask(speech.begun(count, Close()), fallback=unescaped), text)


def test_the_same_provider_may_bring_its_own_answer_to_an_end(stage: Stage) -> None:
    answer = stage.ask(Turns(SPEECH.begun(4, Close()), SAME))
    is_complete(answer)
    assert {each["provider"] for each in answer.chunks()} == {"Primary"}


def test_an_answer_that_breaks_twice_is_continued_twice(stage: Stage) -> None:
    answer = stage.ask(
        Turns(SPEECH.begun(2, Close()), SPEECH), fallback=Turns(SPEECH.begun(5, Close()), OTHER)
    )
    is_complete(answer, continuations=2)


def test_where_all_words_were_said_only_the_end_is_missing(stage: Stage) -> None:
    answer = stage.ask(SPEECH.begun(7, Close()), fallback=SAME)
    is_complete(answer)
    assert len(answer.chunks()) <= 10, "no empty words"


def test_what_agrees_with_all_that_was_sent_may_go_on_in_its_own_way(stage: Stage) -> None:
    other = Speech((SENT[:10], SENT[10:] + " matters", " here."))
    is_complete(stage.ask(SPEECH.begun(4, Close()), fallback=other), other.text)


@pytest.mark.parametrize(
    "words",
    [
        ("No", " rain", ",", " no", " snow", "."),
        (*SPEECH.words[:3], " hail", " stays", "."),
        (SENT[:-1], "", "p stays."),
        (SENT[:-1],),
        (" ", *SPEECH.words),
        (SPEECH.text.upper(),),
        (),
    ],
    ids=["at once", "in the last word", "in the last letter", "shorter", "a space before",
         "in case", "nothing"],
)  # fmt: skip
def test_a_joint_that_cannot_be_proven_is_not_made(stage: Stage, words: Sequence[str]) -> None:
    is_broken(stage.ask(SPEECH.begun(4, Close()), fallback=Speech(tuple(words))))


def test_nobody_is_asked_to_go_on_from_words_unless_it_is_known_to(stage: Stage) -> None:
    is_broken(stage.ask(SPEECH.begun(4, Close()), fallback=OTHER))
    bodies = [*stage.asked("Primary"), *stage.asked("Fallback")]
    assert len(bodies) >= 2
    assert all(body["messages"] == PROMPT for body in bodies)


def test_a_provider_that_breaks_while_it_says_it_again_is_followed_by_the_next(
    stage: Stage,
) -> None:
    answer = stage.ask(
        SPEECH.begun(4, Close()), fallback=SAME.begun(2, Stall()), prefilling=going_on(SAME, SAME)
    )
    is_complete(answer)


# Prefill


@pytest.mark.parametrize("count", range(1, 8))
def test_prefill_goes_on_from_exactly_what_the_caller_has(stage: Stage, count: int) -> None:
    answer = stage.ask(SPEECH.begun(count, Close()), prefilling=going_on(SPEECH, OTHER))
    is_complete(answer)
    filled = [b for b in stage.asked("Prefilling") if b["messages"][-1]["role"] == "assistant"]
    assert len(filled) == 1
    sent = "".join(SPEECH.words[:count])
    assert filled[0]["messages"] == [*PROMPT, {"role": "assistant", "content": sent}]
    assert filled[0]["stream"] is True


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "Cannot have 2 or more assistant messages at the end of the list."),
        error(422, "the last message must be the user's"),
        error(400, "This model's maximum context length is 10", code="context_length_exceeded"),
        error(404, "no"),
        error(413, "too much"),
    ],
    ids=["400", "422", "context", "404", "413"],
)
def test_a_refusal_of_a_prefill_is_never_the_callers_fault(stage: Stage, refusal: Script) -> None:
    same = stage.ask(SPEECH.begun(4, Close()), prefilling=no_prefill(SAME, refusal))
    is_complete(same)
    is_broken(stage.ask(SPEECH.begun(4, Close()), prefilling=no_prefill(OTHER, refusal)))


@pytest.mark.parametrize("count", [4, 7])
def test_a_server_that_begins_anew_in_spite_of_a_prefill_repeats_no_word(
    stage: Stage, count: int
) -> None:
    is_complete(stage.ask(SPEECH.begun(count, Close()), prefilling=SAME))


# Settings


def test_without_continuation_a_broken_answer_ends_in_an_error(stage: Stage) -> None:
    is_broken(stage.ask(SPEECH.begun(4, Close()), "false", fallback=SAME))
    assert stage.asked("Fallback") == []
    answer = stage.ask(error(500), "false", fallback=SAME)
    assert verdict(answer, SPEECH.text) == "by fallback", "before the first word it is free"


def instructed(request: Request) -> Script:
    """Goes on when it is told to, in words and in a turn of the user's."""
    body = json.loads(request.body)
    if body["messages"] == PROMPT:
        return OTHER(request)
    last = body["messages"][-1]
    if last["role"] != "user" or SENT not in json.dumps(body["messages"]):
        return error(400, "the last message must be the user's")
    return SAME.rest(SENT)(request)


def test_best_effort_also_asks_in_words_to_go_on(stage: Stage) -> None:
    answer = stage.ask(SPEECH.begun(4, Close()), '"best-effort"', fallback=instructed)
    is_complete(answer)
    asked = stage.asked("Fallback")[-1]["messages"]
    assert asked[: len(PROMPT)] == PROMPT, "what the caller said comes first"


def test_only_best_effort_asks_in_words(stage: Stage) -> None:
    is_broken(stage.ask(SPEECH.begun(4, Close()), "true", fallback=instructed))


def test_a_whole_answer_that_is_assembled_is_continued_too(stage: Stage) -> None:
    answer = stage.ask(SPEECH.begun(4, Stall()), "assemble", whole=True, fallback=SAME)
    assert verdict(answer, SPEECH.text) == "continued"
    assert answer.json()["object"] == "chat.completion"
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    assert answer.json()["usage"]["completion_tokens"] >= len(SAME.words)


def test_an_assembled_answer_that_cannot_be_completed_is_an_error(stage: Stage) -> None:
    answer = stage.ask(SPEECH.begun(4, Close()), "assemble", whole=True)
    assert (answer.status, answer.error["code"]) == (503, "all_models_failed")


def test_a_whole_answer_where_a_stream_was_asked_for_is_taken_when_assembling(
    stage: Stage,
) -> None:
    play = whole(SPEECH.whole, 200, JSON_TYPE)
    answer = stage.ask(play, "assemble", whole=True, fallback=SAME)
    assert verdict(answer, SPEECH.text) in ("complete", "by fallback")


# What is more than text


class Other(TypedDict, total=False):
    """Who is asked behind Primary."""

    fallback: Play
    prefilling: Play


def other(who: str, play: Play) -> Other:
    return {"fallback": play} if who == "Fallback" else {"prefilling": play}


def opened(*steps: Step) -> Script:
    return (Send(head(200, SSE_TYPE, chunked=True)), *steps)


def deltas(speech: Speech, *said: Json, finish: str | None = None) -> Script:
    """A stream of these deltas; cut behind them, or brought to its `finish`."""
    events = [speech.chunk(delta) for delta in ({"role": "assistant", "content": None}, *said)]
    if finish is None:
        return opened(*map(event, events), Close())
    return opened(*map(event, (*events, speech.chunk({}, finish), "[DONE]")), Send(END))


def call(*pieces: str, name: str = "weather", call_id: str = "call_1") -> list[Json]:
    """The deltas of one tool call whose arguments come in `pieces`."""
    function = {"name": name, "arguments": ""}
    first = {"index": 0, "id": call_id, "type": "function", "function": function}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return [{"tool_calls": [each]} for each in (first, *rest)]


def arguments(answer: Answer) -> str:
    return "".join(
        tool["function"].get("arguments") or ""
        for chunk in answer.chunks()
        for choice in chunk["choices"]
        for tool in choice["delta"].get("tool_calls") or ()
    )


TOOLS = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}]}
FIRST = call('{"city"', ': "Pa')


def test_a_tool_call_is_completed_where_the_second_says_exactly_the_same(stage: Stage) -> None:
    again = deltas(SAME, *call('{"ci', 'ty": "Paris"}'), finish="tool_calls")
    answer = stage.ask(deltas(SPEECH, *FIRST), more=TOOLS, fallback=again)
    assert answer.error is None
    assert arguments(answer) == '{"city": "Paris"}'
    assert answer.events()[-1] == "[DONE]"
    assert answer.metadata["continuations"]
    names = [
        tool["function"]["name"]
        for chunk in answer.chunks()
        for choice in chunk["choices"]
        for tool in choice["delta"].get("tool_calls") or ()
        if "name" in tool["function"]
    ]
    assert names == ["weather"], "one call, told once"
    finishes = [c["choices"][0]["finish_reason"] for c in answer.chunks() if c["choices"]]
    assert finishes[-1] == "tool_calls"


@pytest.mark.parametrize(
    "again",
    [
        call('{"city": "Lyon"}'),
        call('{"city":"Paris"}'),
        call('{"city": "Paris"}', name="climate"),
        [{"content": "It rains in Paris."}],
    ],
    ids=["another value", "other spaces", "another tool", "text"],
)
@pytest.mark.parametrize("who", ["Fallback", "Prefilling"])
def test_a_tool_call_is_never_made_up(stage: Stage, again: list[Json], who: str) -> None:
    finish = "stop" if "content" in again[0] else "tool_calls"
    play = deltas(SAME, *again, finish=finish)
    answer = stage.ask(deltas(SPEECH, *FIRST), more=TOOLS, **other(who, play))
    is_broken(answer, "")
    assert arguments(answer) == '{"city": "Pa'


SCHEMA = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "place", "schema": {"type": "object"}},
    }
}
PLACE = Speech(('{"city"', ': "Pa', 'ris", "n"', ": 1}"))


def test_a_json_answer_is_completed_where_the_second_says_exactly_the_same(stage: Stage) -> None:
    answer = stage.ask(PLACE.begun(2, Close()), more=SCHEMA, fallback=PLACE.recut(3))
    is_complete(answer, PLACE.text)


@pytest.mark.parametrize("rest", ['{"city": "Paris"}', 'Sure: "ris"}', "\n"])
def test_a_json_answer_is_never_joined_to_something_invalid(stage: Stage, rest: str) -> None:
    broken = Speech((rest,))
    is_broken(stage.ask(PLACE.begun(2, Close()), more=SCHEMA, prefilling=broken), '{"city": "Pa')


def thinking(answer: Answer) -> str:
    return "".join(
        choice["delta"].get("reasoning_content") or ""
        for chunk in answer.chunks()
        for choice in chunk["choices"]
    )


def test_a_thought_is_completed_where_the_second_thinks_exactly_the_same(stage: Stage) -> None:
    again = [{"reasoning_content": "Fifteen ti"}, {"reasoning_content": "mes"}, {"content": "555"}]
    answer = stage.ask(
        deltas(SPEECH, {"reasoning_content": "Fif"}, {"reasoning_content": "teen"}),
        fallback=deltas(SAME, *again, finish="stop"),
    )
    is_complete(answer, "555")
    assert thinking(answer) == "Fifteen times"


@pytest.mark.parametrize("who", ["Fallback", "Prefilling"])
def test_a_thought_is_never_made_up(stage: Stage, who: str) -> None:
    again = [{"reasoning_content": "Fifty"}, {"content": "555"}]
    answer = stage.ask(
        deltas(SPEECH, {"reasoning_content": "Fif"}, {"reasoning_content": "teen"}),
        **other(who, deltas(SAME, *again, finish="stop")),
    )
    is_broken(answer, "")
    assert thinking(answer) == "Fifteen"


def test_two_choices_are_never_mixed(stage: Stage) -> None:
    def told(index: int, word: str) -> str:
        choice = {"index": index, "delta": {"content": word}, "finish_reason": None}
        return json.dumps({**json.loads(SPEECH.finish), "choices": [choice]})

    def ends(index: int) -> str:
        choice: Json = {"index": index, "delta": {}, "finish_reason": "stop"}
        return json.dumps({**json.loads(SPEECH.finish), "choices": [choice]})

    texts = ("one two three", "uno due tre")
    words = [[told(i, word) for word in (t[:4], t[4:8], t[8:])] for i, t in enumerate(texts)]
    mixed = [each for pair in zip(*words, strict=True) for each in pair]
    whole_answer = [*words[1], *words[0], ends(1), ends(0), "[DONE]"]
    answer = stage.ask(
        opened(*map(event, mixed[:3]), Close()),
        more={"n": 2},
        fallback=opened(*map(event, whole_answer), Send(END)),
    )
    found = ["", ""]
    for chunk, i in itertools.product(answer.chunks(), range(2)):
        for choice in chunk["choices"]:
            if choice["index"] == i:
                found[i] += choice["delta"].get("content") or ""
    if answer.error is None:
        assert tuple(found) == texts
        assert answer.events()[-1] == "[DONE]"
    else:
        assert tuple(found) == ("one two ", "uno ")


# The account


@pytest.mark.parametrize("told", [True, False], ids=["told by both", "told by the second"])
def test_the_usage_of_all_parts_is_added_up(stage: Stage, told: bool) -> None:
    counting = {
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    words = [SPEECH.chunk({"content": word}) for word in SPEECH.words[:4]]
    if told:
        words[-1] = json.dumps({**json.loads(words[-1]), **counting})
    answer = stage.ask(
        opened(*map(event, words), Close()),
        more={"stream_options": {"include_usage": True}},
        fallback=SAME,
    )
    is_complete(answer)
    usages = [chunk["usage"] for chunk in answer.chunks() if not chunk["choices"]]
    assert len(usages) == 1
    usage = usages[0]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    if told:
        assert usage["prompt_tokens"] == 3 + SAME.usage["prompt_tokens"]
        assert usage["completion_tokens"] == 4 + SAME.usage["completion_tokens"]
    else:
        assert usage["completion_tokens"] >= SAME.usage["completion_tokens"]


def test_usage_that_nobody_asked_for_is_not_told(stage: Stage) -> None:
    answer = stage.ask(SPEECH.begun(4, Close()), fallback=SAME)
    is_complete(answer)
    assert all(chunk["choices"] for chunk in answer.chunks())


def test_a_continued_stream_is_one_stream_to_a_client(stage: Stage) -> None:
    answer = stage.ask(SPEECH.begun(4, Close()), fallback=SAME)
    whole_stream(answer)
    chunks = answer.chunks()
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    told = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert told[:5] == ["", *SPEECH.words[:4]], "what had come is as it came"
    assert chunks[-1]["_metadata"]["original_provider"] == "Primary"


def test_many_broken_answers_at_once_are_each_completed(stage: Stage) -> None:
    gateway = stage.start("true")
    model = next(stage.models)
    stage.walls["Primary"].models[model] = SPEECH.begun(4, Close())
    stage.walls["Fallback"].models[model] = SAME
    wish = {"order": ["Primary"], "only": ["Primary", "Fallback"]}
    body = {"model": model, "messages": PROMPT, "stream": True, "provider": wish}
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(gateway.chat, [body] * 40))
    assert {verdict(answer, SPEECH.text) for answer in answers} <= {"continued", "by fallback"}
