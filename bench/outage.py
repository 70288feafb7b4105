"""How new requests fare while Redis is away, and how soon it serves again: asked by the clock, each on a connection of
its own.

Promises: while it is away each is told 503 with the time to come back (retry-after-ms) within TOLD_MS, and BACK_S after
the server answers again requests are accepted. What was accepted before it went is the matter of the crash matrix.
"""

import asyncio
import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import monotonic

from bench.rolling import until

TOLD_MS, BACK_S = 100.0, 2.0
_EVERY_S = 0.05
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was sent and answered (monotonic), and how. status 0: the connection broke."""

    sent: float
    answered: float
    status: int
    retry_ms: int


@dataclass(slots=True)
class Row:
    """What was seen. told: milliseconds of each refusal while Redis was away; back_s: from the server's first answer to
    the first accepted request."""

    seconds: float
    told: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    back_s: float = _PATIENCE_S

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        found = list(self.wrong)
        if not self.told or max(self.told) > TOLD_MS:
            found.append(f"the slowest refusal took {max(self.told, default=0):.0f} ms")
        if self.back_s > BACK_S:
            found.append(f"it served again after {self.back_s:.2f} s")
        return found

    def cells(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        told = f"{median(self.told):.1f} / {max(self.told):.1f}" if self.told else "-"
        return f"{self.seconds:.0f}", str(len(self.told)), told, str(len(self.wrong)), f"{self.back_s:.2f}"


HEAD = ("away for s", "refused", "after ms (median / most)", "wrong answers", "serves again after s")


@dataclass(frozen=True, slots=True)
class Place:
    """host:port of the door, its key and a model; where Redis listens."""

    host: str
    port: int
    key: str
    model: str
    redis_port: int


async def run(place: Place, take: Callable[[], None], give: Callable[[], None], seconds: float) -> Row:
    """take: Redis dies and stays away; give: it may come back."""
    asked: list[Asked] = []
    asking = asyncio.create_task(_ask_on(place, asked))
    await asyncio.sleep(1.0)
    await asyncio.to_thread(take)
    away = monotonic()
    await asyncio.sleep(seconds)
    back = monotonic()
    await asyncio.to_thread(give)
    there = await asyncio.to_thread(_first_answer, place.redis_port)
    await until(lambda: any(one.status == 200 and one.sent > back for one in asked))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    during = [one for one in asked if away < one.sent and one.answered < back]
    row = Row(seconds, told=[(one.answered - one.sent) * 1e3 for one in during])
    row.wrong = [
        f"{one.status} with retry-after-ms {one.retry_ms} while Redis was away"
        for one in during
        if one.status != 503 or one.retry_ms <= 0
    ]
    row.back_s = min(one.answered for one in asked if one.status == 200 and one.sent > back) - there
    return row


async def _ask_on(place: Place, asked: list[Asked]) -> None:
    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(_one(place, asked))
            await asyncio.sleep(_EVERY_S)


async def _one(place: Place, asked: list[Asked]) -> None:
    asked.append(await asyncio.to_thread(_ask, place))


def _ask(place: Place) -> Asked:
    line = http.client.HTTPConnection(place.host, place.port, timeout=_PATIENCE_S)
    body = json.dumps({"model": place.model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]})
    begun = monotonic()
    try:
        line.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {place.key}"})
        reply = line.getresponse()
        reply.read()
        return Asked(begun, monotonic(), reply.status, int(reply.getheader("retry-after-ms") or 0))
    except (OSError, http.client.HTTPException):
        return Asked(begun, monotonic(), 0, 0)
    finally:
        line.close()


def _first_answer(port: int) -> float:
    """When the server says something again."""
    end = monotonic() + _PATIENCE_S
    while monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
                link.sendall(b"PING\r\n")
                if link.recv(100):
                    return monotonic()
        except OSError:
            continue
    raise TimeoutError("Redis did not come back")
