"""Every stage, killed at each crash point (P1 to P4), in mid-stream, or frozen until it is a stale owner.

The stages are the consumer groups of streams.yaml and the ingress. The quick form strikes all points of several stages
in one load; the full form gives each point a load of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from bench.faults.cases import BROKEN, NONE, Case
from bench.faults.field import Field
from bench.faults.load import SOUND, chat
from bench.faults.said import Said
from console.stack import room_of
from runtime.topology import Topology

POINTS = ("P1", "P2", "P3", "P4")
#: Deltas after which a stream is in its middle.
_MIDDLE = 3
_DEPLOY = "provisioner"
#: Seconds until every model that was asked for must be ready.
_READY_S = 60
#: 40 to 60 tokens of a model that continues: many streams are in their middle when one is struck.
_LONG = chat(SOUND, lambda number: 40 + number * 7 % 21)
_names = itertools.count(1)


def groups(topology: Topology) -> list[str]:
    """Every consumer group, in the order of the file."""
    return [group for stream in topology.streams.values() for group in stream.groups]


def quick(topology: Topology, joined: bool) -> list[Case]:
    """All points of all stages in few loads, and one frozen guard. joined: all workers are one process."""
    others = [group for group in groups(topology) if group != "router"]
    return [
        Case("workers", "stages", partial(_workers, others), _codes("console", joined)),
        Case("router", "stages", _router, BROKEN),
        Case("router.continued", "stages", partial(midstream, "router"), body=_LONG, continues=True),
        Case("ingress", "stages", _ingress, cuts=True),
        Case("rules.frozen", "stages", partial(freeze, "rules", ("P2",)), _codes("rules", joined)),
    ]


def full(topology: Topology, joined: bool) -> list[Case]:
    """A case for each stage and point; mid-stream; everything that holds runs, frozen at each point. joined: all
    workers are one process."""
    found = []
    for group in ("ingress", *groups(topology)):
        codes, cuts = _codes(group, joined), group == "ingress"
        found += [
            Case(f"{group}.{point}", "stages", partial(crash_all, [group], (point,)), codes, cuts) for point in POINTS
        ]
    frozen = [*topology.streams["requests"].groups, "router"]
    return [
        *found,
        Case("ingress.midstream", "stages", partial(midstream, "ingress"), cuts=True),
        Case("router.midstream", "stages", partial(midstream, "router"), BROKEN),
        Case("router.midstream.continued", "stages", partial(midstream, "router"), body=_LONG, continues=True),
        Case("console.midstream", "stages", partial(midstream, "console"), _codes("console", joined)),
        *(Case(f"{one}.frozen", "stages", partial(freeze, one, POINTS), _codes(one, joined)) for one in frozen),
    ]


def _codes(group: str, joined: bool) -> frozenset[str]:
    """What clients may be told when the process of a group dies: a router that dies breaks off answers."""
    return BROKEN if group == "router" or (joined and group != "ingress") else NONE


async def crash_all(stages: Sequence[str], points: Sequence[str], field: Field) -> None:
    """Kill each stage at each point; processes side by side."""
    processes: dict[frozenset[str], list[str]] = {}
    for stage in stages:
        processes.setdefault(field.ground.process_of(room_of(stage)), []).append(stage)
    async with _deploying(field, _DEPLOY in stages), asyncio.TaskGroup() as side_by_side:
        for found in processes.values():
            side_by_side.create_task(_crash_process(found, points, field))


async def _crash_process(stages: Sequence[str], points: Sequence[str], field: Field) -> None:
    """One stage after the other where they share it."""
    for stage in stages:
        await _crash(stage, points, field)


async def _crash(stage: str, points: Sequence[str], field: Field) -> None:
    """One point after the other, each when what died with the last one is finished: three deaths with one entry in hand
    make a dead letter."""
    for point in points:
        await (await field.crash(stage, point))
        if stage == "ingress":
            await field.load.calm()


async def _workers(stages: Sequence[str], field: Field) -> None:
    await crash_all(stages, POINTS, field)
    await midstream("console", field)


async def _router(field: Field) -> None:
    await crash_all(["router"], POINTS, field)
    await midstream("router", field)


async def _ingress(field: Field) -> None:
    await crash_all(["ingress"], POINTS, field)
    await midstream("ingress", field)


async def midstream(room: str, field: Field) -> None:
    """Kill a room once a stream is in its middle."""
    middle = asyncio.Event()

    def heard(said: Said) -> None:
        if said.tokens == _MIDDLE and not said.finish:
            middle.set()

    field.load.on_event = heard
    await asyncio.wait_for(middle.wait(), 60)
    field.load.on_event = lambda said: None
    await (await field.kill(room))


async def freeze(group: str, points: Sequence[str], field: Field) -> None:
    """One of two processes stops at each point, is robbed, and wakes up when its work is another's."""
    async with field.second(group):
        for point in points:
            await field.freeze(group, point)


@asynccontextmanager
async def _deploying(field: Field, wanted: bool) -> AsyncIterator[None]:
    """Models are asked for all the while, so that the provisioner has something to do; each must become ready, once."""
    if not wanted:
        yield
        return
    asked: list[str] = []
    over = asyncio.Event()
    task = asyncio.create_task(_deploy(field, asked, over))
    try:
        yield
    finally:
        over.set()
        await task
    await _ready_once(field, asked)


async def _deploy(field: Field, asked: list[str], over: asyncio.Event) -> None:
    while not over.is_set():
        asked.append(name := f"extra-{next(_names)}")
        wish = {"name": name, "url": field.ground.engine.url, "upstream_model": "mock"}
        status = await _ask(field, wish)
        if status not in (200, 201, 202):
            field.notes.append(f"model {name} was refused with {status}")
        await asyncio.sleep(1.0)


async def _ask(field: Field, wish: dict[str, str]) -> int:
    """The status of the admin API's answer. It is asked again while its process is struck; a wish may come twice."""
    patience = monotonic() + _READY_S
    while True:
        try:
            return (await asyncio.to_thread(field.ground.house.request, "/admin/v1/models", wish))[0]
        except OSError:
            if monotonic() > patience:
                raise
            await asyncio.sleep(0.2)


async def _ready_once(field: Field, asked: Sequence[str]) -> None:
    """Wait for the models, then remove them."""
    house = field.ground.house

    def states() -> list[list[str]]:
        found = house.request("/admin/v1/deployments")[1]["data"]
        return [[row["state"] for row in found if row["deployment"] == name] for name in asked]

    for _ in range(_READY_S * 5):
        if await asyncio.to_thread(states) == [["ready"]] * len(asked):
            break
        await asyncio.sleep(0.2)
    else:
        field.notes.append(f"deployments that were asked for stand as {states()}")
    for name in asked:
        await asyncio.to_thread(house.request, f"/admin/v1/models/{name}", method="DELETE")
