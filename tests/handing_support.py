"""A process that gives verdicts and routes what it clears, over a World; its calls can be noted and held back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from base.clock import Clock
from runtime.consume import Engine
from runtime.handing import Handing
from runtime.jointly import Jointly
from runtime.leases import Leases, RunHandler
from runtime.names import push_channel
from runtime.places import Places
from runtime.scripts import Answer
from schemas.errors import Unavailable
from tests.engine_support import LANE_KEY, House, P, seals
from tests.run_support import CHANCE, CLOCK, FAMILIES, POOL, World, answer


def said(run: str, *refusing: str) -> list[Answer]:
    """All families about a run."""
    return [answer(run, family, "refuse" if family in refusing else "pass") for family in FAMILIES]


class Counted:
    """Scripts of a world, each call noted. lost: so many verdicts are carried out without a reply; reply: until then
    verdicts are carried out and not answered."""

    def __init__(self, world: World, lost: int = 0) -> None:
        self._scripts, self.lost, self.calls = world.scripts, lost, list[str]()
        self.reply = asyncio.Event()
        self.reply.set()

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            result = await getattr(self._scripts, name)(*args, **kwargs)
            if name == "verdicts":
                await self.reply.wait()
            if name == "verdicts" and self.lost:
                self.lost -= 1
                raise Unavailable("the reply was lost")
            return result

        return call


async def process(
    house: House, scripts: Counted, served: RunHandler, slots: int, clock: Clock = CLOCK
) -> tuple[Jointly, Engine]:
    """A process that gives verdicts and routes, with places for so many runs. clock: by which it sees its load."""
    world, places = house.world, Places()
    places.set({POOL: slots})
    await (await world.groups()).ensure(LANE_KEY, "router")
    leases = Leases("c1", served, scripts, world.runs, seals("router"), CLOCK, CHANCE)
    await world.push.listen([push_channel(P, "c1")], leases.hear, lambda: None)
    engine = await house.engine(
        *(leases.as_handler(),),
        stream="cleared",
        group="router",
        keys=(LANE_KEY,),
        single=True,
        places=places,
    )
    leases.engine = engine
    joint = Jointly(scripts)
    joint.routers[P] = Handing(engine, leases, clock, CHANCE)
    return joint, engine


async def judge(joint: Jointly, run: str) -> Sequence[tuple[bool, str]]:
    """Every family passes the run, all in one moment."""
    return [one[:2] for (one,) in await asyncio.gather(*(joint.tell([one]) for one in said(run)))]


async def ended(world: World, run: str) -> bool:
    return (await world.runs.fields(run)).get("outcome") == b"completed"
