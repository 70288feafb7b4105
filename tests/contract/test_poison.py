"""Poison at every group of streams.yaml: what cannot be read or was not said by those who may is dead at its first
delivery, what its handler cannot bear at its third start, each with its reason; the neighbours are handled once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from runtime.names import stream_prefix
from schemas import envelope as wire
from schemas.events import KeyChanged
from schemas.outcomes import Delivery, Done, Outcome
from tests.engine_support import FACTS, FORGER, LANE_KEY, REQUESTS, TOPOLOGY, House, Seen, seals
from tests.golden_support import MESSAGES
from tests.run_support import RING, World, until

KEYS = {"requests": REQUESTS, "cleared": LANE_KEY, "facts": FACTS, "commands": "commands"}
GROUPS = [(name, group) for name, stream in TOPOLOGY.streams.items() for group in stream.groups]
every_group = pytest.mark.parametrize(("stream", "group"), GROUPS)
one_of_each_stream = pytest.mark.parametrize(("stream", "group"), list(dict(GROUPS).items()))

Fields = dict[str, bytes]


@pytest_asyncio.fixture
async def house(world: World) -> AsyncIterator[House]:
    """Engines over the world; stopped at the end."""
    made = House(world)
    yield made
    await made.close()


def said(stream: str, by: str, event: wire.Event, ring: str = "ours", version: int = 0, name: str = "e") -> Fields:
    """An entry as that publisher would write it. ring: ours | another. version: instead of the event's own."""
    e = wire.encode(event, id=name, by=by, run=name)
    if version:
        e = e.replace(b'"v":1', b'"v":%d' % version, 1)
    signer = seals(by, FORGER if ring == "another" else RING).signer
    return {"e": e, "s": b"" if by == wire.SCRIPT else wire.sign(signer, stream, e).s}


def genuine(stream: str) -> tuple[str, wire.Event]:
    """One who may speak there, and what may be said."""
    return next((by, events[0]) for (name, by), events in MESSAGES.items() if name == stream)


def poison(stream: str) -> list[tuple[Fields, str]]:
    """What no engine may hand to its handler, each with the beginning of its reason."""
    by, event = genuine(stream)
    found = [
        ({"e": b"junk", "s": b"t1:00"}, "DecodeError: not an envelope"),
        ({"other": b"fields"}, "DecodeError: not an envelope"),
        ({"e": b'{"id":"\xff"}', "s": b"t1:00"}, "DecodeError: not an envelope"),
        ({"e": b'{"data":' + b"[" * 100_000, "s": b"t1:00"}, "DecodeError: not an envelope"),
        ({"e": said(stream, by, event)["e"], "s": b"\xff\x00"}, "SignatureError: ")
        if by != wire.SCRIPT
        else ({"e": b"[]"}, "DecodeError: not an envelope"),
        (said(stream, "stranger", event), "SignatureError: 'stranger' may not publish"),
        (said(stream, by, KeyChanged(key_id="k1")), f"SignatureError: {by!r} may not publish KeyChanged"),
    ]
    if by != wire.SCRIPT:
        found += [
            (said(stream, by, event, "another"), "SignatureError: the signature of"),
            (said(stream, by, event, "another", version=99), "SignatureError: the signature of"),
            (said("elsewhere", by, event), "SignatureError: the signature of"),
        ]
    return found


@every_group
async def test_what_nobody_may_say_is_dead_at_its_first_delivery(
    stream: str, group: str, world: World, house: House
) -> None:
    key, seen = KEYS[stream], Seen()
    await house.engine(seen, stream=stream, group=group, keys=(key,))
    bad = poison(stream)
    for fields, _ in bad:
        await world.add(key, fields)
        await world.add(key, said(stream, *genuine(stream)))
    await until(lambda: _settled(world, key, group))
    letters = [fields for _, fields in await world.entries(f"{stream_prefix(key)}dlq")]
    assert {(letter[b"stream"], letter[b"group"], letter[b"starts"]) for letter in letters} == {
        (key.encode(), group.encode(), b"1")
    }
    reasons = [letter[b"reason"].decode() for letter in letters]
    assert all(any(reason.startswith(start) for reason in reasons) for _, start in bad) and len(reasons) == len(bad)
    assert len(seen.runs) == len(bad)


@one_of_each_stream
async def test_what_a_handler_cannot_bear_is_dead_at_its_third_start(
    stream: str, group: str, world: World, house: House
) -> None:
    key, started = KEYS[stream], list[str]()

    async def handle(deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        started.extend(delivery.envelope.id for delivery in deliveries)
        if any(delivery.envelope.id == "bad" for delivery in deliveries):
            raise RuntimeError("cannot bear it")
        return [Done() for _ in deliveries]

    by, event = genuine(stream)
    for name in ("one", "bad", "two"):
        await world.add(key, said(stream, by, event, name=name))
    await house.engine(handle, stream=stream, group=group, keys=(key,))
    await until(lambda: _settled(world, key, group))
    ((_, letter),) = await world.entries(f"{stream_prefix(key)}dlq")
    assert (letter[b"starts"], letter[b"reason"]) == (b"3", b"RuntimeError: cannot bear it")
    assert started.count("bad") == 3 and {started.count("one"), started.count("two")} <= {1, 2}


async def _settled(world: World, key: str, group: str) -> bool:
    return await world.unread(key, group) == 0 and not await world.pending(key, group)
