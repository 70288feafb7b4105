"""What must hold of requests that came with an Idempotency-Key (I8), looked at from outside.

One run at a time for a key; once one has answered, none after it. Whoever is shown a run is shown the same bytes, and
never the answer to another request than his own; another body under a key that is taken is told so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from schemas.errors import Code
from tests.simulation.chance import EPOCH_MS
from tests.simulation.clients import Asker, error_of
from tests.simulation.world import Accepted, World


def broken_of_keys(world: World) -> Iterator[str]:
    """Every promise about a key that does not hold, in words."""
    for asker in world.askers:
        yield from _shown(world, asker)
    for key in sorted({_key(world, asker) for asker in world.askers if asker.once}):
        yield from _executions(world, key)


def _key(world: World, asker: Asker) -> tuple[str, str]:
    return world.orders[asker.tag].token, asker.once


def _executions(world: World, key: tuple[str, str]) -> Iterator[str]:
    """The runs of one key, one after the other. A failover that lost writes may have lost the key as well."""
    if world.redis.lost:
        return
    mine = [known for known in world.known.values() if _key(world, world.askers[known.number]) == key]
    rows = [(known, row) for known in mine if (row := world.record._requests.get(known.run)) is not None]
    for (before, ended), (after, _) in pairwise(sorted(rows, key=lambda ran: ran[0].at)):
        if ended.outcome == "completed":
            yield f"I8 {key[1]}: run {after.run} began after run {before.run} had answered"
        if EPOCH_MS + after.at * 1000 < ended.ended_ms:
            yield f"I8 {key[1]}: runs {before.run} and {after.run} lived at the same time"
    yield from _refusals(world, key, mine)


def _refusals(world: World, key: tuple[str, str], mine: Sequence[Accepted]) -> Iterator[str]:
    """Told that the key is another request's: then there was another."""
    for asker in world.askers:
        reused = asker.code == Code.idempotency_key_reused and asker.once and _key(world, asker) == key
        if reused and all(known.tag == asker.tag for known in mine):
            yield f"I8 client {asker.number} was told that {key[1]} is another request's, and there was none"


def _shown(world: World, asker: Asker) -> Iterator[str]:
    """Which run a client was shown, and that it saw of it what the run's own client saw."""
    known = world.known.get(asker.run)
    if known is None or known.number == asker.number or world.redis.lost:  # then it may have been accepted for both
        return
    first, who = world.askers[known.number], f"client {asker.number}"
    if not asker.once or _key(world, first) != _key(world, asker) or known.tag != asker.tag:
        yield f"I8 {who} was shown run {known.run} of client {first.number}, another request's"
    if not asker.replayed:
        yield f"I8 {who} was not told that its answer was there before"
    yield from _same(first, asker, who)


def _same(first: Asker, again: Asker, who: str) -> Iterator[str]:
    """Byte for byte, as far as both saw it."""
    ours, theirs = ([event for event in one.events if not error_of(event)] for one in (first, again))
    if any(a != b for a, b in zip(ours, theirs, strict=False)):
        yield f"I8 {who} saw other bytes than client {first.number}"
    whole = first.ended and again.ended and not first.code and not again.code
    if whole and len(ours) != len(theirs):
        yield f"I8 {who} saw {len(theirs)} events, client {first.number} {len(ours)}"
