"""The scripted engines, and their own ledger of what they sent.

A request says in its prompt what the engine is to do: `run=<tag> plan=<word>,<word> words=<n> gap=<ms>`. The nth call
of a run follows the nth word of its plan (the last one for ever); every word of an answer names run, call and number, so
that whoever sees one knows where it comes from.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from base.clock import Clock
from providers.fake import JSON, Cut, Delay, FakeResponse, FakeTransport, Hang, Head, Piece, Refuse, Step
from providers.ports import Timeouts
from tests.router_support import chunk, completion, sse, usage_chunk

#: What an engine can do with a call.
PLANS = ("good", "late", "refuse", "error", "busy", "silent", "cut", "hang", "torn", "endless")
_ORDER = re.compile(r"run=(\d+) plan=([\w,]+) words=(\d+) gap=(\d+)")
_WORD = re.compile(rb"\[(\d+)/(\d+)/(\d+)\]")


@dataclass
class Sent:
    """One call: the words of text that were taken from the engine."""

    words: int = 0


@dataclass
class Ledger:
    """What the engines sent, by run and call."""

    calls: defaultdict[int, list[Sent]] = field(default_factory=lambda: defaultdict(list))

    def most(self, tag: int) -> int:
        """The longest answer that any call of the run gave, in words."""
        return max((sent.words for sent in self.calls[tag]), default=0)


def order(tag: int, plan: str, words: int, gap_ms: int) -> str:
    """The prompt of a request."""
    return f"run={tag} plan={plan} words={words} gap={gap_ms}"


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
        found = _ORDER.search(asked["messages"][-1]["content"])
        assert found is not None, "a request of the simulation says what to do"
        tag, plan = int(found[1]), found[2].split(",")
        sent = Sent()
        calls = self._ledger.calls[tag]
        calls.append(sent)
        number = len(calls)
        kind = plan[min(number, len(plan)) - 1]
        words = [f"[{tag}/{number}/{i}]" for i in range(int(found[3]))]
        script = steps(kind, bool(asked.get("stream")), words, int(found[4]) / 1000)
        self._scripts = [script]
        response = await super().open(url, headers, body, timeouts, private=private, method=method)
        return cast(FakeResponse, Metered(response, sent))


class Metered:
    """A response that tells the ledger what was taken from it."""

    def __init__(self, response: FakeResponse, sent: Sent) -> None:
        self._response, self._sent = response, sent
        self.status, self.headers = response.status, response.headers

    async def read(self) -> bytes:
        data = await self._response.read()
        self._sent.words += len(_WORD.findall(data))
        return data

    async def drain(self, seconds: float) -> None:
        await self._response.drain(seconds)

    def close(self) -> None:
        self._response.close()


def steps(kind: str, stream: bool, words: list[str], gap: float) -> list[Step]:
    """What one call plays."""
    if kind == "refuse":
        return [Refuse()]
    if kind == "error":
        return [Head(500, JSON), Piece(b'{"error":{"message":"engine on fire"}}')]
    if kind == "busy":
        return [Head(429, {**JSON, "retry-after": "1"}), Piece(b'{"error":{"message":"full"}}')]
    if kind == "silent":
        return [Hang()]
    if not stream:
        whole: list[Step] = [Delay(gap * len(words)), Head(200, JSON)]
        return [*whole, Piece(_whole(words))] if kind in ("good", "late", "torn") else [*whole, Cut()]
    return [Head(), Piece(sse(chunk(""))), *_told(kind, words, gap)]


def _told(kind: str, words: list[str], gap: float) -> list[Step]:
    """The words of a stream, and how it ends; half of them when it ends badly."""
    told: list[Step] = []
    for word in words if kind in ("good", "late", "endless") else words[: len(words) // 2]:
        told += [Delay(gap), Piece(sse(chunk(word)))] if gap else [Piece(sse(chunk(word)))]
    if kind == "good":
        return [*told, Piece(sse(chunk(finish="stop"), usage_chunk(7, len(words)), "[DONE]"))]
    if kind == "late":
        return [*told, Piece(sse(chunk(finish="stop"))), Delay(1.0), Piece(sse(usage_chunk(7, len(words)), "[DONE]"))]
    if kind == "torn":
        return [*told, Piece(b'data: {"choices":[{"del'), Cut()]
    return [*told, Hang() if kind == "hang" else Cut()] if kind != "endless" else told


def _whole(words: list[str]) -> bytes:
    counts = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    return completion("".join(words), usage=counts)
