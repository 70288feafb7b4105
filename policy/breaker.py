"""When an endpoint that fails is left alone, and how it comes back: circuit breaker and ejection are one thing. Pure.

    closed      it gets requests. `failures` in a row open it; a success in between starts the count again.
    open        it gets none for open_ms x the number of times it opened in a row, at most open_most_ms.
    half open   that time is over: one request, over all processes, is let through as a probe. Its success closes,
                its failure opens for longer. A probe that says nothing (the request was wrong, the client left) is
                given back; one that is not heard of for probe_ms may be made again.

A call says under which `opens` it began. What ends under another one is old news and changes nothing: answers that
were under way when it opened neither close it nor open it longer. state/breaker.lua does the same on the server; the
contract suite drives both with the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: An endpoint that stayed closed for so many longest open times starts anew: the next opening is its first.
FORGIVEN_AFTER = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """failures: in a row until it opens. Milliseconds."""

    failures: int = 5
    open_ms: int = 30_000
    open_most_ms: int = 300_000
    probe_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """One endpoint. opens: times it opened in a row. until_ms: when the probe may be made, 0 = closed. probe_ms: until
    when a probe that was let through has its time, 0 = none. changed_ms: when it was last opened or closed."""

    failures: int = 0
    opens: int = 0
    until_ms: int = 0
    probe_ms: int = 0
    changed_ms: int = 0

    @property
    def closed(self) -> bool:
        return self.until_ms == 0

    def state(self, now_ms: int) -> str:
        """closed, open or half_open."""
        return "closed" if self.closed else "open" if now_ms < self.until_ms else "half_open"

    def not_before(self) -> int:
        """When the next request may go there as far as this is known: 0 = at any time."""
        return max(self.until_ms, self.probe_ms)


NEW = Breaker()


def failed(breaker: Breaker, opens: int, now_ms: int, limits: Limits) -> Breaker:
    """After a failure of a call that began under `opens`."""
    breaker = remembered(breaker, now_ms, limits)
    if opens != breaker.opens or breaker.state(now_ms) == "open":
        return breaker
    breaker = replace(breaker, failures=breaker.failures + 1)
    if breaker.closed and breaker.failures < limits.failures:
        return breaker
    until = now_ms + min(limits.open_ms * (breaker.opens + 1), limits.open_most_ms)
    return replace(breaker, opens=breaker.opens + 1, until_ms=until, probe_ms=0, changed_ms=now_ms)


def succeeded(breaker: Breaker, opens: int, now_ms: int, limits: Limits) -> Breaker:
    """After a success of a call that began under `opens`."""
    breaker = remembered(breaker, now_ms, limits)
    if opens != breaker.opens:
        return breaker
    if breaker.closed:
        return replace(breaker, failures=0)
    return Breaker(opens=breaker.opens, changed_ms=now_ms)


def released(breaker: Breaker, opens: int) -> Breaker:
    """After a call that began under `opens` and said nothing of the endpoint: another may be the probe."""
    return replace(breaker, probe_ms=0) if opens == breaker.opens else breaker


def probed(breaker: Breaker, now_ms: int, limits: Limits) -> tuple[bool, Breaker]:
    """Whether a request may go there now; a half-open breaker lets one through and remembers it."""
    breaker = remembered(breaker, now_ms, limits)
    if breaker.closed:
        return True, breaker
    if now_ms < breaker.not_before():
        return False, breaker
    return True, replace(breaker, probe_ms=now_ms + limits.probe_ms)


def remembered(breaker: Breaker, now_ms: int, limits: Limits) -> Breaker:
    """The breaker, or a new one when it has been closed long enough."""
    since = now_ms - breaker.changed_ms
    return NEW if breaker.closed and breaker.opens and since > forgiven_ms(limits) else breaker


def forgiven_ms(limits: Limits) -> int:
    """How long it must have been closed for its past to be forgotten."""
    return FORGIVEN_AFTER * limits.open_most_ms
