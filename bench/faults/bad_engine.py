"""An engine that breaks the protocol as the prompt asks, byte for byte, and keeps a ledger of what left its socket.

    @@fault=KIND[.N]   KIND of KINDS; N: at which byte, event or millisecond, where the kind has one
    @@fault=KIND[.N]o  the same, but only the first time the run is seen: another endpoint then answers well

Tokens are words with the run's name and their number in them, so that none is taken for another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.faults.said import Said
from tests.e2e.scripted import (
    CHUNKS_END,
    CUT,
    DONE,
    HANG,
    STREAM_HEAD,
    Got,
    Reply,
    ScriptedEngine,
    Step,
    chunk,
    completion,
    event,
    failure,
    unary,
)

_MARK = re.compile(rb"@@(id|fault)=([A-Za-z0-9_.-]+)")
_LONG_LETTERS = "-gr\u00fc\u00dfe\u2028\u65e5"  # of two and three bytes; one looks like the end of a line
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One arrival of a run: what was sent of its answer, and whether the whole of it was."""

    text: str
    tokens: int
    state: str

    @property
    def finished(self) -> bool:
        return self.state == "finished"


def words_of(name: str, attempt: int, tokens: int) -> list[str]:
    """The tokens of an answer; every fifth has letters of several bytes."""
    return [f"{name}.{attempt}.{number}{_LONG_LETTERS if number % 5 == 0 else ''} " for number in range(tokens)]


def good_events(words: list[str], prompt: int) -> list[bytes]:
    """The events of a good stream. prompt: tokens of it, 0 = no usage is to be told."""
    counts = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": len(words) + prompt}
    said = [event({"role": "assistant", "content": ""}), *map(event, words), event({}, "stop")]
    return [*said, *([event(None, usage=counts)] if prompt else []), DONE]


def _asked_words(asked: Any) -> int:
    """Tokens of a prompt, those of an answer that is to be continued among them."""
    return sum(len(message["content"].split()) for message in asked["messages"])


def paced(events: list[bytes]) -> list[Step]:
    """Each event as a piece of its own, a breath between them."""
    steps: list[Step] = []
    for one in events:
        steps += [chunk(one), 0.01]
    return steps


def stream(events: list[bytes], *tail: Step) -> list[Step]:
    """A streamed reply; without a tail it ends as it should."""
    return [STREAM_HEAD, *paced(events), *(tail or (CHUNKS_END,))]


Kind = Callable[[list[bytes], int], Reply]


def _at_byte(events: list[bytes], at: int) -> Reply:
    """The first bytes of the stream, then a reset."""
    flat = b"".join(events)
    return [STREAM_HEAD, chunk(flat[: at % len(flat)] or b":"), 0.02, CUT]


def _half_character(events: list[bytes], at: int) -> Reply:
    """The stream ends inside the last character of two bytes."""
    flat = b"".join(events)
    return [STREAM_HEAD, chunk(flat[: flat.rindex(b"\xc3") + 1]), 0.02, CHUNKS_END]


def _split_characters(events: list[bytes], at: int) -> Reply:
    """A good stream cut into pieces of three bytes: every character of several bytes is torn."""
    flat = b"".join(events)
    return [STREAM_HEAD, *(chunk(flat[place : place + 3]) for place in range(0, len(flat), 3)), CHUNKS_END]


def _slowly(events: list[bytes], at: int) -> Reply:
    """One byte each `at` milliseconds."""
    steps: list[Step] = [STREAM_HEAD]
    for byte in b"".join(events):
        steps += [chunk(bytes([byte])), at / 1000]
    return [*steps, CHUNKS_END]


def _no_end(events: list[bytes], at: int) -> Reply:
    """No finish reason, no [DONE], a clean end."""
    return stream([one for one in events[: at + 1] if b'"stop"' not in one])


def _without_done(events: list[bytes], at: int) -> Reply:
    """Everything but [DONE]."""
    return stream(events[:-1])


def _malformed(events: list[bytes], at: int) -> Reply:
    return stream([*events[: at + 1], b'data: {"choices": [{"delta": {\n\n', *events[at + 1 :]])


def _huge(events: list[bytes], at: int) -> Reply:
    """A line without an end, longer than anything a client could want."""
    return stream(events[: at + 1], *[chunk(b"data: " + b"x" * 65_536)] * 144, HANG)


def _html(events: list[bytes], at: int) -> Reply:
    return unary(b"<html>busy</html>", 200, {"content-type": "text/html"})


#: Faults of streams by name. The number is where it strikes.
KINDS: dict[str, Kind] = {
    "good": lambda events, at: stream(events),
    "refuse": lambda events, at: [CUT],
    "silent": lambda events, at: [HANG],
    "hang": lambda events, at: stream(events[: at + 1], HANG),
    "reset": _at_byte,
    "half": _half_character,
    "split": _split_characters,
    "malformed": _malformed,
    "nodone": _without_done,
    "noend": _no_end,
    "huge": _huge,
    "html": _html,
    "slowly": _slowly,
    "s429": lambda events, at: failure(429, **{"retry-after": "1"}),
    "s500": lambda events, at: failure(500),
    "s503": lambda events, at: failure(503, **{"retry-after": "1"}),
}
#: Faults that also strike an answer in one piece.
UNARY = ("good", "refuse", "silent", "html", "s429", "s500", "s503")


class BadEngine:
    """The replies and the ledger, over as many scripted engines as need be."""

    def __init__(self) -> None:
        self._got: dict[str, list[Got]] = {}

    def reply(self, got: Got) -> Reply:
        """What this request asked for."""
        marks = {kind: value.decode() for kind, value in _MARK.findall(got.raw)}
        name, fault = marks.get(b"id", ""), marks.get(b"fault", "good")
        seen = self._got.setdefault(name, [])
        seen.append(got)
        if fault.endswith("o"):
            fault = fault[:-1] if len(seen) == 1 else "good"
        kind, _, at = fault.partition(".")
        return self._words(got.json, name, len(seen), kind, int(at or 0))

    def _words(self, asked: Any, name: str, attempt: int, kind: str, at: int) -> Reply:
        words = words_of(name, attempt, int(asked.get("max_tokens") or 8))
        if asked.get("stream"):
            usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            return KINDS[kind](good_events(words, _asked_words(asked) if usage else 0), at)
        if kind in UNARY and kind != "good":
            return KINDS[kind]([], at)
        answer = completion("".join(words))
        return unary({**answer, "usage": {"prompt_tokens": 2, "completion_tokens": len(words), "total_tokens": 0}})

    def ledger(self, name: str) -> list[Attempt]:
        """What was sent for a run, attempt by attempt."""
        return [attempt_of(bytes(got.spoken)) for got in self._got.get(name, ())]

    def engine(self) -> ScriptedEngine:
        """An engine that says all this."""
        return ScriptedEngine(otherwise=self.reply)


def attempt_of(spoken: bytes) -> Attempt:
    """The tokens in the bytes of one reply, as far as they were sent whole."""
    head, _, body = spoken.partition(_HEAD_END)
    said = Said("", True)
    if b"text/event-stream" in head:
        *blocks, _ = _dechunked(body).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"data: "):
                said.take(block[6:])
        return Attempt(said.text, said.tokens, "finished" if said.finish else "cut")
    if head.startswith(b"HTTP/1.1 200") and body.startswith(b"{"):
        value = json.loads(body)
        said.read(value)
        return Attempt(said.text, int(value["usage"]["completion_tokens"]), "finished")
    return Attempt("", 0, "err")


def _dechunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        found, body = found + rest[:length], rest[length + 2 :]
        if not length:
            break
    return found
