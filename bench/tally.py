"""What the load generator remembers of a run, and the figures made of it.

Latencies, first tokens and relay lags count when they fall inside the measured window; errors always count, in the
warm-up and after the window too, because a lost answer is lost at any time.
"""

from collections import Counter
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

import orjson

from bench.sse import SseCounter
from bench.stamps import decode
from bench.stats import milliseconds

#: Bytes of the first bad answer of each kind that are kept for the report.
EXAMPLE_BYTES = 300


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that was no good. code: "" when the body names none; retry_ms: its retry-after-ms, -1 without."""

    status: int
    code: str
    retry_ms: int
    latency_ns: int


class Tally:
    """Collects values in nanoseconds; `report` turns them into milliseconds."""

    def __init__(self) -> None:
        self.measuring = False
        self.begin_ns = self.end_ns = 0
        #: Requests ended well inside the window, and over the whole run.
        self.completed = 0
        self.good = 0
        self.sent = 0
        #: Requests that an open loop could not send for want of a connection.
        self.unsent = 0
        self.tokens = 0
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.refused: list[Refused] = []
        self.latency: list[int] = []
        self.first_token: list[int] = []
        self.lag: list[int] = []
        self.gap: list[int] = []
        self.late: list[int] = []

    def begin(self) -> None:
        """The window opens."""
        self.begin_ns, self.measuring = monotonic_ns(), True

    def end(self) -> None:
        """The window closes."""
        self.end_ns, self.measuring = monotonic_ns(), False

    def token(self, stamp: bytes, now_ns: int) -> None:
        """A stamped token has arrived."""
        if self.measuring:
            self.tokens += 1
            self.lag.append(now_ns - decode(stamp))

    def ended_well(self, latency_ns: int) -> None:
        """A whole answer has arrived."""
        self.good += 1
        if self.measuring:
            self.completed += 1
            self.latency.append(latency_ns)

    def failed(self, kind: str, example: bytes = b"") -> None:
        """A request has failed; `kind` is a status or one of short, unfinished, broken, timeout, connect, event."""
        self.errors[kind] += 1
        if example and kind not in self.examples:
            self.examples[kind] = example[:EXAMPLE_BYTES].decode("utf-8", "replace")

    def report(self) -> dict[str, Any]:
        """All figures as plain values, ready for JSON."""
        seconds = (self.end_ns - self.begin_ns) / 1e9
        return {
            "window_s": round(seconds, 3),
            "sent": self.sent,
            "unsent": self.unsent,
            "good": self.good,
            "completed": self.completed,
            "requests_per_s": self.completed / seconds if seconds else 0.0,
            "tokens": self.tokens,
            "tokens_per_s": self.tokens / seconds if seconds else 0.0,
            "errors": sum(self.errors.values()),
            "errors_by_kind": dict(self.errors),
            "examples": self.examples,
            "latency_ms": milliseconds(self.latency),
            "ttft_ms": milliseconds(self.first_token),
            "lag_ms": milliseconds(self.lag),
            "gap_ms": milliseconds(self.gap),
            "late_ms": milliseconds(self.late),
        }


def code_of(body: bytes) -> str:
    """The code that an error's body stands for, as its page is called; "" when it is no error of ours."""
    try:
        return str(orjson.loads(body)["error"]["doc_url"]).rpartition("/")[2]
    except (ValueError, KeyError, TypeError):
        return ""


def verdict(status: int, stream: bool, counter: SseCounter, expected: int) -> str:
    """Why an answer that ended is no good: empty when it is good. `expected` tokens of 0 means any number."""
    if status != 200:
        return str(status)
    if stream and counter.error:
        return "event"
    if stream and not counter.done:
        return "unfinished"
    return "short" if expected and counter.tokens != expected else ""
