"""The scripted engines, and their own ledger of what they sent.

A request says in its prompt what the engine is to do: `run=<tag> plan=<word>,<word> words=<n> gap=<ms>`. The nth call
of a run follows the nth word of its plan (the last one for ever); every word of an answer names run, call and number,
so that whoever sees one knows where it comes from.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from base.clock import Clock
from providers.fake import JSON, Cut, Delay, FakeResponse, FakeTransport, Hang, Head, Piece, Refuse, Step
from providers.ports import Every, Sink, Timeouts
from tests.router_support import chunk, completion, sse, usage_chunk

#: What an engine can do with a call.
PLANS = ("good", "late", "slow", "refuse", "error", "busy", "silent", "cut", "hang", "torn", "endless")
_WHOLE = ("good", "late", "slow")
_SLOW_S = 2.5  # until the first piece
_ORDER = re.compile(r"run=(\d+) plan=([\w,]+) words=(\d+) gap=(\d+)")
_MARK = re.compile(rb'"system_fingerprint":"(\d+)/(\d+)"')
_WORD = re.compile(rb"\[(\d+)/(\d+)/(\d+)\]")


@dataclass
class Sent:
    """One call: the words of text that were taken from the engine, and the events that end a choice. Engines count the
    token that made them stop too. start: words that it was told were there already."""

    words: int = 0
    stops: int = 0
    start: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What a request asks of the engines. plan: one of PLANS for each call; gap_ms: before each word."""

    plan: str
    words: int
    gap_ms: int
    extra: str = ""


@dataclass
class Ledger:
    """What the engines sent, by run and call."""

    calls: defaultdict[int, list[Sent]] = field(default_factory=lambda: defaultdict(list))

    def most(self, tag: int) -> int:
        """The longest answer that any call of the run made, with what it went on from, in tokens; never above what all
        of them gave."""
        longest = max((sent.start + sent.words + sent.stops for sent in self.calls[tag]), default=0)
        return min(longest, sum(sent.words + sent.stops for sent in self.calls[tag]))


def order(tag: int, plan: str, words: int, gap_ms: int) -> str:
    """The prompt of a request."""
    return f"run={tag} plan={plan} words={words} gap={gap_ms}"


def calls_in(data: bytes) -> set[tuple[int, int]]:
    """(run, call) of each event in bytes that a client got."""
    return {(int(a), int(b)) for a, b in _MARK.findall(data)}


def words_in(data: bytes) -> list[tuple[int, int, int]]:
    """(run, call, number) of each word in bytes that a client got."""
    return [(int(a), int(b), int(c)) for a, b, c in _WORD.findall(data)]


class Engine(FakeTransport):
    """The engines as one process reaches them."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        super().__init__([[Refuse()]], clock)
        self._ledger = ledger
        self._tag = 0

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        *,
        private: bool = False,
        method: str = "POST",
    ) -> FakeResponse:
        """See providers.ports.Transport."""
        asked = json.loads(body)
        found = _ORDER.search(asked["messages"][0]["content"])
        assert found is not None, "a request of the simulation says what to do"
        tag, plan = int(found[1]), found[2].split(",")
        sent = Sent(start=self.begun(asked))
        calls = self._ledger.calls[tag]
        calls.append(sent)
        number = len(calls)
        kind = plan[min(number, len(plan)) - 1]
        told = Told(f"{tag}/{number}", int(found[3]), int(found[4]) / 1000, sent.start)
        script = steps(kind, told, stream=bool(asked.get("stream")))
        self._scripts = [script]
        response = await super().open(url, headers, body, timeouts, private=private, method=method)
        return cast(FakeResponse, Metered(response, sent))

    def begun(self, asked: dict[str, Any]) -> int:
        """Words of an answer that the request wants to be gone on with."""
        last = asked["messages"][-1]
        return len(_WORD.findall(last["content"].encode())) if last["role"] == "assistant" else 0


class Metered:
    """A response that tells the ledger what was taken from it."""

    def __init__(self, response: FakeResponse, sent: Sent) -> None:
        self._response, self._sent = response, sent
        self.status, self.headers = response.status, response.headers

    async def read(self) -> bytes:
        return self._told(await self._response.read())

    async def whole(self, most: int) -> bytes:
        return self._told(await self._response.whole(most))

    async def pour(self, sink: Sink, every: Every | None = None) -> bool:
        return await self._response.pour(lambda data: sink(self._told(data)), every)

    def _told(self, data: bytes) -> bytes:
        self._sent.words += len(_WORD.findall(data))
        self._sent.stops += data.count(b'"finish_reason":"stop"')
        return data

    async def drain(self, seconds: float) -> None:
        await self._response.drain(seconds)

    def close(self) -> None:
        self._response.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says. mark: run and call; gap: seconds before each word; start: the first word that is not there
    already."""

    mark: str
    count: int
    gap: float
    start: int = 0

    @property
    def words(self) -> list[str]:
        return [f"[{self.mark}/{i}]" for i in range(self.start, self.count)]

    def event(self, text: str = "", finish: str | None = None) -> str:
        """One chunk of a stream."""
        return chunk(text, finish=finish, system_fingerprint=self.mark)

    @property
    def speaker(self) -> str:
        """The first chunk: who speaks."""
        return self.event().replace('"delta":{}', '"delta":{"role":"assistant","content":""}')

    @property
    def usage(self) -> dict[str, int]:
        made = self.count - self.start
        return {"prompt_tokens": 7 + self.start, "completion_tokens": made, "total_tokens": 7 + self.count}


def steps(kind: str, told: Told, *, stream: bool) -> list[Step]:
    """What one call plays."""
    if kind == "refuse":
        return [Refuse()]
    if kind == "error":
        return [Head(500, JSON), Piece(b'{"error":{"message":"engine on fire"}}')]
    if kind == "busy":
        return [Head(429, {**JSON, "retry-after": "1"}), Piece(b'{"error":{"message":"full"}}')]
    if kind == "silent":
        return [Hang()]
    if stream:
        first: list[Step] = [Delay(_SLOW_S)] if kind == "slow" else []
        return [Head(), *first, Piece(sse(told.speaker)), *_words(kind, told), *_ending(kind, told)]
    whole = completion("".join(told.words), usage=told.usage, system_fingerprint=told.mark)
    ends: list[Step] = [Piece(whole)] if kind in (*_WHOLE, "torn") else [Cut()]
    return [Delay(told.gap * told.count), Head(200, JSON), *ends]


def _words(kind: str, told: Told) -> list[Step]:
    """Half of them when the stream ends badly."""
    words = told.words if kind in (*_WHOLE, "endless") else told.words[: len(told.words) // 2]
    pieces: list[Step] = []
    for word in words:
        pieces += [Delay(told.gap), Piece(sse(told.event(word)))]
    return pieces


def _ending(kind: str, told: Told) -> list[Step]:
    finish, usage = told.event(finish="stop"), usage_chunk(7 + told.start, told.count - told.start)
    endings: dict[str, list[Step]] = {
        "late": [Piece(sse(finish)), Delay(1.0), Piece(sse(usage, "[DONE]"))],
        "torn": [Piece(b'data: {"choices":[{"del'), Cut()],
        "hang": [Hang()],
        "cut": [Cut()],
        "endless": [],
    }
    return endings.get(kind, [Piece(sse(finish, usage, "[DONE]"))])
