"""What this door's clients wait for, by model and key, and how long a new one would wait: policy.overload with a clock.

Nothing here is shared or kept: a door that has just started knows nothing and refuses nobody for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from base.clock import Clock
from policy.overload import Line, expected_stay, is_served
from schemas.errors import DecodeError
from schemas.frames import ERROR, Frame, decode_failure


@dataclass(slots=True)
class _Crowd:
    """Everybody who waits for one model, and of whom they are."""

    line: Line = field(default_factory=Line)
    keys: dict[str, Line] = field(default_factory=dict)


class Stay:
    """One client's time at the door, from acceptance until its watch is closed."""

    __slots__ = ("_backlog", "_clock", "_over", "key", "lines", "model", "since")

    def __init__(self, backlog: Backlog, clock: Clock, model: str, key: str, lines: tuple[Line, Line, Line]) -> None:
        """lines: it stands in: everybody's, its model's, its key's there."""
        self._backlog, self._clock, self.model, self.key = backlog, clock, model, key
        self.lines, self.since = lines, clock.monotonic()
        self._over = False

    def served(self, frame: Frame) -> None:
        """Its last frame was handed out."""
        if frame.kind != ERROR or _had_its_turn(frame.payload):
            now = self._clock.monotonic()
            for line in self.lines:
                line.serve(now - self.since, now)

    def left(self) -> None:
        """Idempotent."""
        if not self._over:
            self._over = True
            for line in self.lines:
                line.leave()
            if not self.lines[2].live:
                self._backlog.forget(self)


class Backlog:
    """All stays of one door. A model or a key of which nobody is here is forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all = Line()
        self._crowds: dict[str, _Crowd] = {}

    def join(self, model: str, key: str) -> Stay:
        """One more is here."""
        crowd = self._crowds.get(model)
        if crowd is None:
            crowd = self._crowds[model] = _Crowd()
        own = crowd.keys.get(key)
        if own is None:
            own = crowd.keys[key] = Line()
        stay = Stay(self, self._clock, model, key, (self._all, crowd.line, own))
        for line in stay.lines:
            line.join(stay.since)
        return stay

    def forget(self, stay: Stay) -> None:
        """Nobody of its key is here for its model any more."""
        crowd = self._crowds[stay.model]
        del crowd.keys[stay.key]
        if not crowd.keys:
            del self._crowds[stay.model]

    def expected(self, model: str, key: str) -> float:
        """Seconds until the last who joined is answered; 0 = not known."""
        crowd = self._crowds[model]
        return expected_stay(crowd.keys[key], crowd.line, len(crowd.keys), self._clock.monotonic())

    def whole(self) -> float:
        """Seconds in which everybody who is here now will be answered; 0 = not known."""
        return self._all.stay(self._clock.monotonic())


def _had_its_turn(failure: bytes) -> bool:
    """A failure that cannot be read (a newer writer's) tells nothing."""
    try:
        return is_served(decode_failure(failure).code)
    except DecodeError:
        return False
