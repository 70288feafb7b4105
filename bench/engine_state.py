"""What all connections of the mock engine share: its settings, its counters, and the ledger of what it sent."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from bench import script
from bench.script import Script

#: Named requests kept in the ledger; the oldest go first.
LEDGER_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What /_mock/set changes: milliseconds to the first token, between tokens, tokens an answer has by default; err: a
    status that answers every request, 0 = none. Milliseconds without end are an engine that hangs."""

    ttft_ms: float = 0.0
    itl_ms: float = 0.0
    tokens: int = 16
    err: int = 0


@dataclass(slots=True)
class Stats:
    """Counters since the start; `live` is the number of answers being given now."""

    connections: int = 0
    requests: int = 0
    unary: int = 0
    streams: int = 0
    finished: int = 0
    #: Answers whose client left before the end, which is where a gateway's cancellation shows.
    aborted: int = 0
    #: Requests answered by a fault of our own: err and cut.
    faults: int = 0
    tokens: int = 0
    live: int = 0


@dataclass(slots=True)
class Attempt:
    """One arrival of a named request: its state (running, finished, aborted, err, cut, hang) and what was sent. left_s:
    when its client went before the end, 0 = it did not (monotonic seconds of this machine)."""

    stream: bool
    state: str = "running"
    status: int = 200
    tokens: int = 0
    text: str = ""
    left_s: float = 0.0


@dataclass(slots=True)
class Engine:
    """State shared by all connections."""

    settings: Settings
    stats: Stats = field(default_factory=Stats)
    ledger: OrderedDict[str, list[Attempt]] = field(default_factory=OrderedDict)

    def admit(self, asked: Script) -> tuple[Script, Attempt]:
        """Count a request, open its ledger line, drop its faults when they have struck often enough."""
        self.stats.requests += 1
        asked = replace(asked, err=self.settings.err or asked.err)
        attempt = Attempt(asked.stream)
        if not asked.ledger_id:
            return asked, attempt
        attempts = self.ledger.setdefault(asked.ledger_id, [])
        attempts.append(attempt)
        if len(self.ledger) > LEDGER_ENTRIES:
            self.ledger.popitem(last=False)
        spent = asked.times is not None and len(attempts) > asked.times
        return (script.without_faults(asked) if spent else asked), attempt

    def configure(self, wanted: dict[str, str]) -> Settings:
        """Apply the query of /_mock/set; ValueError for a name or a number it does not know."""
        unknown = sorted(set(wanted) - {"ttft_ms", "itl_ms", "tokens", "err"})
        if unknown:
            raise ValueError(f"unknown setting {', '.join(unknown)}; known are ttft_ms, itl_ms, tokens and err")
        now = self.settings
        self.settings = replace(
            now,
            ttft_ms=float(wanted.get("ttft_ms", now.ttft_ms)),
            itl_ms=float(wanted.get("itl_ms", now.itl_ms)),
            tokens=int(wanted.get("tokens", now.tokens)),
            err=int(wanted.get("err", now.err)),
        )
        return self.settings
