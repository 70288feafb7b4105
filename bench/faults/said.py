"""What a client saw of one run: the whole answer, an error with a code, a cut, or nothing in time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

DONE = b"[DONE]"


@dataclass(slots=True)
class Said:
    """One run, known to engine and record by `name`. official: seen through the official client.

    events: the data of each event as it came (of a unary answer: its body); clean: the answer's body came to its end;
    cut: the connection did not last; late: the client's patience was over first. read_on: "" when it was not needed,
    "whole" when the run was read to its end at an ingress, else what was wrong.
    sent_at, ended_at: monotonic seconds, 0 until then. wanted: tokens of a whole answer, 0 = unknown. continues: its
    model's engines go on with an answer that broke off."""

    name: str
    stream: bool
    official: bool = False
    run: str = ""
    status: int = 0
    events: list[bytes] = field(default_factory=list)
    text: str = ""
    tokens: int = 0
    finish: str = ""
    done: bool = False
    code: str = ""
    garbage: str = ""
    clean: bool = False
    cut: bool = False
    late: bool = False
    read_on: str = ""
    sent_at: float = 0.0
    ended_at: float = 0.0
    wanted: int = 0
    continues: bool = False

    @property
    def whole(self) -> bool:
        """Whether a client takes it for a whole answer: no error, and an end. The official client asks for no more."""
        return self.clean and not self.code and (self.official or self.done or not self.stream)

    def take(self, data: bytes) -> None:
        """One event of a stream, or a unary answer's body."""
        self.events.append(data)
        if data == DONE:
            self.done = True
            return
        try:
            self.read(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError):
            self.garbage = repr(data[:80])

    def read(self, value: dict[str, Any]) -> None:
        """What one parsed event says."""
        if value.get("error"):
            self.code = value["error"].get("code") or "none"
            return
        for choice in value.get("choices", ()):
            text = (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            self.text += text
            self.tokens += bool(text)
            self.finish = choice.get("finish_reason") or self.finish
