"""OpenAI's Chat Completions, the request: what callers send to `/chat/completions`.

Source: OpenAI's API reference, with the ranges of Manyways' own contract. The body passes
through: known fields are checked, our own five are taken out, `model` is set to the
provider's name for it, and everything else, unknown fields included, keeps its very bytes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.errors import Refusal
from manyways.types import NO_NEEDS, Capability, Needs

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_NEED_CONTENT = frozenset({"system", "developer", "user", "tool"})
_OURS = frozenset({"provider", "models", "web_search", "transforms"})
_TRUE = Raw(b"true")
_NONE = Raw(b'"none"')
_USAGE_ASKED = Raw(b'{"include_usage":true}')

_LONG_BODY = 4096
"""Bytes of a body below which its prompt fits every model: it is not worth counting."""

_CHARACTERS_A_TOKEN = 8
"""More than tokenizers get out of the prose, code or data of any language, on the whole, if
indentation is left out: there they take many blanks for one token."""

_BLANKS = "    "

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Positive = Annotated[int, Meta(ge=1)]


class _ImageUrl(Struct):
    url: str
    detail: str | None = None


class _Part(Struct):
    type: str
    text: str | None = None
    image_url: _ImageUrl | str | None = None
    input_audio: dict[str, Raw] | None = None
    file: dict[str, Raw] | None = None


class _Function(Struct):
    name: str
    arguments: str = ""


class _ToolCall(Struct):
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class _ToolFunction(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class _Tool(Struct):
    type: str
    function: _ToolFunction | None = None


class _ResponseFormat(Struct):
    type: str
    json_schema: dict[str, Raw] | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


_Name = Annotated[str, Meta(max_length=512)]
_GivenName = Annotated[str, Meta(min_length=1, max_length=512)]
_Names = Annotated[list[_Name], Meta(max_length=100)]


class ProviderChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """The caller's wishes about providers: where to begin, and what is not to be used."""

    order: _Names | None = None
    only: _Names | None = None
    ignore: _Names | None = None
    allow_fallbacks: bool | None = None


class ChatBody(Struct):
    """What is checked of a body; everything else passes through unseen."""

    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: _Name | None = None
    provider: _Name | ProviderChoice | None = None
    models: Annotated[list[_GivenName], Meta(max_length=100)] | None = None
    web_search: bool | dict[str, Raw] | None = None
    transforms: list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Raw] | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    user: str | None = None
    modalities: list[str] | None = None


NO_CHOICE: Final = ProviderChoice()

_decode_body = msgspec.json.Decoder(ChatBody).decode


class ChatRequest(Struct, frozen=True):
    """A checked request. `fields` are what goes on to the provider, but for the model.

    `model` is the first name that was asked for. `models` is the caller's own list, `model`
    at its head and each name once: only these are wanted, in this order. Without a list of
    the caller's it is empty.
    """

    fields: Fields
    model: str
    provider: ProviderChoice
    stream: bool
    choices: int
    models: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    """False where the caller wants nobody but the first who can serve the request."""
    needs: Needs = NO_NEEDS
    structured: bool = False
    """The answer is to be JSON, or of another form than plain text."""
    logprobs: bool = False
    ends_with_answer: bool = False
    """The caller's own last message is the assistant's, to be gone on from."""
    wants_usage: bool = True
    """The caller is to be told the usage: with every whole answer, with a stream that asks."""
    max_output: int | None = None
    """The most tokens that all choices together may come to: the caller's limit or, without
    one, that of the defaults."""
    sets_output: bool = False
    """Whether that limit is the caller's own."""

    def encode_for(
        self,
        upstream_model: str,
        *,
        stream: bool | None = None,
        include_usage: bool | None = None,
        add_messages: Sequence[Raw] = (),
    ) -> bytes:
        """The body to send to a provider that calls the model `upstream_model`.

        `stream` takes the place of what the caller asked for. `include_usage` has a stream asked
        for its usage, whatever the caller said; where it is `False`, no `stream_options` are sent
        at all, as some providers refuse them. `None` leaves that to the caller, but a stream in
        place of a whole answer is asked. `add_messages`, JSON each, go behind the caller's own,
        whose bytes stay as they are.
        """
        fields = {**self.fields, "model": json_text.raw(upstream_model)}
        if stream is not None and stream != self.stream:
            fields["stream"] = json_text.raw(stream)
            include_usage = stream and include_usage is not False
        if include_usage is False:
            fields.pop("stream_options", None)  # refused where there is no stream, too
        elif include_usage and (self.stream if stream is None else stream):
            options = fields.get("stream_options", json_text.NULL)
            if options == json_text.NULL:
                fields["stream_options"] = _USAGE_ASKED
            else:
                known = json_text.decode_object(bytes(options))
                fields["stream_options"] = json_text.raw(known | {"include_usage": _TRUE})
        if add_messages:
            messages = bytes(fields["messages"]).rstrip().removesuffix(b"]")
            fields["messages"] = Raw(b",".join((messages, *map(bytes, add_messages))) + b"]")
        return json_text.encode(fields)


def decode_request(body: bytes, defaults: Mapping[str, float] = {}) -> ChatRequest:
    """Check a request's body. `defaults` are sent on where the caller says nothing.

    Raises `Refusal`: `invalid_request` for what is wrong, `not_supported` for what is not
    served yet; `param` names the field.
    """
    try:
        fields = json_text.decode_object(body)
        twice = json_text.duplicate_key(body, fields)
    except json_text.NotJson as error:
        raise Refusal("invalid_request", f"The request body is not valid JSON: {error}.") from None
    if twice is not None:
        raise Refusal(
            "invalid_request", f"{twice}: the field stands twice; send it once.", param=twice
        )
    ours = _OURS.intersection(fields)
    nothing = [name for name in ours if not json_text.means_something(fields[name])] if ours else ()
    for name in nothing:
        del fields[name]
    try:
        checked = _decode_body(json_text.encode(fields) if nothing else body)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("invalid_request", "The request body is not valid JSON.") from None
    _check_messages(checked.messages)
    _check_not_yet(checked, fields)
    models = _models(checked)
    for name in ours:
        fields.pop(name, None)
    if defaults:
        _fill(fields, defaults)
    provider = checked.provider or NO_CHOICE
    if isinstance(provider, str):
        provider = ProviderChoice(order=[provider])
    return ChatRequest(
        fields=fields,
        model=models[0],
        provider=provider,
        stream=bool(checked.stream),
        choices=checked.n or 1,
        models=models if checked.models else (),
        allow_fallbacks=provider.allow_fallbacks is not False,
        needs=_needs(checked, fields, len(body)),
        structured=checked.response_format is not None and checked.response_format.type != "text",
        logprobs=bool(checked.logprobs),
        ends_with_answer=checked.messages[-1].role == "assistant",
        wants_usage=not checked.stream or _asks_for_usage(checked.stream_options),
        max_output=_max_output(checked, defaults)
        if defaults or checked.max_tokens or checked.max_completion_tokens
        else None,
        sets_output=bool(checked.max_tokens or checked.max_completion_tokens),
    )


def request_timeout(value: bytes | str | None) -> float | None:
    """The caller's own time limit in seconds, of the header `X-Request-Timeout`.

    A number of seconds, or a number with a unit as durations have in the configuration: `ms`,
    `s`, `m`, `h`, `d`. Raises `Refusal` where it is no time that could pass.
    """
    if value is None:
        return None
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    written = _DURATION.fullmatch(text.strip(" \t"))
    seconds = float(written[1]) * _UNITS[written[2]] if written else 0.0
    if not 0 < seconds < math.inf:
        raise Refusal(
            "invalid_request",
            "X-Request-Timeout: must be a time longer than 0, in seconds or with a unit,"
            ' such as "30", "2.5", "500ms" or "2m".',
            param="X-Request-Timeout",
        )
    return seconds


_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d|)")
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _models(body: ChatBody) -> tuple[str, ...]:
    """All names that were asked for, `model` first. Raises `Refusal` if there is none."""
    if body.models:
        named = [body.model, *body.models] if body.model else body.models
        return tuple(dict.fromkeys(named))
    if not body.model:
        raise Refusal(
            "invalid_request",
            'model: a model is needed, such as "gpt-4o", "Capi/gpt-4o" or "auto".',
            param="model",
        )
    return (body.model,)


def _needs(body: ChatBody, fields: Fields, size: int) -> Needs:
    capabilities: list[Capability] = []
    if (body.tools or "functions" in fields) and _asks_for_tools(body, fields):
        capabilities.append("tools")
    for message in body.messages:
        if type(message.content) is list and any(map(_is_image, message.content)):
            capabilities.append("vision")
            break
    if body.response_format is not None and body.response_format.type == "json_schema":
        capabilities.append("json_schema")
    if not capabilities and size < _LONG_BODY:
        return NO_NEEDS
    tokens = 0 if size < _LONG_BODY else _characters(body.messages) // _CHARACTERS_A_TOKEN
    return Needs(capabilities=tuple(capabilities), prompt_tokens=tokens)


def _asks_for_usage(options: _StreamOptions | None) -> bool:
    return options is not None and options.include_usage is True


def _max_output(body: ChatBody, defaults: Mapping[str, float]) -> int | None:
    given = (body.max_completion_tokens or 0, body.max_tokens or 0)
    most = max(given) or int(defaults.get("max_tokens", 0))
    return most * (body.n or 1) or None


def _asks_for_tools(body: ChatBody, fields: Fields) -> bool:
    """Tools may be listed and be out of use all the same."""
    if body.tools:
        return body.tool_choice != "none"
    return json_text.means_something(fields["functions"]) and fields.get("function_call") != _NONE


def _is_image(part: _Part) -> bool:
    return part.type == "image_url" or part.image_url is not None


def _characters(messages: list[_Message]) -> int:
    """How long the text of all messages is, without its indentation; pictures are no text."""
    count = 0
    for message in messages:
        content = message.content or ()
        texts = (content,) if isinstance(content, str) else [part.text or "" for part in content]
        for text in texts:
            count += len(text) - len(_BLANKS) * text.count(_BLANKS) - text.count("\t")
    return count


def _check_messages(messages: list[_Message]) -> None:
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            raise Refusal(
                "invalid_request",
                f"messages[{i}].role: must be one of {', '.join(ROLES)}.",
                param=f"messages[{i}].role",
            )
        if message.content is None and message.role in _NEED_CONTENT:
            raise Refusal(
                "invalid_request",
                f"messages[{i}].content: a {message.role} message needs content,"
                " a string or a list of parts.",
                param=f"messages[{i}].content",
            )


def _check_not_yet(body: ChatBody, fields: Fields) -> None:
    """What is asked for and not served yet is refused in plain words, never ignored."""
    for name, what in (
        ("web_search", "web search"),
        ("transforms", "shortening of long conversations"),
    ):
        if name in fields:
            raise Refusal(
                "not_supported", f"{name}: {what} is not served yet; leave it out.", param=name
            )
    if "audio" in (body.modalities or ()):
        raise Refusal(
            "not_supported", "modalities: audio answers are not served yet.", param="modalities"
        )


def _fill(fields: Fields, defaults: Mapping[str, float]) -> None:
    for name, value in defaults.items():
        if name == "max_tokens" and "max_completion_tokens" in fields:
            continue
        if fields.get(name, json_text.NULL) == json_text.NULL:
            fields[name] = json_text.raw(value)


_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)
_EXPECTED_GOT = re.compile(r"^Expected `(.+?)`(.*?)(?:, got `(.+?)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.+)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(.+)`$", re.DOTALL)
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _wrong_field(text: str) -> Refusal:
    """msgspec's words for a wrong value, in ours, naming the field as callers write it."""
    at = _AT.search(text)
    param = at.group(1).replace("[...]", "") if at else ""
    reason = text[: at.start()] if at else text
    missing = _MISSING.match(reason)
    unknown = _UNKNOWN.match(reason)
    if unknown:
        param = f"{param}.{unknown.group(1)}" if param else unknown.group(1)
        return Refusal("not_supported", f"{param}: is not served; leave it out.", param=param)
    if missing:
        param = f"{param}.{missing.group(1)}" if param else missing.group(1)
        words = "the field is required."
    else:
        expected = _EXPECTED_GOT.match(reason)
        words = f"{_in_words(expected)}." if expected else f"{reason}."
    return Refusal("invalid_request", f"{param}: {words}" if param else words, param=param or None)


def _in_words(match: re.Match[str]) -> str:
    kinds = [_WORDS.get(kind.strip(), kind.strip()) for kind in match.group(1).split("|")]
    wanted = " or ".join(kind for kind in kinds if kind != "null") or "null"
    bound = (
        match.group(2)
        .replace(" of length >= 1", " that is not empty")
        .replace(" of length <=", " of length up to")
        .strip()
    )
    got = match.group(3)
    text = f"must be {wanted}{' ' + bound if bound else ''}"
    return f"{text}, not {_WORDS.get(got, got)}" if got else text
