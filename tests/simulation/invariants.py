"""What must hold when a house has come to rest (I1 to I8), looked at from outside: clients, engines' ledger, record.

I1  every accepted run ended, in time; who stayed saw an end that is whole or has a code, or a cut
I2  who watches sees one execution: words in order, none twice, none missing; a second reader sees the same bytes
I3  one row a run: a completed one with the engine's own count, any other never above what the engine let go of
I4  nothing is pending, nothing lies among the dead but what was poison or was started too often
I5  the record says what the client saw
I6  nothing is held: live runs, bytes, places, slots, reservations
I7  a run goes on for nobody exactly as long as its policy says
I8  an Idempotency-Key: see once.py

A failover that lost writes may have lost runs, facts and frames. Then the weaker promise holds: what is there is right,
each reader for itself saw one execution, nothing is billed twice or above what the engine let go of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import inf

from runtime.memory.gate import PoolGate
from schemas.errors import Code
from schemas.records import RequestRecord
from tests.simulation import settings
from tests.simulation.chance import EPOCH_MS
from tests.simulation.clients import Asker, Resumer, Seen, error_of
from tests.simulation.fleet import calls_in, words_in
from tests.simulation.once import broken_of_keys
from tests.simulation.world import Accepted, P, World

Words = list[tuple[int, int, int]]  # run, call, number

_SWEEP_S = 3.0  # two rounds of a sweeper, and what its calls take
_GRACE_S = 60.0  # reservations outlive the time of their run by this, counted from when they were made
_NEARLY_S = 0.02  # a look at the clock on either side of a call
_CALM_S = 10.0  # until a sweeper believes what silence says
_STOP_S = 0.5  # from a client's leaving to the end of its run
_HINDRANCES = ("pauses", "drains", "outages", "failovers", "lost replies")
#: What a door says by itself about a run that may have ended otherwise.
_DOOR_SAYS = frozenset(
    {"upstream_interrupted", "deadline_exceeded", "store_unavailable", "not_found", "server_error", "internal_error"}
)


def unsettled(world: World) -> list[str]:
    """What is still under way, in words (I4 and I6, and clients that wait)."""
    return [*_clients_waiting(world), *_streams(world), *_held(world), *_hands(world)]


def broken(world: World) -> list[str]:
    """Every invariant that does not hold, in words."""
    found = [f"not at rest: {what}" for what in unsettled(world)]
    found += [f"the loop was told of an error: {error}" for error in world.loop.errors]
    found += [line for known in world.known.values() for line in _run(world, known)]
    found += [line for asker in world.askers for line in _asker(world, asker)]
    found += [line for resumer in world.resumers for line in _resumer(world, resumer)]
    found += [*broken_of_keys(world), *_dead_letters(world), *_reservations(world), *_record(world)]
    return found


# --- at rest ------------------------------------------------------------------------------------------------------


def _clients_waiting(world: World) -> Iterator[str]:
    for client in (*world.askers, *world.resumers):
        if not client.over:
            yield f"I1 a client of {client.door} waits"


def _streams(world: World) -> Iterator[str]:
    for key, stream in world.redis.twins.memory.streams.items():
        for name, group in stream.groups.items():
            if group.pending:
                yield f"I4 {key} {name}: {len(group.pending)} pending"
            if any(True for _ in stream.after(group.last)):
                yield f"I4 {key} {name}: unread entries"
        if ":cleared:" in key and stream.entries:
            yield f"I6 {key}: {len(stream.entries)} entries"


def _held(world: World) -> Iterator[str]:
    memory = world.redis.twins.memory
    if memory.live.get(P):
        yield f"I6 live runs: {sorted(memory.live[P])}"
    if memory.bytes.get(P):
        yield f"I6 bytes of bodies: {memory.bytes[P]}"
    for (_, pool), gate in memory.gates.items():
        yield from _gate(pool, gate)


def _gate(pool: str, gate: PoolGate) -> Iterator[str]:
    for lane, queue in gate.lanes.items():
        if queue.waiting or queue.tenants or queue.queues:
            yield f"I6 the gate of {pool} {lane} has waiters"


def _hands(world: World) -> Iterator[str]:
    for process in world.processes:
        if not process.ready:
            yield f"{process.name} has not started"
        for what, count in process.in_hand().items():
            if count:
                yield f"I6 {process.name}: {what} {count}"


# --- runs and their record ----------------------------------------------------------------------------------------


def _run(world: World, known: Accepted) -> Iterator[str]:
    """I1, I3 and the record's own consistency (I5)."""
    row = world.record._requests.get(known.run)
    facts = [fact for fact in world.record._facts.values() if fact.run == known.run]
    if row is None:
        if not world.redis.lost:
            yield f"I1 run {known.tag} has no row"
        return
    late = (row.ended_ms - EPOCH_MS) / 1000 - max(known.deadline, world.quiet_at)
    if late > _SWEEP_S:
        yield f"I1 run {known.tag} ended {late:.1f} s late"
    if len(facts) != 1 and not world.redis.lost:
        yield f"I5 run {known.tag} has {len(facts)} facts"
    if row.unverified:
        yield f"I5 run {known.tag}: {row.unverified} not proven"
    yield from _bill(world, known, row)
    yield from _unwatched(world, known, row)
    yield from _graced(world, known, row)
    unchecked = row.code in ("guardrail_unavailable", "deadline_exceeded") and not row.cleared_ms
    if unchecked and world.happened.counts["crashes"] < 2 and not _hindered(world):
        yield f"I1 run {known.tag}: nobody took a check over, {row.code}"


def _hindered(world: World) -> bool:
    """Whether anything but a crash kept a process from its work."""
    return any(world.happened.counts[name] for name in _HINDRANCES)


def _unwatched(world: World, known: Accepted, row: RequestRecord) -> Iterator[str]:
    """A run that nobody watches any more stops at once, where that is its policy and no process was hindered."""
    asker = world.askers[known.number]
    alone = all(resumer.run != known.run for resumer in world.resumers)
    alone = alone and all(other is asker or not other.once or other.once != asker.once for other in world.askers)
    hindered = world.happened.counts["crashes"] or _hindered(world)
    if patience(world, asker) or not asker.left or not alone or hindered:
        return
    late = (row.ended_ms - EPOCH_MS) / 1000 - max(asker.left_at, known.at)
    if late > _STOP_S:
        yield f"I6 run {known.tag} went on for {late:.1f} s after its client had left"


def _graced(world: World, known: Accepted, row: RequestRecord) -> Iterator[str]:
    """A run goes on for nobody as long as its policy says, no shorter and not much longer, whichever door counted."""
    ended, asker = (row.ended_ms - EPOCH_MS) / 1000, world.askers[known.number]
    spared, (since, until) = patience(world, asker), known.alone[-1] if known.alone else (inf, 0.0)
    longest = max((min(end, ended) - begun for begun, end in known.alone), default=-1.0)
    ours = known.run not in world.cancelled and not _taken_back(world, asker) and not world.redis.lost
    if row.outcome == "cancelled" and ours and longest < spared - _NEARLY_S:
        yield f"I7 run {known.tag} was cancelled after {longest:.2f} of {spared:.1f} s for nobody"
    if until < inf or not row.cleared_ms or world.happened.workers or _hindered(world):
        return
    due = max(max(since, (row.cleared_ms - EPOCH_MS) / 1000) + spared, _CALM_S)
    if ended > due + _SWEEP_S:
        yield f"I7 run {known.tag} went on for nobody until {ended:.2f}, its policy ended it at {due:.2f}"


def _taken_back(world: World, asker: Asker) -> bool:
    """Whether the door may have ended the run of a client that it could not tell of its acceptance. One that left
    meanwhile did not even hear that."""
    unheard = bool(asker.once and not asker.status and world.happened.counts["lost replies"])
    return asker.status == 503 or unheard


def patience(world: World, asker: Asker) -> float:
    """Seconds that a run goes on for nobody: what the house says, or stricter what its client wished."""
    house = world.policy
    if house == "cancel" and asker.once:
        house = f"grace:{settings.RETRY_GRACE_S}"
    return min(_seconds(house), _seconds(asker.wish or "finish"))


def _too_loose(world: World, asker: Asker) -> bool:
    """Whether it wishes more patience than the house has."""
    return bool(asker.wish) and _seconds(asker.wish) > patience(world, asker)


def _seconds(policy: str) -> float:
    return inf if policy == "finish" else float(policy.partition(":")[2] or 0)


def _bill(world: World, known: Accepted, row: RequestRecord) -> Iterator[str]:
    billed, most = row.completion_tokens, world.ledger.most(known.tag)
    if billed > most:
        yield f"I3 run {known.tag} is billed {billed} words, the engines gave {most}"
    if row.outcome == "completed":
        counted = not row.estimated or world.house.continues
        if not counted or billed not in [sent.start + sent.words for sent in world.ledger.calls[known.tag]]:
            yield f"I3 run {known.tag} completed: billed {billed}, estimated {row.estimated}"
    elif billed and not row.estimated:
        yield f"I3 run {known.tag} {row.outcome}: {billed} words, not marked estimated"


def _record(world: World) -> Iterator[str]:
    for run in world.record._requests:
        if run not in world.known:
            yield f"I3 a row for {run}, which was never accepted"


# --- clients ------------------------------------------------------------------------------------------------------


def _asker(world: World, asker: Asker) -> Iterator[str]:
    who = f"client {asker.number}"
    yield from _one_execution(world, who, asker, asker.tag, from_start=True)
    row = _row_of(world, asker)
    if not asker.ended:
        return
    whole = asker.status == 200 and (asker.done if asker.stream else not asker.code)
    if whole and not asker.replayed and _too_loose(world, asker):
        yield f"I7 {who} was served though it wished {asker.wish}"
    if not whole and not asker.code:
        yield f"I1 {who}: status {asker.status} ended without being whole and without a code"
    if whole:
        yield from _whole(world, who, asker, row)
    elif row is None or world.redis.lost:
        return
    elif asker.code == Code.internal_error and row.code != Code.internal_error:
        yield f"I5 {who} saw an internal error, the record says {row.code or row.outcome}"
    elif row.outcome == "completed" and asker.code not in _DOOR_SAYS:
        yield f"I5 {who} saw {asker.code}, the record says completed"
    elif row.outcome != "completed" and not _same(asker.code, row.code):
        yield f"I5 {who} saw {asker.code}, the record says {row.code}"
    if row is not None and not world.redis.lost and len(_words(asker)) > row.completion_tokens:
        yield f"I3 {who} saw {len(_words(asker))} words, the record has {row.completion_tokens}"


def _row_of(world: World, asker: Asker) -> RequestRecord | None:
    """The row of the run that a client was shown, else of the one that was accepted for it."""
    rows = world.record._requests
    if asker.run in rows:
        return rows[asker.run]
    return next((row for row in rows.values() if row.client_request_id == str(asker.number)), None)


def _whole(world: World, who: str, asker: Asker, row: RequestRecord | None) -> Iterator[str]:
    """An answer that ended in order has every word of one call, and the record knows it as completed."""
    words = _words(asker)
    wanted = world.orders[asker.tag].words
    if len(words) != wanted:
        yield f"I1 {who} saw {len(words)} of {wanted} words in an answer that looks whole"
    if row is None and not world.redis.lost:
        yield f"I5 {who} had an answer, the record has no row"
    if row is not None and row.outcome != "completed" and not world.redis.lost:
        yield f"I5 {who} had an answer, the record says {row.outcome}"


def _same(seen: str, recorded: str) -> bool:
    """Several codes of ours share a public one; a door's own word may stand for any."""
    public = {Code.overloaded.value, Code.no_engine.value, Code.draining.value}
    return (
        seen == recorded
        or seen in _DOOR_SAYS
        or (seen == "invalid_request_error" and recorded == Code.invalid_request)
        or (seen == "server_is_overloaded" and recorded in public)
        or (recorded.startswith("upstream") and seen == "upstream_error")
    )


def _words(seen: Seen) -> Words:
    return words_in(b"".join(seen.events))


def _one_execution(world: World, who: str, seen: Seen, tag: int, *, from_start: bool) -> Iterator[str]:
    """I2 for one pair of eyes."""
    words = _words(seen)
    numbers = [number for _, _, number in words]
    first = 0 if from_start or not numbers else numbers[0]
    calls = calls_in(b"".join(seen.events))
    if len(calls) > 1:
        yield f"I2 {who} saw events of several calls: {sorted(calls)}"
    yield from _seams(world, who, seen, words)
    if any(run != tag for run, _ in calls):
        yield f"I2 {who} saw events of another run: {sorted(calls)}"
    if numbers != list(range(first, first + len(numbers))):
        yield f"I2 {who} saw words out of order: {numbers}"


def _seams(world: World, who: str, seen: Seen, words: Words) -> Iterator[str]:
    """An answer that was gone on with looks as if it had never broken off: one name, one speaker, one end."""
    turns = [call for _, call, _ in words]
    if turns != sorted(turns) or (len(set(turns)) > 1 and not world.house.continues):
        yield f"I2 {who} saw words of calls {turns}"
    events = [json.loads(event) for event in seen.events if event.startswith(b"{") and not error_of(event)]
    if len({(event.get("id"), event.get("model"), event.get("created")) for event in events if event["choices"]}) > 1:
        yield f"I2 {who} saw an answer under several names"
    for what in (b'"role"', b'"finish_reason":"', b'"usage":{', b"[DONE]"):
        if sum(what in event for event in seen.events) > 1:
            yield f"I2 {who} saw {what.decode()} twice"


def _resumer(world: World, resumer: Resumer) -> Iterator[str]:
    tag = world.known[resumer.run].tag
    who = f"reader of run {tag} behind {resumer.after}"
    yield from _one_execution(world, who, resumer, tag, from_start=resumer.after == 0)
    numbers = resumer.numbers
    if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else ()):
        yield f"I2 {who} saw events out of order: {numbers}"
    if numbers and numbers[0] != resumer.after + 1 and not error_of(resumer.events[0]):
        yield f"I2 {who} saw {numbers[0]} first"
    if not world.redis.lost:
        yield from _same_bytes(world.askers[world.known[resumer.run].number], resumer, who)


def _same_bytes(asker: Asker, resumer: Resumer, who: str) -> Iterator[str]:
    """Event by event what the first client saw, as far as both saw it."""
    first = [event for event in asker.events if not error_of(event)]
    for number, event in zip(resumer.numbers, resumer.events, strict=False):
        if number <= len(first) and not error_of(event) and first[number - 1] != event:
            yield f"I2 {who}: event {number} is {event!r}, was {first[number - 1]!r}"


# --- what is left -------------------------------------------------------------------------------------------------


def _dead_letters(world: World) -> Iterator[str]:
    counts = world.happened.counts
    stream = world.redis.twins.memory.streams.get(f"{P}:dlq")
    reasons = [fields[b"reason"].decode() for fields in stream.entries.values()] if stream else []
    for reason in reasons:
        poison = counts["poisons"] and reason.startswith(("DecodeError", "SignatureError"))
        often = reason.startswith("started") and counts["crashes"] + counts["pauses"] + counts["drains"] > 1
        if not poison and not often:
            yield f"I4 a dead letter: {reason}"


def _reservations(world: World) -> Iterator[str]:
    """Held only by a run that nobody can prove to be whose it was, or whose fact is lost; and then not for long."""
    for (tenant, scope), found in world.redis.twins.limits._scopes.items():
        for run, until in found.held.items():
            known, row = world.known.get(run), world.record._requests.get(run)
            proven = row is not None and row.tenant
            if known is None or (proven and not world.redis.lost):
                yield f"I6 {tenant} {scope}: {known.tag if known else run} is held after its end"
            elif (until - EPOCH_MS) / 1000 > world.loop.time() + settings.DEADLINE_S + _GRACE_S:
                yield f"I6 {tenant} {scope}: held for too long"
