"""Doors on real delivery for tests: several ingresses over one world, and a router of ours behind them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from ingress.app import Ingress
from ingress.serve import IngressServer
from ingress.settings import ServerSettings
from runtime.door import Bounds, StreamDoor
from runtime.names import prefix, push_channel
from runtime.seals import Seals
from schemas import envelope as wire
from schemas.events import RequestAccepted, RequestCompleted, Usage
from state.memory import MemoryKeys
from tests.ingress_support import chunk, new_parts
from tests.run_support import CHANCE, CLOCK, PARTITIONS, RING, Hands, World, answer, open_gates, store_frame, until

FAMILIES = ("authorization", "rules")


@dataclass
class Doorway:
    """One ingress on real delivery."""

    port: int
    token: str
    url: str
    server: IngressServer


def seals(publisher: str) -> Seals:
    return Seals(RING, publisher, CLOCK, CHANCE)


@contextlib.asynccontextmanager
async def doorway(world: World, keys: MemoryKeys, token: str, name: str, most: int = 100) -> AsyncIterator[Doorway]:
    bounds = Bounds(most_runs=most, most_bytes=1_000_000)
    door = StreamDoor(name, PARTITIONS, world.scripts, world.runs, seals("ingress"), CLOCK, CHANCE, bounds)
    channels = [push_channel(prefix(number), name) for number in range(PARTITIONS)]
    await world.push.listen(channels, door.hub.hear, door.hub.missed)
    settings = ServerSettings(port=0, drain_limit=1)
    parts = new_parts(door, settings, keys, RING, name)
    server = IngressServer(Ingress(parts), settings, parts.health, CLOCK)
    await server.start()
    try:
        yield Doorway(server.port, token, f"http://127.0.0.1:{server.port}", server)
    finally:
        await server.stop()


async def accepted(world: World, known: Collection[str] = ()) -> Hands:
    """The run that was accepted, wherever it lies, its signature checked; none of the known ones."""
    found: list[Hands] = []

    async def look() -> bool:
        for number in range(PARTITIONS):
            for _, fields in await world.entries(f"{prefix(number)}:requests"):
                signed = wire.Signed(fields[b"e"], fields[b"s"])
                envelope, event = wire.verify(
                    seals("router").verifier, "requests", {"ingress": ("RequestAccepted",)}, signed
                )
                assert isinstance(event, RequestAccepted) and len(fields[b"e"]) < 1024
                if envelope.run not in known:
                    found.append(Hands(world, envelope.run))
        return bool(found)

    await until(look)
    return found[0]


async def claimed(world: World, known: Collection[str] = ()) -> Hands:
    """The accepted run, cleared by all families and owned."""
    hands = await accepted(world, known)
    await open_gates(world.scripts)
    for family in FAMILIES:
        await world.scripts.verdict(answer(hands.run, family))
    (entry,) = await hands.read(hands.lane, "router", "r1")
    assert (await world.scripts.claim(hands.run, hands.lane, entry, "r1", "r1:a")).state == "ok"
    return hands


async def say(world: World, hands: Hands, last: int, *texts: str) -> None:
    payload = b"".join(chunk(text) for text in texts)
    frame = seals("router").frame(hands.run, 1, last, "data", len(texts), payload, {"x-headrace-endpoint": "e1"})
    assert await store_frame(world.scripts, hands.run, "r1:a", last, frame) in ("ok", "")


async def finish(world: World, hands: Hands, last: int) -> None:
    frame = seals("router").frame(hands.run, 1, last, "end", 1, b"data: [DONE]\n\n", None)
    fact = RequestCompleted(run=hands.run, model="tiny", endpoint="e1", usage=Usage())
    state = await world.scripts.end(hands.run, "owner", "r1:a", f"1-{last - 1}", frame, seals("router").ending(fact, 1))
    assert state == "ok"
