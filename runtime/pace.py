"""How long a reader rests between two reads: not at all while little comes, since then every entry is waited for, and a
moment under load, so that a read brings several entries, which share what a read costs."""

from __future__ import annotations

from dataclasses import dataclass

REST_S = 0.003
BUSY = 400  # entries a second from which on there are rests
_WINDOW_S = 0.25


@dataclass(slots=True)
class Pace:
    """Of one reader; times are a monotonic clock's seconds."""

    rest: float = 0.0
    _since: float = 0.0
    _seen: int = 0

    def note(self, entries: int, now: float) -> None:
        """A read brought so many."""
        self._seen += entries
        passed = now - self._since
        if passed >= _WINDOW_S:
            self.rest = REST_S if self._seen >= BUSY * passed else 0.0
            self._since, self._seen = now, 0
