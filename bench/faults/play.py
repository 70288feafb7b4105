"""Plays cases on one ground, one after the other, each under a load of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from openai import AsyncOpenAI

from bench.faults import engines, outside, servers, stages
from bench.faults.bad_engine import BadEngine
from bench.faults.cases import Case
from bench.faults.field import SETTINGS, Field, Ground
from bench.faults.invariants import judge
from bench.faults.load import FRAIL, SOUND, Load
from bench.faults.table import Row, row_of
from runtime.topology import Topology, load
from tests.e2e.house import House, headrace, scripted_engine
from tests.e2e.scripted import running

#: `headrace up --processes`: a process per room, or one for all workers, as without the option.
SPLIT, MERGED = "split", "merged"
#: Runs begun before a strike.
_WARM = 10
_LIMITS = {"requests_per_minute": 1_000_000, "concurrency": 10_000}


@dataclass(frozen=True, slots=True)
class Wish:
    """How cases are played. runs: of all cases together at least; rate: runs begun a second. outage_s: seconds for
    which a server is frozen, None = as the form has it."""

    long: bool
    runs: int
    rate: float
    outage_s: float | None = None


def cases(long: bool, layout: str = SPLIT, topology: Topology | None = None) -> list[Case]:
    """The matrix in one of its forms."""
    found, joined = topology or load(), layout == MERGED
    if long:
        return [*stages.full(found, joined), *servers.full(), *engines.full()]
    return [*stages.quick(found, joined), *servers.quick(), *engines.quick()]


@contextmanager
def ground(folder: Path, layout: str = SPLIT) -> Iterator[Ground]:
    """A Headrace in this layout, and the engines behind its models."""
    bad, fault = BadEngine(), folder / "fault"
    with ExitStack() as stack:
        engine = stack.enter_context(scripted_engine("--ttft-ms", "5", "--itl-ms", "10"))
        broken = [stack.enter_context(running(bad.engine())) for _ in range(3)]
        models = [("mock", engine.url), (engines.ALONE, broken[0].url)]
        models += [(engines.PAIR, one.url) for one in broken[1:]]
        settings = SETTINGS + _continued(engine.url, *(one.url for one in broken[1:]))
        house = stack.enter_context(
            headrace(
                folder / "data", "--processes", layout,
                settings=settings, engines=models, environment={"FAULT_FILE": str(fault)},
            )
        )  # fmt: skip
        key = str(house.new_key(**_LIMITS)["token"])
        yield Ground(house, engine, bad, key, load(), fault, house.valkey_url, _processes(house))


def _processes(house: House) -> tuple[frozenset[str], ...]:
    """The rooms that share each process."""
    sharing: dict[int, set[str]] = {}
    for room, pid in house.connection["pids"].items():
        sharing.setdefault(pid, set()).add(room)
    return tuple(map(frozenset, sharing.values()))


def _continued(sound: str, *frail: str) -> str:
    """Settings of the models whose engines continue, in both ways in which engines are asked to."""
    ways = itertools.cycle(("continue_final_message", "prefill"))
    urls = [(SOUND, sound, "mock"), *((FRAIL, url, "") for url in frail)]
    rows = [
        f"  - {{name: {name}, deployment: {name}-{place}, url: '{url}', upstream_model: '{model}', continues: {way}}}\n"
        for place, ((name, url, model), way) in enumerate(zip(urls, ways, strict=False))
    ]
    return "models:\n" + "".join(rows)


async def play(ground: Ground, chosen: Sequence[Case], wish: Wish, say: Callable[[str], None]) -> list[Row]:
    """The cases in order; a case that cannot be played to its end is a broken promise, not the end of all."""
    rows = []
    async with AsyncOpenAI(base_url=f"{ground.house.base_url}/v1", api_key=ground.key, max_retries=0) as client:
        for case in chosen:
            say(f"{case.name} ...")
            rows.append(await _one(ground, case, wish, math.ceil(wish.runs / len(chosen)), client))
            say(f"{case.name}: {rows[-1].runs} runs, {rows[-1].seconds:.0f} s, {len(rows[-1].broken)} broken")
    return rows


async def _one(ground: Ground, case: Case, wish: Wish, runs: int, client: AsyncOpenAI) -> Row:
    begun = monotonic()
    load = Load(case.name, ground.house.base_url, ground.key, client, wish.rate * case.share, case.most, case.body)
    field = Field(ground, load, wish.long, round(runs * case.share), wish.outage_s)
    load.start()
    try:
        await load.until(_WARM)
        await case.play(field)
        await load.until(field.wanted)
    except Exception as error:
        field.notes.append(f"could not be played to its end: {error!r}")
    finally:
        ground.fault.unlink(missing_ok=True)
        await load.stop()
    left = await outside.at_rest(ground)
    verdicts = {one.said.name: judge(one) for one in await outside.gather(ground, load.said)}
    row = row_of(case.name, verdicts, field.takeovers, [*field.notes, *left], case.codes, case.cuts)
    if case.continues and not row.continued:
        row.broken.append("no answer was continued")
    row.seconds = monotonic() - begun
    return row
