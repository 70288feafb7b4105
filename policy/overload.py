"""How long a new request would wait behind those that are here, and when that is too long. Pure: seconds passed in.

The measure is Little's law, seen from one door: those who are here, divided by how many are served in a second, is how
long one of them stays. It holds for a share of the traffic as for all of it, so several doors need no common count.

A rate is known only for a backlog that was met before: how fast ten at once are served says nothing of a burst of a
thousand. So each level of the backlog remembers since when it was not fallen below and what was served since then;
for a backlog of n the highest level up to n/2 tells. A look that is shorter than what those served in it took, on
average, or in which few were served, tells nothing: nobody is refused for want of a measure. Nor for an outage: a time
in which nobody was served is left out of a look, and the one who ended it, when it was far longer than any other.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import inf

#: Backlogs that are looked at; each is at most half as large again as the one before.
LEVELS = (1, *sorted(size << power for power in range(20) for size in (2, 3)))
_IS_LEVEL = frozenset(LEVELS)
_SHARE = 1 / 2
#: The shortest look, and the least number served in it.
LOOK_S, SERVED = 1.0, 8
#: A pause that is so many times as long as the others in the mean is an outage; by chance it is once in 3,000.
OUTAGE = 8.0
#: A look is given up for a younger one that has lasted so long and can tell: engines get slower. A longer time costs
#: the deadlines of those who are let in meanwhile (thirty: twice as many), a shorter one gains nothing.
FRESH_S = 5.0
#: What a refused client is told, before jitter: within these, and a guess where nothing is known. Twice the longest is
#: the most that the official clients obey.
SHORTEST_S, LONGEST_S, GUESS_S = 0.2, 30.0, 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment at which somebody was served: at (s), how many had been served by then, and how long these had been
    here, added up (s)."""

    at: float
    served: int
    spent: float


@dataclass(slots=True)
class Look:
    """A level was reached `since` (s) and not fallen below. first: who was served first since then; younger: what
    replaces it in time."""

    since: float
    first: Mark | None = None
    younger: Mark | None = None


class Line:
    """Those of one kind that are here now, and how fast they are served."""

    __slots__ = ("_last", "_looks", "_new", "_pauses", "_served", "_spent", "live")

    def __init__(self) -> None:
        self.live = 0
        self._served, self._spent = 0, 0.0
        self._looks: dict[int, Look] = {}
        self._new: list[Look] = []  # nobody was served in these
        self._last = 0.0  # when somebody was served last
        # when a pause was over, and how long it was; each is the longest since the one before
        self._pauses: list[tuple[float, float]] = []

    def join(self, now: float) -> None:
        """One more."""
        self.live += 1
        if self.live in _IS_LEVEL:
            look = self._looks[self.live] = Look(now)
            self._new.append(look)

    def serve(self, took: float, now: float) -> None:
        """One of them has its answer, after so many seconds; it leaves next."""
        if self._served:
            pause, pauses = now - self._last, self._pauses
            while pauses and pauses[-1][1] <= pause:
                pauses.pop()
            pauses.append((now, pause))
        self._served += 1
        self._spent += took
        self._last = now
        if self._new:
            mark = self._mark(now)
            for look in self._new:
                look.first = look.younger = mark
            self._new.clear()

    def leave(self) -> None:
        """One less, whyever."""
        if self.live in _IS_LEVEL:
            self._looks.pop(self.live, None)
        self.live -= 1

    def stay(self, now: float) -> float:
        """Seconds that the last who came will be here; 0 = not known."""
        level = bisect_right(LEVELS, self.live * _SHARE) - 1
        look = self._looks.get(LEVELS[level]) if level >= 0 else None
        if look is None or look.first is None or look.younger is None:
            return 0.0
        if now - look.younger.at >= FRESH_S and self._rate(look.younger, look.younger.at, now):
            look.first, look.since, look.younger = look.younger, look.younger.at, self._mark(now)
        rate = self._rate(look.first, look.since, now)
        return self.live / rate if rate else 0.0

    def _rate(self, first: Mark, since: float, now: float) -> float:
        """Served in a second behind the first; 0 = it cannot be told."""
        served, seconds = self._served - first.served, now - first.at
        pause, idle = self._longest_pause(first.at), now - self._last
        longest, others = max(pause, idle), served - (pause > idle)
        if longest * others > OUTAGE * (seconds - longest):
            served, seconds = others, seconds - longest
        if served < SERVED or seconds < LOOK_S or now - since < (self._spent - first.spent) / served:
            return 0.0
        return served / seconds

    def _longest_pause(self, since: float) -> float:
        """The longest time after `since` in which nobody was served and that is over."""
        behind = bisect_right(self._pauses, (since, inf))
        return self._pauses[behind][1] if behind < len(self._pauses) else 0.0

    def _mark(self, now: float) -> Mark:
        return Mark(now, self._served, self._spent)


def expected_stay(own: Line, everybody: Line, owners: int, now: float) -> float:
    """Seconds until the last of `own` is answered, 0 = not known. The gate serves owners side by side, so one owner's
    backlog is told by what is served of it; where that is not known, by everybody's, for whoever has his equal share
    of the backlog or more."""
    if known := own.stay(now):
        return known
    return everybody.stay(now) if own.live * owners >= everybody.live else 0.0


def come_back_s(stay: float, allowed: float, spread: float) -> float:
    """When a refused client is to come again: once a tenth of the backlog is through, and what it would wait too long.
    stay: 0 = not known. spread: 0 to 1 at random, so that those who are refused together do not come back together."""
    wait = max(stay / 10, stay - allowed) if stay else GUESS_S
    return min(max(wait, SHORTEST_S), LONGEST_S) * (1 + spread)


def is_served(code: str) -> bool:
    """Whether a run that ended with this error had its turn; the others (refused, expired, cancelled) say nothing of
    how fast the backlog is worked off."""
    return code.startswith("upstream_")
