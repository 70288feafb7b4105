"""Steady load: so many named chats a second whatever becomes of them, streamed and unary, in turn by two clients.

Every fourth run is unary, every fifth is asked by the official client, every seventh has an Idempotency-Key. A run
that is stuck does not hold up the next one, up to a bound of runs at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

from bench.faults import official, wire
from bench.faults.said import Said
from bench.faults.waiting import until

#: Seconds a run may take, and how much longer its client waits.
DEADLINE_S, SLACK_S = 60.0, 20.0

#: Models whose answers go on elsewhere when they break off: of engines that are well, and of engines that fail.
SOUND, FRAIL = "sound", "frail"
CONTINUED = (SOUND, FRAIL)

Body = Callable[[int, Said], dict[str, Any]]


def chat(model: str, tokens: Callable[[int], int], mark: str = "") -> Body:
    """Chats with a model; the prompt names the run for the engine's ledger."""

    def body(number: int, said: Said) -> dict[str, Any]:
        message = {"role": "user", "content": f"@@id={said.name} {mark}".strip()}
        return {"model": model, "stream": said.stream, "max_tokens": tokens(number), "messages": [message]}

    return body


#: 4 to 24 tokens.
SHORT = chat("mock", lambda number: 4 + number * 7 % 21)


@dataclass(slots=True)
class Load:
    """Runs of one case. rate: begun a second. most: at once. on_event hears every event of every stream."""

    case: str
    base_url: str
    key: str
    client: AsyncOpenAI
    rate: float
    most: int
    body: Body = SHORT
    deadline_s: float = DEADLINE_S
    said: list[Said] = field(default_factory=list)
    on_event: Callable[[Said], None] = lambda said: None
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._send())

    async def stop(self) -> None:
        """Begin no more and wait for all."""
        self._over.set()
        if self._loop is not None:
            await self._loop
        await asyncio.gather(*self._open)

    @property
    def completed(self) -> int:
        """Whole answers so far."""
        return sum(one.whole for one in self.said)

    async def until(self, count: int) -> None:
        """Wait until so many runs were begun."""
        await until(lambda: len(self.said) >= count, f"{count} runs of {self.case}", 60 + 2 * count / self.rate)

    async def goes_on(self) -> float:
        """Wait until a run that begins from now on is answered whole; seconds until then."""
        place = len(self.said)
        return await until(lambda: any(one.whole for one in self.said[place:]), f"an answer in {self.case}")

    async def calm(self) -> None:
        """Wait until no herd is left of those that had to wait."""
        await until(lambda: len(self._open) <= self.rate / 2, f"a calm load in {self.case}")

    def begin(self, stream: bool | None = None, body: Body | None = None) -> Said:
        """One more run, now."""
        number = len(self.said)
        said = Said(f"{self.case}-{number}", number % 4 != 3 if stream is None else stream, number % 5 == 4)
        self.said.append(said)
        task = asyncio.create_task(self._ask(number, said, body or self.body))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return said

    async def _send(self) -> None:
        while not self._over.is_set():
            if len(self._open) < self.most:
                self.begin()
            await asyncio.sleep(1 / self.rate)

    async def _ask(self, number: int, said: Said, body_of: Body) -> None:
        body, patience = body_of(number, said), self.deadline_s + SLACK_S
        said.wanted, said.continues = body["max_tokens"], body["model"] in CONTINUED
        head = {
            "x-client-request-id": said.name,
            "x-stainless-read-timeout": str(self.deadline_s),
            "content-type": "application/json",
        }
        if number % 7 == 0:
            head["idempotency-key"] = said.name
        if said.official:
            await official.ask(self.client, head, body, said, patience, self.on_event)
        else:
            head["authorization"] = f"Bearer {self.key}"
            await wire.ask(self.base_url, head, body, said, patience, self.on_event)
        if said.cut and said.run:
            await self._read_on(said)

    async def _read_on(self, said: Said) -> None:
        """The rest of a run whose connection was cut, appended to what was seen."""
        rest = await wire.replay(self.base_url, self.key, said.run, len(said.events))
        numbers, first = [number for number, _ in rest.data], len(said.events) + 1
        said.read_on = (
            "whole" if numbers == list(range(first, first + len(numbers))) else f"events {numbers} behind {first - 1}"
        )
        if rest.status != 200 or not rest.ended:
            said.read_on = f"status {rest.status}, {'ended' if rest.ended else 'cut'}"
        for _, data in rest.data:
            said.take(data)
