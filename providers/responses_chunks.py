"""A chat completion, or its chunks, as a response or its events. Pure.

Unlike a chat's own stream (openai_openai), every event is rebuilt, so what cannot be understood cannot be passed on: it
is a BadResponse.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from providers import openai_openai
from providers.errors import BadResponse, Broken
from providers.openai_errors import error_of
from providers.ports import Answered, Question
from providers.responses_events import REFUSAL, TEXT, THOUGHT, Telling
from providers.responses_object import begun, dump, usage_object
from schemas.errors import UNREADABLE
from schemas.events import Usage

#: A finish_reason of a chat -> why a response is incomplete; with any other it is complete.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
#: Whole pairs of escapes, and halves of one, which JSON may hold and msgspec refuses.
_SURROGATES = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_NONE = msgspec.Raw(b"")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    """A delta of a chunk, or the message of a whole answer."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


_chunks = msgspec.json.Decoder(_Chunk)


def answer(question: Question, body: bytes, ended_ms: int = 0) -> Answered:
    """A unary answer for the client. BadResponse, EngineError."""
    found = openai_openai.answer(body, question.model)
    stream = ResponseStream(question)
    response = stream.whole(body, ended_ms)
    return Answered(
        body=dump(response), usage=found.usage, finish_reason=stream.finish_reason, text_bytes=found.text_bytes
    )


class ResponseStream:
    """Implements providers.ports.EngineStream: one chunk becomes several events, or none."""

    def __init__(self, question: Question, telling: Telling | None = None) -> None:
        """telling: of what went out already."""
        self.usage: Usage | None = None
        self.finish_reason = ""
        self.pieces = 0
        self.done = False
        self.told = 0
        self._counts = _NONE
        self._begun = False
        self._telling = telling or Telling(begun(question))
        self._calls: dict[int, _Pending] = {}
        self._newest = -1

    def take(self, data: bytes) -> bytes | None:
        """See EngineStream. Nothing counts after [DONE]."""
        if self.done:
            return None
        if data.startswith(b"[DONE]"):
            self.done = True
            return None
        self._take(data)
        return self._out() or None

    def ending(self, ended_ms: int = 0) -> bytes:
        """See EngineStream."""
        if not self._begun:
            raise BadResponse("the engine's stream carried no answer")
        if not self.done and not self.finish_reason:
            raise Broken("the engine's stream ended before the answer was complete")
        self._end(ended_ms)
        return self._out()

    def whole(self, body: bytes, ended_ms: int = 0) -> dict[str, Any]:
        """The response that a unary answer is."""
        self._take(body)
        if not self._begun:
            raise BadResponse("the engine's answer has no choices")
        return self._end(ended_ms)

    def _take(self, data: bytes) -> None:
        chunk = _decoded(data)
        if _present(chunk.error):
            raise error_of({"error": msgspec.json.decode(chunk.error)})
        if _present(chunk.usage):
            self._count(chunk.usage)
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choice(choice)

    def _count(self, counts: msgspec.Raw) -> None:
        self._counts, self.usage = counts, openai_openai.usage_of(counts) or self.usage

    def _choice(self, choice: _Choice) -> None:
        self._begun = True
        self._telling.begin()
        said = choice.delta or choice.message
        if said is not None:
            self.pieces += self._hear(said)
        self.finish_reason = self.finish_reason or choice.finish_reason or ""

    def _hear(self, said: _Said) -> bool:
        """Whether anything was generated."""
        generated = False
        thoughts = said.reasoning_content or said.reasoning
        for kind, value in ((THOUGHT, thoughts), (TEXT, said.content), (REFUSAL, said.refusal)):
            if value and (text := _text(value)):
                self._telling.say(kind, text)
                generated = True
        for number, call in enumerate(said.tool_calls or ()):
            self._call(number, call)
            generated = True
        return generated

    def _call(self, number: int, call: _Call) -> None:
        """A piece of a call. Some engines number all calls 0 and tell them apart by their ids."""
        index = number if call.index is None else call.index
        name = (call.function.name if call.function else None) or ""
        pending = self._calls.get(index)
        if pending is None or (name and call.id and pending.named and call.id != pending.id):
            self._newest += 1
            pending = self._calls[index] = _Pending(self._newest)
        pending.id = pending.id or call.id or ""
        pending.arguments += _arguments(call.function)
        if name and not pending.named:
            pending.named = True
            self._telling.call(pending.key, pending.id, name)
        if pending.named and pending.arguments:
            self._telling.argue(pending.key, pending.arguments)
            pending.arguments = ""

    def _end(self, ended_ms: int) -> dict[str, Any]:
        if not all(call.named for call in self._calls.values()):
            raise BadResponse("the engine called a function without a name")
        return self._telling.end(usage_object(self._counts), _INCOMPLETE.get(self.finish_reason, ""), ended_ms)

    def _out(self) -> bytes:
        events = self._telling.told()
        self.told = len(events)
        return b"".join(events)


class _Pending:
    """A call as the engine tells it. arguments: what came before its name."""

    __slots__ = ("arguments", "id", "key", "named")

    def __init__(self, key: int) -> None:
        self.key = key
        self.id = ""
        self.named = False
        self.arguments = ""


def _decoded(data: bytes) -> _Chunk:
    try:
        if not data.isascii():
            data.decode()
        return _chunks.decode(data)
    except msgspec.ValidationError:
        raise BadResponse("the engine sent a chunk of an unknown shape") from None
    except UNREADABLE:
        mended = _SURROGATES.sub(lambda found: found[1] or rb"\ufffd", data)
        if mended == data:
            raise BadResponse("the engine sent something that is not JSON") from None
        return _decoded(mended)


def _present(value: msgspec.Raw) -> bool:
    return bytes(value) not in (b"", b"null")


def _text(value: Any) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(value, list):
        texts = [part.get("text") for part in value if isinstance(part, dict)]
        value = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(value, str):
        raise BadResponse("the engine sent a text of an unknown shape")
    return value


def _arguments(function: _Function | None) -> str:
    value = function.arguments if function else None
    if isinstance(value, dict):
        return dump(value).decode()
    return value if isinstance(value, str) else ""
