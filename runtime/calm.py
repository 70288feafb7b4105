"""Whether the silence of a consumer means anything: not within one idle limit of the server's start or of an outage."""

from __future__ import annotations

from base.clock import Clock
from runtime.groups import Groups


class Calm:
    """After an outage nothing is taken over until one full idle limit has passed: live owners beat first."""

    def __init__(self, groups: Groups, clock: Clock, idle_ms: int) -> None:
        self._groups, self._clock, self._idle_s = groups, clock, idle_ms / 1000
        self._since: tuple[float, int] | None = None  # (not before, losses seen)

    async def reached(self) -> bool:
        """Whether entries of silent consumers may be taken over now. Unavailable."""
        up, losses = await self._groups.calm()
        now = self._clock.monotonic()
        if self._since is None:
            self._since = (now + max(0.0, self._idle_s - up), losses)
        elif self._since[1] != losses:
            self._since = (now + self._idle_s, losses)
        return now >= self._since[0] and up >= self._idle_s
