"""A load generator for OpenAI-compatible doors: `python -m bench.load --url http://127.0.0.1:9100/v1`.

Closed loop (`--connections N`: each sends again as soon as it was answered) or open loop (`--rate R`: requests leave
by the clock, whether or not others were answered). Unary or streaming, always keep-alive. After the warm-up the window
opens and closes once; `--events` prints a line at each, for a parent that reads CPU times. The last line is JSON.

Exit code 0 when every answer was good, 1 when one was not, 2 when nothing could be sent.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from resource import RUSAGE_SELF, getrusage
from time import monotonic, monotonic_ns
from typing import Any
from urllib.parse import urlsplit

import orjson

from bench.client import Connection, Plan
from bench.loop import run_fast
from bench.tally import Tally

#: Seconds of the shortest sleep: the loop's timers count whole milliseconds, below half of one they would spin.
TIMER = 0.001
#: Text of the prompt, repeated to length: no name, no number, nothing a guard would stop.
PROMPT = "Explain how a gateway relays tokens from an inference engine to a client, and which delays it adds. "


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard and how long. Seconds; exactly one of connections and rate is above 0."""

    connections: int
    rate: float
    ramp: float
    warmup: float
    duration: float
    timeout: float
    max_connections: int


class Load:
    """The connections of one run, and the two ways to drive them."""

    def __init__(self, plan: Plan, pace: Pace) -> None:
        self._plan, self._pace = plan, pace
        self.tally = Tally()
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def gap(self) -> float:
        """Seconds between two requests of an open loop."""
        return 1 / self._pace.rate

    async def closed(self) -> None:
        """Open the connections spread over the ramp; each begins to send at once."""
        for _ in range(self._pace.connections):
            if self._stopping:
                return
            self._dial()
            if self._pace.ramp:
                await asyncio.sleep(self._pace.ramp / self._pace.connections)

    async def open(self) -> None:
        """Send by the clock, on an idle connection or a new one."""
        begin, number = monotonic(), 0
        while not self._stopping:
            due = begin + number / self._pace.rate
            delay = due - monotonic()
            if delay > 0:
                await asyncio.sleep(max(delay, TIMER))
                continue
            number += 1
            self._send_one()
            if self.tally.measuring:
                self.tally.late.append(max(0, int(-delay * 1e9)))

    def stop(self) -> None:
        """No request begins from here on."""
        self._stopping = True
        for connection in self._idle:
            connection.close()

    async def drain(self) -> None:
        """Wait until every request under way has ended or timed out; then close everything."""
        end = monotonic() + self._pace.timeout
        while (self._opening or any(one.sent_ns for one in self._open)) and monotonic() < end:
            self.expire()
            await asyncio.sleep(0.01)
        for connection in list(self._open):
            connection.give_up("timeout")
        await asyncio.sleep(TIMER)  # the loop tells the connections that they are lost

    def leave(self) -> None:
        """Hang up on whatever has not been answered; it counts for nothing."""
        for connection in list(self._open):
            connection.sent_ns = 0
            connection.close()

    def expire(self) -> None:
        """Give up what has had no whole answer in time."""
        oldest = monotonic_ns() - int(self._pace.timeout * 1e9)
        for connection in [one for one in self._open if 0 < one.sent_ns < oldest]:
            connection.give_up("timeout")

    def _send_one(self) -> None:
        if self._idle:
            self._idle.pop().send()
        elif len(self._open) + len(self._opening) < self._pace.max_connections:
            self._dial()
        else:
            self.tally.unsent += 1

    def _dial(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: Connection(self._plan, self.tally, self._ready, self._lost), self._plan.host, self._plan.port
            )
        except OSError as error:
            self.tally.failed("connect", str(error).encode())

    def _ready(self, connection: Connection) -> None:
        fresh = connection not in self._open
        self._open.add(connection)
        if self._stopping:
            connection.close()
        elif fresh or self._pace.connections:
            connection.send()
        else:
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._pace.connections and not self._stopping:
            asyncio.get_running_loop().call_later(0.05, self._dial)


async def side_by_side(loads: Sequence[Load], warmup: float, seconds: float) -> None:
    """Open loops of one window, no two of which send at the same moment. They have stopped then, not drained."""
    drives = []
    for load in loads:
        drives.append(asyncio.create_task(load.open()))
        await asyncio.sleep(load.gap / len(loads))
    await asyncio.sleep(warmup)
    for load in loads:
        load.tally.begin()
    await asyncio.sleep(seconds)
    for load in loads:
        load.tally.end()
        load.stop()
    await asyncio.gather(*drives)


async def run(plan: Plan, pace: Pace, say: Callable[[str], None]) -> dict[str, Any]:
    """One measurement; `say` gets "begin" and "end" as the window opens and closes."""
    load = Load(plan, pace)
    drive = asyncio.create_task(load.open() if pace.rate else load.closed())
    await _watch(load, pace.warmup)
    used = _cpu()
    load.tally.begin()
    say("begin")
    await _watch(load, pace.duration)
    load.tally.end()
    say("end")
    used = _cpu() - used
    load.stop()
    await drive
    await load.drain()
    return {**load.tally.report(), "load_cpu_s": round(used, 3)}


async def _watch(load: Load, seconds: float) -> None:
    """Sleep, expiring old requests on the way."""
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        await asyncio.sleep(min(0.5, left))
        load.expire()


def _cpu() -> float:
    """Seconds of CPU this process has used."""
    usage = getrusage(RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def chat_request(
    url: str, model: str, key: str, headers: list[str], *, stream: bool, usage: bool, tokens: int, prompt_chars: int
) -> tuple[str, int, bytes]:
    """Host, port and the whole bytes of one request; ValueError when the URL is no plain HTTP one."""
    parts = urlsplit(url.rstrip("/"))
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url} is not an http:// URL; the load generator speaks plain HTTP only")
    prompt = (PROMPT * (prompt_chars // len(PROMPT) + 1))[:prompt_chars]
    body: dict[str, Any] = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": prompt}]}
    if stream:
        body["stream"] = True
        if usage:
            body["stream_options"] = {"include_usage": True}
    payload = orjson.dumps(body)
    lines = [
        f"POST {parts.path}/chat/completions HTTP/1.1",
        f"host: {parts.netloc}",
        "content-type: application/json",
        f"content-length: {len(payload)}",
        *([f"authorization: Bearer {key}"] if key else []),
        *headers,
    ]
    return parts.hostname, parts.port or 80, "\r\n".join([*lines, "", ""]).encode() + payload


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.load", description="Load for OpenAI-compatible doors.")
    parser.add_argument("--url", required=True, help="base URL, ending in /v1")
    parser.add_argument("--model", default="mock")
    parser.add_argument("--key", default="", help="sent as a bearer token")
    parser.add_argument("--keys-from-stdin", action="store_true", help="keys, one a line, that take turns")
    parser.add_argument("--header", action="append", default=[], help="'name: value', repeatable")
    parser.add_argument("--connections", type=int, default=0, help="closed loop with this many connections")
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: requests a second")
    parser.add_argument("--max-connections", type=int, default=1024, help="open loop: at most so many at once")
    parser.add_argument("--ramp", type=float, default=0.0, help="closed loop: seconds over which connections open")
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--duration", type=float, default=3.0, help="seconds the measured window is open")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for a whole answer")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--usage", action="store_true", help="ask for the usage chunk")
    parser.add_argument("--tokens", type=int, default=16, help="max_tokens of each request")
    parser.add_argument("--expect", type=int, default=0, help="stamped tokens a good answer has; 0 checks none")
    parser.add_argument("--prompt-chars", type=int, default=400)
    parser.add_argument("--events", action="store_true", help="print 'begin' and 'end' as the window opens and closes")
    given = parser.parse_args(arguments)
    if (given.connections > 0) == (given.rate > 0):
        parser.error("give either --connections or --rate")
    return given


async def measure(given: argparse.Namespace) -> int:
    """Run what the command line asks for and print the result."""
    keys = sys.stdin.read().split() if given.keys_from_stdin else [given.key]
    made = [
        chat_request(
            given.url, given.model, key, given.header,
            stream=given.stream, usage=given.usage, tokens=given.tokens, prompt_chars=given.prompt_chars,
        )
        for key in keys
    ]  # fmt: skip
    host, port, _ = made[0]
    plan = Plan(host, port, cycle([request for _, _, request in made]), given.stream, given.expect)
    pace = Pace(given.connections, given.rate, given.ramp, given.warmup, given.duration, given.timeout,
                given.max_connections)  # fmt: skip
    result = await run(plan, pace, lambda event: print(event, flush=True) if given.events else None)
    print(orjson.dumps(result).decode(), flush=True)
    if not result["sent"]:
        return 2
    return 1 if result["errors"] else 0


def main() -> int:
    """The program."""
    given = parse()
    try:
        return run_fast(measure(given))
    except ValueError as error:
        print(f"bench.load: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
