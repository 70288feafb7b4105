"""What clients see when the server under everything comes back without its last writes, and what is billed for it.

    loss window   Valkey is killed and the last second cut off its append-only file: what a power cut may cost
    failover      the primary is killed while its replica lagged, and Sentinel promotes the replica

Runs are asked for at a steady rate while it happens; half of them stream. Afterwards what each client saw is held
against what the engine sent (its tokens are stamps, no two are the same) and against the record. `play` gives plain
rows, `table` shows them; `python -m bench.failover` plays both.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import orjson

from tests.e2e.house import Engine, House, scripted_engine
from tests.losses import losing_house, replicated_house

TOKENS = 20
ITL_MS = 25
_RATE = 20.0  # requests a second
_BEFORE_S, _AFTER_S = 2.0, 1.0
_DEADLINE_S = 60.0
_SETTLED_S = 60.0  # until nothing is pending any more, in the long form
_SURE_S = 1.0  # an answer that was whole so long before the blow is on the record

Blow = Callable[[], Awaitable[float]]


@dataclass
class Said:
    """What one client was told. ended: when, on the monotonic clock; 0 = it never ended."""

    name: str
    run: str = ""
    text: str = ""
    done: bool = False
    code: str = ""
    cut: bool = False
    began: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one case. silent: ended without an answer and without a code, or never; doubled: words of two
    executions in one answer; overbilled: more tokens on the record than the engine sent; unrecorded: whole answers
    that are not on the record though they had been there for a second. away_s: until the server was in charge again;
    served_s: from there until a request was answered whole."""

    name: str
    runs: int
    completed: int
    coded: Mapping[str, int]
    silent: int
    doubled: int
    overbilled: int
    unrecorded: int
    executed_twice: int
    away_s: float
    served_s: float

    @property
    def broken(self) -> bool:
        """Whether a promise was."""
        return bool(self.silent or self.doubled or self.overbilled or self.unrecorded)


@dataclass
class _Load:
    """Requests at a steady rate until it is told to stop."""

    name: str
    base_url: str
    key: str
    http: httpx.AsyncClient
    said: list[Said] = field(default_factory=list)
    asking: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> None:
        """Ask until cancelled; nothing is awaited."""
        while True:
            self.ask()
            await asyncio.sleep(1 / _RATE)

    def ask(self) -> None:
        said = Said(f"{self.name}-{len(self.said)}", began=monotonic())
        self.said.append(said)
        self.asking.append(asyncio.create_task(self._ask(said, len(self.said) % 2 == 0)))

    async def _ask(self, said: Said, stream: bool) -> None:
        prompt = [{"role": "user", "content": f"@@id={said.name}"}]
        body = {"model": "mock", "stream": stream, "max_tokens": TOKENS, "messages": prompt}
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            async with self.http.stream(
                "POST", f"{self.base_url}/v1/chat/completions", json=body, headers=headers
            ) as reply:
                said.run = reply.headers.get("x-request-id", "")
                if not stream or reply.status_code != 200:
                    _whole(said, orjson.loads(await reply.aread()))
                else:
                    async for line in reply.aiter_lines():
                        _take(said, line)
        except httpx.TimeoutException:
            return
        except httpx.TransportError:
            said.cut = True
        said.ended = monotonic()


def _whole(said: Said, answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        said.code = answer["error"]["code"] or answer["error"]["type"]
    else:
        said.text, said.done = answer["choices"][0]["message"]["content"], True


def _take(said: Said, line: str) -> None:
    if not line.startswith("data: "):
        return
    if line == "data: [DONE]":
        said.done = True
        return
    event = orjson.loads(line[6:])
    if "error" in event:
        said.code = event["error"]["code"] or event["error"]["type"]
    elif event.get("choices"):
        said.text += event["choices"][0]["delta"].get("content") or ""


async def play(name: str, house: House, key: str, engine: Engine, blow: Blow, *, patient: bool) -> Row:
    """One case: load, the blow (which says how long the server was away), load again, judgement. patient: wait until
    everything that came back has ended too."""
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=_DEADLINE_S, limits=limits, trust_env=False) as http:
        load = _Load(name, house.base_url, key, http)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(_BEFORE_S)
        struck = monotonic()
        away_s = await blow()
        served_s = await _until_served(load)
        await asyncio.sleep(_AFTER_S)
        running.cancel()
        await asyncio.wait(load.asking)
    if patient:
        await asyncio.to_thread(_settled, house)
    ledger = await asyncio.to_thread(engine.ledger, "")
    billed = await asyncio.to_thread(_billed, house, [said.run for said in load.said if said.run])
    return judge(name, load.said, ledger, billed, struck, away_s, served_s)


async def _until_served(load: _Load) -> float:
    """Seconds from now, when the server is in charge again, until a request that was sent since was answered whole."""
    back = monotonic()
    while monotonic() < back + _DEADLINE_S:
        done = [said.ended for said in load.said if said.began > back and said.done and said.ended]
        if done:
            return min(done) - back
        await asyncio.sleep(0.05)
    return float("inf")


def _settled(house: House) -> None:
    """Until no group has anything left."""
    end = monotonic() + _SETTLED_S
    while monotonic() < end:
        status, found = house.request("/admin/v1/lag")
        if status == 200 and all(row["pending"] == 0 and row["lag"] == 0 for row in found["data"]):
            return


def _billed(house: House, runs: Sequence[str]) -> dict[str, int]:
    """Tokens of each recorded run."""
    found = {}
    for run in runs:
        status, row = house.request(f"/admin/v1/requests/{run}")
        if status == 200:
            found[run] = int(row["completion_tokens"])
    return found


def judge(
    name: str,
    told: Sequence[Said],
    ledger: Mapping[str, Sequence[Mapping[str, Any]]],
    billed: Mapping[str, int],
    struck: float,
    away_s: float,
    served_s: float,
) -> Row:
    """Pure. ledger: what the engine sent, by name, attempt by attempt; billed: by run."""
    texts = {said.name: [str(one["text"]) for one in ledger.get(said.name, ())] for said in told}
    sent = {name: sum(text.count(" x") for text in said) for name, said in texts.items()}
    recorded_by = struck - _SURE_S
    return Row(
        name=name,
        runs=len(told),
        completed=sum(said.done and not said.code for said in told),
        coded=dict(Counter(said.code for said in told if said.code)),
        silent=sum(said.done == bool(said.code) or not said.ended for said in told),
        doubled=sum(
            said.text != "" and not any(one.startswith(said.text) for one in texts[said.name]) for said in told
        ),
        overbilled=sum(billed.get(said.run, 0) > sent[said.name] for said in told),
        unrecorded=sum(said.done and said.ended < recorded_by and said.run not in billed for said in told),
        executed_twice=sum(len(texts[said.name]) > 1 for said in told),
        away_s=away_s,
        served_s=served_s,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [
        "| case | runs | completed | coded errors | silent | doubled | overbilled | unrecorded | executed twice | "
        "server away s | served again s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        codes = ", ".join(f"{count} {code}" for code, count in sorted(row.coded.items())) or "none"
        bad = (row.silent, row.doubled, row.overbilled, row.unrecorded, row.executed_twice)
        times = (f"{row.away_s:.1f}", f"{row.served_s:.1f}")
        lines.append("| " + " | ".join(map(str, (row.name, row.runs, row.completed, codes, *bad, *times))) + " |")
    return "\n".join(lines)


def both(folder: Path, *, patient: bool) -> list[Row]:
    """Every case, each with a house of its own."""
    rows = []
    with scripted_engine("--ttft-ms", "10", "--itl-ms", str(ITL_MS)) as engine:
        with losing_house(folder / "window", engine) as losing:
            rows.append(
                asyncio.run(play("loss-window", losing.house, losing.key, engine, losing.blow, patient=patient))
            )
        with replicated_house(folder / "failover", engine) as pair:
            rows.append(asyncio.run(play("failover", pair.house, pair.key, engine, pair.blow, patient=patient)))
    return rows


def main() -> int:
    words = "Kill the server under load, with a lagging replica and with a cut file."
    argparse.ArgumentParser(prog="python -m bench.failover", description=words).parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        rows = both(Path(folder), patient=True)
    print(table(rows))
    return int(any(row.broken for row in rows))


if __name__ == "__main__":
    sys.exit(main())
