"""Going on with a stream that broke off: what the client has of it, the request that continues it, one seam. Pure.

    read        the events that went out -> what they said
    request     the client's body + what was said -> a body whose answer is the rest
    Continued   the stream of the rest, told as if the first had never broken off

How engines are asked (schemas.records.CONTINUES): vLLM, SGLang and TGI want the flags continue_final_message and
add_generation_prompt=false; llama.cpp and LMDeploy continue a last message of the assistant by themselves. All of them
answer with the new text alone. A completion needs neither: its prompt grows by what was said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from providers.errors import BadResponse
from providers.openai_openai import DONE, GENERATED, ChatStream, usage_of
from providers.sse import event_bytes
from schemas.events import Usage
from schemas.records import CONTINUE_FINAL_MESSAGE
from schemas.response_events import Told as ToldEvents

#: What every event of one answer repeats.
_HEAD = ("id", "object", "created", "model", "system_fingerprint")
#: Bounds of the answer's length that count what was said.
_BOUNDS = ("max_tokens", "max_completion_tokens", "n_predict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the client has of an answer. head: what its events repeat. pieces: events that carried what was generated,
    each at least one token. finish_reason: "" = it was not finished. counted: the usage event went out, with `usage`.
    odd: why it is no plain text. events: of a response, what they told."""

    head: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    pieces: int = 0
    finish_reason: str = ""
    counted: bool = False
    usage: Usage | None = None
    odd: str = ""
    events: ToldEvents | None = None


def read(sent: bytes) -> Told:
    """What the events say that went out, one after the other."""
    heard = _Heard()
    for block in sent.split(b"\n\n"):
        if block:
            heard.event(block.removeprefix(b"data: "))
    return replace(heard.told, text="".join(heard.texts), pieces=heard.pieces)


@dataclass(slots=True)
class _Heard:
    """Events one by one; what grows with each of them stands beside `told`."""

    told: Told = field(default_factory=Told)
    texts: list[str] = field(default_factory=list)
    pieces: int = 0

    def event(self, data: bytes) -> None:
        """One event more."""
        try:
            event = json.loads(data)
            choices = event.get("choices") or []
            if not self.told.head:
                self.told = replace(self.told, head={name: event[name] for name in _HEAD if name in event})
            if counts := event.get("usage"):
                self.told = replace(self.told, counted=True, usage=usage_of(msgspec.Raw(_dump(counts))))
            said = [self._said(choice) for choice in choices]
        except (ValueError, AttributeError, TypeError, RecursionError):
            self._odd("an event that cannot be read")
            return
        self.pieces += any(said)
        if len(choices) > 1 or (choices and choices[0].get("index", 0) != 0):
            self._odd("more than one choice")

    def _said(self, choice: Mapping[str, Any]) -> bool:
        """One choice of an event; whether it carried anything generated."""
        spoken = dict(choice.get("delta") or {"content": choice.get("text")})
        generated = any(spoken.get(name) for name in GENERATED)
        spoken.pop("role", None)
        text = spoken.pop("content", None) or ""
        strange = [name for name, value in spoken.items() if value]
        if choice.get("logprobs"):
            strange.append("logprobs")
        if isinstance(text, str):
            self.texts.append(text)
        else:
            strange.append("content that is no text")
        if choice.get("finish_reason") and not self.told.finish_reason:
            self.told = replace(self.told, finish_reason=choice["finish_reason"])
        if strange:
            self._odd(f"it carried {strange[0]}")
        return generated

    def _odd(self, reason: str) -> None:
        if not self.told.odd:
            self.told = replace(self.told, odd=reason)


def left_of(body: Mapping[str, Any], told: Told) -> int | None:
    """Tokens that the request's own bounds leave for the rest; None = they set none."""
    bounds = [body[name] for name in _BOUNDS if isinstance(body.get(name), int) and body[name] >= 0]
    return max(min(bounds) - told.pieces, 0) if bounds else None


def request(body: bytes, told: Told, how: str) -> bytes:
    """The body that asks for the rest. how: one of schemas.records.CONTINUES but "". Nothing said: the body as it is,
    so that the answer begins anew."""
    if not told.text:
        return body
    asked: dict[str, Any] = json.loads(body)
    for name in _BOUNDS:
        if isinstance(asked.get(name), int) and asked[name] >= 0:
            asked[name] = max(asked[name] - told.pieces, 1)
    if isinstance(asked.get("min_tokens"), int):
        asked["min_tokens"] = max(asked["min_tokens"] - told.pieces, 0)
    if "messages" not in asked:
        asked["prompt"] += told.text
        return _dump(asked)
    asked["messages"] = [*asked["messages"], {"role": "assistant", "content": told.text}]
    if how == CONTINUE_FINAL_MESSAGE:
        asked |= {"add_generation_prompt": False, "continue_final_message": True}
    return _dump(asked)


class Continued(ChatStream):
    """The rest of an answer on its way, under the name and the time of its beginning. usage counts the whole answer:
    what the engine of the rest counted, with what was said as its answer and not as its prompt; always an estimate,
    and never more than that engine counted in all."""

    def __init__(self, public_model: str, show_usage: bool, told: Told) -> None:
        super().__init__(public_model, show_usage)
        self.pieces = told.pieces
        self._told = told

    def take(self, data: bytes) -> bytes | None:
        """See ChatStream.take; who speaks is not said again."""
        if not data.startswith(b"[DONE]"):
            data = self._as_the_first(data)
            if not data:
                return None
        event = super().take(data)
        if self.usage is not None:
            self.usage = msgspec.structs.replace(self.usage, estimated=True)
        return event

    def _as_the_first(self, data: bytes) -> bytes:
        """The event as the first engine would have sent it; b"" when it says nothing that is not known."""
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise BadResponse("the engine sent something that is not JSON") from None
        if not isinstance(event, dict) or event.get("error"):
            return data
        for name in _HEAD:
            event.pop(name, None)
        if isinstance(event.get("usage"), dict):
            event["usage"] = whole_usage(event["usage"], self._told.pieces)
        choices = event.get("choices") or []
        if choices and not event.get("usage") and all(_is_only_a_speaker(choice) for choice in choices):
            return b""
        return _dump({**self._told.head, **event})


def _is_only_a_speaker(choice: object) -> bool:
    """Whether nothing is left of a choice without its role, which is taken out."""
    if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
        return False
    named = choice["delta"].pop("role", None) is not None
    return named and not choice.get("finish_reason") and not any(choice["delta"].values())


def whole_usage(counts: Mapping[str, Any], said: int) -> dict[str, Any]:
    """An engine's counts of a rest, as those of the whole answer. said: tokens before it. BadResponse."""
    try:
        seen, made = int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0)
    except (TypeError, ValueError):
        raise BadResponse("the engine's counts are no numbers") from None
    prompt = max(seen - said, 0)
    completion = made + seen - prompt
    details = counts.get("prompt_tokens_details")
    found = {**counts, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        found["prompt_tokens_details"] = {**details, "cached_tokens": min(details["cached_tokens"], prompt)}
    return found


def closing(told: Told, usage: Usage | None) -> tuple[bytes, int]:
    """The end of an answer that lacks nothing but its end, and how many events that are. usage: to be shown."""
    events: list[bytes] = []
    if not told.finish_reason:
        said: dict[str, Any] = {"text": ""} if told.head.get("object") == "text_completion" else {"delta": {}}
        events.append(_dump({**told.head, "choices": [{"index": 0, **said, "finish_reason": "length"}]}))
    if usage is not None and not told.counted:
        counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        counts["total_tokens"] = sum(counts.values())
        events.append(_dump({**told.head, "choices": [], "usage": counts}))
    return b"".join([event_bytes(event) for event in events]) + DONE, len(events) + 1


def _dump(value: object) -> bytes:
    """JSON as it is, but for half an emoji, which only an escape can carry."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
