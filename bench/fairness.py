"""How long the other tenants wait when one sends ten times its share: `scripts/bench-fairness`.

Ten keys send short requests by the clock to an engine of 16 slots that takes 50 ms for each (320/s); one key sends far
more than is left for it. Measured twice on one Headrace: every key a tenant of its own, then all keys of one tenant,
whose requests wait first come, first served. The engine and the load share the machine.
"""

import argparse
import asyncio
import http.client
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from base.ports import free_port
from bench.client import Plan
from bench.load import Load, Pace, chat_request, side_by_side
from bench.loop import run_fast
from bench.machine import ROOT
from bench.measure import MockEngine
from bench.peers import Headrace, Peer, StartError
from bench.stats import milliseconds

MODEL, SLOTS, SERVICE_MS = "narrow", 16, 50
LIGHT, LIGHT_RATE, HEAVY_RATE = 9, 20.0, 380.0


def settings(engine_url: str) -> str:
    """A headrace.yaml with the narrow model."""
    model = {"name": MODEL, "url": engine_url, "slots": SLOTS, "private": True}
    return json.dumps({"models": [model], "runs": {"most": 50_000}})


def keys(admin_url: str, admin_key: str, tenants: Sequence[str]) -> list[str]:
    """A fresh key for each tenant."""
    parts = urlsplit(admin_url)
    found = []
    for tenant in tenants:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)
        headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}
        connection.request("POST", "/admin/v1/keys", json.dumps({"name": "bench", "tenant": tenant}), headers)
        found.append(str(json.loads(connection.getresponse().read())["token"]))
        connection.close()
    return found


async def drive(url: str, tokens: Sequence[str], seconds: float) -> list[Mapping[str, Any]]:
    """All keys at once, the last one heavy; what each saw inside the window."""
    loads = []
    for number, key in enumerate(tokens):
        host, port, request = chat_request(url, MODEL, key, [], stream=False, usage=False, tokens=1, prompt_chars=100)
        rate = HEAVY_RATE if number == len(tokens) - 1 else LIGHT_RATE
        loads.append(Load(Plan(host, port, repeat(request), False), Pace(0, rate, 0, 0, seconds, 60.0, 20_000)))
    await side_by_side(loads, 1.0, seconds)
    await asyncio.gather(*(load.drain() for load in loads))
    return [load.tally.report() | {"waited": milliseconds(load.tally.latency)} for load in loads]


def rows(name: str, reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """The light ones together (median and worst), and the heavy one."""
    light, heavy = reports[:-1], reports[-1]
    p50 = sorted(report["waited"]["p50"] for report in light)
    p99 = sorted(report["waited"]["p99"] for report in light)
    errors = sum(report["errors"] for report in reports)
    said = f"{p50[len(p50) // 2]:9.0f} {p99[len(p99) // 2]:9.0f} {p99[-1]:9.0f} {heavy['waited'].get('p50', 0):9.0f}"
    return [f"{name:26}{said} {errors:7}"]


def measure(program: Path, folder: Path, seconds: float) -> list[str]:
    """Both plays on one Headrace."""
    mock = MockEngine(folder / "mock.log", None)
    config = folder / "headrace.yaml"
    config.write_text(settings(mock.url))
    headrace = Headrace("headrace", program, folder / "data", free_port(), mock.url, ["--config", str(config)], None)
    try:
        peer, _, _ = headrace.ready(90)
        mock.set({"ttft_ms": SERVICE_MS, "itl_ms": 0, "tokens": 1})
        return _plays(peer, json.loads((folder / "data/connection.json").read_text()), seconds)
    finally:
        headrace.stop()
        mock.program.stop(5)


def _plays(peer: Peer, connection: Mapping[str, str], seconds: float) -> list[str]:
    lines = [f"{'':26}{'light p50':>9} {'p99':>9} {'worst p99':>9} {'heavy p50':>9} {'errors':>7}   (ms)"]
    plays = {
        "a tenant each": [f"tenant-{number}" for number in range(LIGHT + 1)],
        "one tenant (by arrival)": ["everybody"] * (LIGHT + 1),
    }
    for name, tenants in plays.items():
        tokens = keys(connection["admin_url"], connection["admin_key"], tenants)
        found: list[Mapping[str, Any]] = []

        async def play(tokens: Sequence[str] = tokens, found: list[Mapping[str, Any]] = found) -> int:
            found += await drive(peer.url, tokens, seconds)
            return 0

        run_fast(play())
        lines += rows(name, found)
    return lines


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="scripts/bench-fairness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--headrace", type=Path, default=ROOT / ".venv/bin/headrace")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        try:
            print("\n".join(measure(given.headrace, Path(folder), given.seconds)))
        except StartError as error:
            print(f"bench-fairness: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
