"""The items of a Responses request as the messages of a chat. Pure.

    message               a message; developer becomes system, which every chat template knows
    function_call         a tool call of the assistant's message right before it, else of a new one
    function_call_output  a message of the role tool
    reasoning             reasoning_content of the message whose calls follow it; else left out, as chat templates do

Nothing is joined that stood apart, so what the guards read is what the model reads. What a chat has no words for (items
of hosted tools, references to files) is Untranslatable, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from providers.errors import Untranslatable

Message = dict[str, Any]
_DETAILS = ("auto", "low", "high")


def messages_of(instructions: Any, items: Any) -> list[Message]:
    """The messages of a chat: the instructions in front, then the items in their order. Untranslatable."""
    if instructions is not None and not isinstance(instructions, str):
        raise Untranslatable("instructions", "Invalid value for 'instructions': it must be a text.")
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    if not isinstance(items, list):
        raise Untranslatable("input", "Invalid value for 'input': it must be a text or a list of items.")
    chat = _Chat([{"role": "system", "content": instructions}] if instructions else [])
    for number, item in enumerate(items):
        chat.add(f"input[{number}]", item)
    return chat.messages


class _Chat:
    """Messages one by one. `_turn`: the assistant's message that a call would join; `_thoughts`: said before it."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self._turn: Message | None = None
        self._thoughts = ""

    def add(self, where: str, item: Any) -> None:
        """One item more."""
        if not isinstance(item, dict):
            raise _invalid(where, "an object")
        kind = item.get("type") or "message"
        adds: Mapping[str, Callable[[str, Mapping[str, Any]], None]] = {
            "message": self._message,
            "function_call": self._call,
            "function_call_output": self._output,
            "reasoning": self._reasoning,
        }
        if not isinstance(kind, str) or kind not in adds:
            raise Untranslatable(f"{where}.type", f"The engine of this model cannot be given items of {shown(kind)}.")
        adds[kind](where, item)

    def _message(self, where: str, item: Mapping[str, Any]) -> None:
        role = _text(where, item, "role")
        message = {"role": "system" if role == "developer" else role, "content": _content(where, item)}
        self.messages.append(message)
        self._turn = message if role == "assistant" else None
        if self._turn is None:
            self._thoughts = ""

    def _call(self, where: str, item: Mapping[str, Any]) -> None:
        function = {"name": _text(where, item, "name"), "arguments": _text(where, item, "arguments", empty=True)}
        call = {"id": _text(where, item, "call_id"), "type": "function", "function": function}
        if self._turn is None:
            self._turn = {"role": "assistant", "content": None}
            self.messages.append(self._turn)
        if self._thoughts:
            self._turn["reasoning_content"], self._thoughts = self._thoughts, ""
        self._turn.setdefault("tool_calls", []).append(call)

    def _output(self, where: str, item: Mapping[str, Any]) -> None:
        content = _content(where, item, "output")
        self.messages.append({"role": "tool", "tool_call_id": _text(where, item, "call_id"), "content": content})
        self._turn, self._thoughts = None, ""

    def _reasoning(self, where: str, item: Mapping[str, Any]) -> None:
        parts = item.get("content") or []
        if not isinstance(parts, list):
            raise _invalid(f"{where}.content", "a list of parts")
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        self._turn, self._thoughts = None, "".join(text for text in texts if isinstance(text, str))


def _content(where: str, item: Mapping[str, Any], name: str = "content") -> str | list[dict[str, Any]]:
    """A text, or parts; one part of text alone is a text, which every chat template can print."""
    value, where = item.get(name), f"{where}.{name}"
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _invalid(where, "a text or a list of parts")
    parts = [_part(f"{where}[{number}]", part) for number, part in enumerate(value)]
    if not parts:
        return ""
    only: str = parts[0].get("text", "")
    return only if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(where: str, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise _invalid(where, "an object")
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        raise Untranslatable(f"{where}.type", f"The engine of this model cannot be given parts of {shown(kind)}.")
    return _PARTS[kind](where, part)


def _words(where: str, part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": _text(where, part, "text", empty=True)}


def _refusal(where: str, part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "refusal", "refusal": _text(where, part, "refusal", empty=True)}


def _image(where: str, part: Mapping[str, Any]) -> dict[str, Any]:
    _no_reference(where, part, "file_id")
    image = {"url": _text(where, part, "image_url")}
    if part.get("detail") in _DETAILS:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(where: str, part: Mapping[str, Any]) -> dict[str, Any]:
    _no_reference(where, part, "file_id", "file_url")
    file = {"file_data": _text(where, part, "file_data")}
    if part.get("filename") is not None:
        file["filename"] = _text(where, part, "filename")
    return {"type": "file", "file": file}


def _audio(where: str, part: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(part.get("input_audio"), dict):
        raise _invalid(f"{where}.input_audio", "an object with 'data' and 'format'")
    return {"type": "input_audio", "input_audio": part["input_audio"]}


_PARTS: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
    "input_text": _words,
    "output_text": _words,
    "text": _words,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


def _no_reference(where: str, part: Mapping[str, Any], *names: str) -> None:
    """An engine that speaks chat only has no store of files and fetches none."""
    for name in names:
        if part.get(name) is not None:
            raise Untranslatable(f"{where}.{name}", "The engine of this model cannot fetch files: send their content.")


def _text(where: str, item: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise _invalid(f"{where}.{name}", "a text")
    return value


def _invalid(where: str, expected: str) -> Untranslatable:
    return Untranslatable(where, f"Invalid value for '{where}': it must be {expected}.")


def shown(kind: Any) -> str:
    """The type of an item, a part or a tool, as a message may repeat it."""
    return f"type '{kind[:64]}'" if isinstance(kind, str) and kind else "no known type"
