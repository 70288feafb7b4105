"""From an OpenAI request (chat, completion, embedding) to an OpenAI-compatible engine. Pure: bytes in, bytes out.

    request     the client's normalised body -> what the engine gets: its own model name, usage asked for
    answer      a unary answer -> what the client gets: the public model name; usage and finish reason taken out
    ChatStream  the same for a stream, event by event

Everything unknown is passed on untouched in both directions. No event is rebuilt: it is decoded once into the few
fields that matter (0.4 us), which also proves that it is JSON, and the model's name is replaced in its bytes. The
replacement cannot hit text, because a quote inside a JSON string is escaped; where the name's bytes are not found
exactly once the event's top level alone is rebuilt.
"""

from __future__ import annotations

import json
import re

import msgspec

from providers.errors import BadResponse, Broken
from providers.openai_errors import error_of
from providers.ports import Answered
from providers.sse import event_bytes
from schemas.events import Usage

DONE = b"data: [DONE]\n\n"
_NAMED = re.compile(rb'(?<!\\)"model"\s*:\s*"(?:[^"\\]|\\.)*"')
#: Half an emoji as an escape is JSON (RFC 8259 section 8.2) that msgspec refuses: read as U+FFFD, passed on as it is.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_CONTENT = b'"content":"'
_PLAIN = re.compile(rb"[ !#-\[\]-~]+")
_NOTHING = msgspec.Raw(b"")
#: Where generated text can stand in a delta or message.
GENERATED = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
_MOST_TOKENS = 10**12  # of one answer: a larger count is none


class _Delta(msgspec.Struct):
    """GENERATED as fields; only whether it is there is asked, so nothing is decoded."""

    content: msgspec.Raw = _NOTHING
    reasoning_content: msgspec.Raw = _NOTHING
    reasoning: msgspec.Raw = _NOTHING
    refusal: msgspec.Raw = _NOTHING
    tool_calls: msgspec.Raw = _NOTHING
    function_call: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct):
    """Of a chat (delta, message) or of a completion (text)."""

    index: int = 0
    text: msgspec.Raw = _NOTHING
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    model: msgspec.Raw = _NOTHING
    choices: list[_Choice] | None = None
    data: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


_Fields = dict[str, msgspec.Raw]
_encoder = msgspec.json.Encoder()
_fields = msgspec.json.Decoder(_Fields)
_answers = msgspec.json.Decoder(_Answer)
_counts = msgspec.json.Decoder(_Counts)


def request(body: bytes, upstream_model: str, stream: bool) -> bytes:
    """The engine's request. `upstream_model` "" keeps the public name. The door has let only objects in."""
    fields = _object(body)
    if upstream_model:
        fields["model"] = msgspec.Raw(_encoder.encode(upstream_model))
    if stream:
        options = _options(fields)
        options["include_usage"] = msgspec.Raw(b"true")
        fields["stream_options"] = msgspec.Raw(_encoder.encode(options))
    return _encoder.encode(fields)


def wants_usage(body: bytes) -> bool:
    """Whether the client asked for the usage chunk itself."""
    return bytes(_options(_object(body)).get("include_usage", b"")) == b"true"


def answer(body: bytes, public_model: str, holds: str = "choices") -> Answered:
    """A unary answer for the client. holds: where its substance stands, `choices` or (embeddings) `data`.

    BadResponse when that is missing, EngineError when it is an error."""
    found = _decoded(body)
    if _present(found.error):
        raise error_of(msgspec.json.decode(found.error))
    choices = found.choices or []
    if found.choices is None if holds == "choices" else not _present(found.data):
        raise BadResponse(f"the engine's answer has no {holds}")
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    usage = usage_of(found.usage)
    return Answered(
        body=_renamed(body, bytes(found.model), _encoder.encode(public_model)),
        usage=usage,
        finish_reason=reasons[0] if reasons else "",
        text_bytes=0 if usage else sum([_text_bytes(choice.message) + _raw_bytes(choice.text) for choice in choices]),
    )


def usage_of(counts: msgspec.Raw) -> Usage | None:
    """The engine's own counts; None when absent, null or not counts."""
    if not _present(counts):
        return None
    try:
        found = _counts.decode(counts)
    except msgspec.MsgspecError:
        return None
    if max(found.prompt_tokens, found.completion_tokens) > _MOST_TOKENS:
        return None
    details, prompt = found.prompt_tokens_details, max(found.prompt_tokens, 0)
    cached = (details.cached_tokens if details else 0) or 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=max(found.completion_tokens, 0),
        cached_tokens=min(max(cached, 0), prompt),
    )


class _Form:
    """An event that was understood, around the words in it. One that differs from it in nothing but plain words (no
    quote, no escape, ASCII) is as good JSON and means the same: its words are put into what the client was told."""

    __slots__ = ("_after", "_before", "_head", "_least", "_tail")

    def __init__(self, before: bytes, after: bytes, head: bytes, tail: bytes) -> None:
        self._before, self._after, self._head, self._tail = before, after, head, tail
        self._least = len(before) + len(after)

    def filled(self, data: bytes) -> bytes | None:
        """What the client is told of this event; None when it has another form."""
        if not data.startswith(self._before) or not data.endswith(self._after) or len(data) <= self._least:
            return None
        words = data[len(self._before) : len(data) - len(self._after)]
        return self._head + words + self._tail if _PLAIN.fullmatch(words) else None


def _form_of(data: bytes, told: bytes, choice: _Choice) -> _Form | None:
    """The form of an event whose one choice says plain words and nothing else. The mark can't stand inside a string,
    where a quote is escaped; where it stands once, in data and in what was told, it is that of these words."""
    if choice.delta is None or data.count(_CONTENT) != 1 or told.count(_CONTENT) != 1:
        return None
    words = bytes(choice.delta.content)[1:-1]
    begin, shown = data.index(_CONTENT) + len(_CONTENT), told.index(_CONTENT) + len(_CONTENT)
    end = begin + len(words)
    tail = shown + len(words)
    if not _PLAIN.fullmatch(words) or data[begin : end + 1] != words + b'"' or told[shown : tail + 1] != words + b'"':
        return None
    return _Form(data[:begin], data[end:], told[:shown], told[tail:])


class ChatStream:
    """One stream on its way, of a chat or of a completion. usage: the engine's counts once they came. pieces: events
    that carried generated text, each at least one token of the engine, so an estimate from them is never above what it
    counted. One event of the engine is one of the client, or none."""

    def __init__(self, public_model: str, show_usage: bool) -> None:
        self.usage: Usage | None = None
        self.finish_reason = ""
        self.pieces = 0
        self.done = False
        self.told = 1
        self._name = _encoder.encode(public_model)
        self._show_usage = show_usage
        self._found, self._renamed = b"", b'"model":' + self._name
        self._form: _Form | None = None
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    def take(self, data: bytes) -> bytes | None:
        """One event for the client, or None when it is not for its eyes. Nothing counts after [DONE].

        BadResponse when it is not JSON (such an event is never passed on), EngineError when it is an error."""
        if self.done:
            return None
        if self._form is not None and (told := self._form.filled(data)) is not None:
            self.pieces += 1
            return told
        if data.startswith(b"[DONE]"):
            self.done = True
            return None
        found = _decoded(data)
        if _present(found.error):
            raise error_of({"error": msgspec.json.decode(found.error)})
        self._note(found.choices)
        if _present(found.usage):
            self.usage = usage_of(found.usage) or self.usage
            if not self._show_usage:
                if not found.choices:
                    return None
                data = _without_usage(data)
            return event_bytes(self._rename(data))
        told = event_bytes(self._rename(data))
        if found.choices and len(found.choices) == 1 and not found.choices[0].finish_reason:
            self._form = _form_of(data, told, found.choices[0]) or self._form
        return told

    def ending(self, ended_ms: int = 0) -> bytes:
        """The last bytes. Broken when the engine neither said [DONE] nor finished every choice it began;
        BadResponse when it said [DONE] and nothing else."""
        if not self._seen:
            raise BadResponse("the engine's stream carried no answer")
        if not self.done and self._seen - self._finished:
            raise Broken("the engine's stream ended before the answer was complete")
        return DONE

    def _note(self, choices: list[_Choice] | None) -> None:
        generated = False
        for choice in choices or ():
            self._seen.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
                self.finish_reason = self.finish_reason or choice.finish_reason
            generated = generated or _says_something(choice)
        self.pieces += generated

    def _rename(self, data: bytes) -> bytes:
        """The engine repeats the name in the same bytes in every event: learn them from the first."""
        if self._found and data.count(self._found) == 1:
            return data.replace(self._found, self._renamed)
        found = _NAMED.findall(data)
        if len(found) == 1 and "model" in _object(data):
            self._found = found[0]
            return data.replace(self._found, self._renamed)
        return _renamed_by_field(data, self._name)


def _decoded(data: bytes) -> _Answer:
    """The few fields that matter. An object whose known fields have unknown shapes is passed on unread."""
    try:
        if not data.isascii():
            data.decode()
        return _answers.decode(data)
    except msgspec.ValidationError:
        _object(data)
        return _Answer(choices=[_Choice()])
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        mended = _SURROGATE.sub(rb"\\ufffd", data)
        if mended == data:
            raise BadResponse("the engine sent something that is not JSON") from None
        return _decoded(mended)


def _too_deep() -> BadResponse:
    return BadResponse("the engine sent JSON that is nested too deeply")


def _object(data: bytes) -> _Fields:
    try:
        return _fields.decode(data)
    except RecursionError:
        raise _too_deep() from None
    except msgspec.MsgspecError:
        if _SURROGATE.search(data):
            return _with_halves(data)
        raise BadResponse("the engine sent something that is not a JSON object") from None


def _with_halves(data: bytes) -> _Fields:
    """The fields of an object in which an escape is half an emoji: the standard library reads and writes it so."""
    try:
        found = json.loads(data)
        return {name: msgspec.Raw(json.dumps(value, allow_nan=False).encode()) for name, value in found.items()}
    except (ValueError, AttributeError, RecursionError):
        raise BadResponse("the engine sent something that is not a JSON object") from None


def _options(fields: _Fields) -> _Fields:
    """The client's stream_options; anything but an object counts as none."""
    try:
        return _fields.decode(fields.get("stream_options", b"{}"))
    except msgspec.MsgspecError:
        return {}


def _renamed(data: bytes, found: bytes, name: bytes) -> bytes:
    """With this name instead of the one that was found at the top. Where that stands more than once, or not as most
    write it, the top level is rebuilt."""
    mark = b'"model":' + found
    if found and data.count(b'"model"') == 1 and data.count(mark) == 1:
        return data.replace(mark, b'"model":' + name)
    return _renamed_by_field(data, name)


def _renamed_by_field(data: bytes, name: bytes) -> bytes:
    """Rebuild the top level alone; the values keep their bytes."""
    fields = _object(data)
    if "model" not in fields:
        return data
    fields["model"] = msgspec.Raw(name)
    return _encoder.encode(fields)


def _without_usage(data: bytes) -> bytes:
    fields = _object(data)
    fields.pop("usage", None)
    return _encoder.encode(fields)


def _present(value: msgspec.Raw) -> bool:
    return value is not _NOTHING and bytes(value) not in (b"", b"null")


def _says_something(choice: _Choice) -> bool:
    """Whether a choice of a stream carries generated text; nearly always its content does."""
    delta = choice.delta
    if delta is not None and _raw_bytes(delta.content):
        return True
    return _text_bytes(delta) > 0 or _raw_bytes(choice.text) > 0


def _text_bytes(delta: _Delta | None) -> int:
    """Bytes of generated text in a delta or message, as they stand in JSON."""
    if delta is None:
        return 0
    total = 0
    for part in (
        delta.content,
        delta.reasoning_content,
        delta.reasoning,
        delta.refusal,
        delta.tool_calls,
        delta.function_call,
    ):
        total += _raw_bytes(part)
    return total


def _raw_bytes(part: msgspec.Raw) -> int:
    """Bytes of a value, quotes aside; null, "" and [] count nothing."""
    raw = b"" if part is _NOTHING else bytes(part)
    return len(raw) - 2 if len(raw) > 2 and raw != b"null" else 0
