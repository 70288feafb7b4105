"""What a run holds is given back when it ends, also where authorization had not spoken: before its hold or after."""

from __future__ import annotations

import pytest

from base.crypto import Verifier
from policy.quotas import scopes_of
from runtime.leaving import cancel_run
from schemas.envelope import decode
from schemas.outcomes import Delivery, Done
from schemas.ports import Limits, Reservation
from state.limits import RedisLimits
from state.memory import MemoryKeys, MemoryLimits
from tests.authorization_support import key
from tests.engine_support import FACTS, TOPOLOGY, House, seals
from tests.run_support import CLOCK, RING, MemoryWorld, World
from workers.audit.handlers import Ledger

PUBLISHERS = TOPOLOGY.streams["facts"].publishers
KEY = key(concurrency=1)


def limits_of(world: World) -> Limits:
    return MemoryLimits(CLOCK) if isinstance(world, MemoryWorld) else RedisLimits(world.redis)


async def ended(world: World) -> Delivery:
    """A run that was withdrawn while it was checked, as the ledger hears of it."""
    run = await House(world).accept(key_id=KEY.key_id)
    assert await cancel_run(world.scripts, world.runs, seals("ingress"), run, "lost", unwatched=False) == "cancelled"
    ((entry, fields),) = await world.entries(FACTS)
    envelope, event = decode(fields[b"e"])
    return Delivery(stream=FACTS, entry=entry, envelope=envelope, event=event, fields=fields)


def hold(run: str) -> Reservation:
    return Reservation(run=run, tenant=KEY.tenant, scopes=scopes_of(KEY), ttl_ms=60_000)


@pytest.mark.parametrize("late", [False, True])
async def test_a_run_that_ends_before_authorization_has_spoken_holds_nothing(world: World, late: bool) -> None:
    limits, fact = limits_of(world), await ended(world)
    ledger = Ledger(Verifier(RING), PUBLISHERS, MemoryKeys([KEY]), limits)
    if not late:
        await limits.reserve([hold(fact.run)])
    assert await ledger.handle([fact]) == [Done()]
    await limits.reserve([hold(fact.run)])
    assert [answer.granted for answer in await limits.reserve([hold("another")])] == [True]


async def test_nothing_is_given_back_for_a_key_that_nobody_knows(world: World) -> None:
    limits, fact = limits_of(world), await ended(world)
    await limits.reserve([hold(fact.run)])
    assert await Ledger(Verifier(RING), PUBLISHERS, MemoryKeys(), limits).handle([fact]) == [Done()]
    assert [answer.granted for answer in await limits.reserve([hold("another")])] == [False]
