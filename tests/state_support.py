"""What tests of shared state need: a clock that obeys, a server that goes away, scripts that break half-way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from base.clock import SystemClock
from base.ids import SystemRandom
from runtime.client import Address, Client, ServerError
from schemas.errors import Unavailable


class FakeClock:
    """A clock that moves when it is told to. `ms` is wall time and monotonic time at once."""

    def __init__(self, ms: int = 1_700_000_000_000) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class Gone:
    """A server that is away."""

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        raise Unavailable("away")

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        raise Unavailable("away")


class Switch:
    """A server that can be away for a while. calls: what was asked of it."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self.away = False
        self.calls = 0

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        self._count()
        return await self._redis.execute(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        self._count()
        return await self._redis.script(text, keys, args)

    def _count(self) -> None:
        self.calls += 1
        if self.away:
            raise Unavailable("away")


class Breaking:
    """A server on which the nth redis.call of the next script fails, once. `reached` says whether it came to that."""

    def __init__(self, redis: Client, nth: int) -> None:
        self._redis, self._nth = redis, nth
        self.reached = False

    async def execute(self, *parts: str | bytes | int | float) -> Any:
        return await self._redis.execute(*parts)

    async def script(self, text: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        if self._nth:
            text, self._nth = broken(text, self._nth), 0
        try:
            return await self._redis.script(text, keys, args)
        except ServerError as error:
            self.reached = "injected" in str(error)
            raise


def broken(text: str, nth: int) -> str:
    """The script with its nth redis.call (counted as it runs) replaced by an error."""
    head, _, rest = text.partition("\n")
    guard = (
        "local made = 0 local function guarded(...) made = made + 1 "
        f"if made == {nth} then error('injected') end return redis.call(...) end "
    )
    return f"{head}\n{guard}{rest.replace('redis.call(', 'guarded(')}"


async def connect(url: str) -> Client:
    """A connected client; close it."""
    client = Client(Address.parse(url), SystemClock(), SystemRandom())
    await client.connect()
    return client
