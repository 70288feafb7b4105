"""From what is wanted and what is seen to the next steps of one replica. Pure: time is passed in, nothing is done here.

wanted     seen                      steps
no         it runs, or is published  withdraw the endpoint; from now on it drains
no         draining, in use          wait, until `drain_s` is over
no         draining, idle or late    stop, forget
yes        nothing                   start
yes        nothing, and one ended    by the restart policy: start after a pause that grows, or leave it
yes        an engine of an old wish  drain and stop it, when its turn has come; the next look starts the new one
yes        it answers                publish it as up, mark ready
yes        it does not answer        once ready: publish it as down; else wait, then stop it or call it failed

How a deployment stands follows from its replicas: standing.py. What is wanted follows from commands: wishes.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.records import DeploymentRecord, ReplicaRecord
from workers.provisioner.ports import Exit, Handle, Health
from workers.provisioner.states import (
    ALWAYS,
    CRASHED,
    DRAINING,
    ENDED,
    FAILED,
    NEVER,
    ON_FAILURE,
    READY,
    RESTING,
    STARTING,
)
from workers.provisioner.wishes import wish

_STEADY_S = 60.0  # an engine that was ready this long has its failures forgiven
_LOOPING = 3  # failures in a row after which a replica counts as failed


@dataclass(frozen=True, slots=True)
class Start:
    """Start the engine. again: one has ended before."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """End what runs."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Let routers know the endpoint."""

    up: bool
    upstream_model: str = ""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the endpoint out of the catalog: no router chooses it any more."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Write the replica's state down, with its reason."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    """The replica is gone: remove what is written about it. drained: idle | timeout | now | "" = nothing ran."""

    drained: str = ""


Step = Start | Stop | Publish | Withdraw | Mark | Forget


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The figures of ProvisionerSettings that rules use; seconds. republish_s: how often an unchanged endpoint is
    published again, should Redis have lost it."""

    start_timeout_s: float = 600.0
    bad_probes: int = 3
    drain_s: float = 300.0
    restart_most_s: float = 60.0
    republish_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at a replica. row: what is written about it. handle: what runs, None = nothing. health: of it, None =
    not looked at. exit: how the last one ended, None = not known. busy: why a withdrawn endpoint is not idle yet, "" =
    it is. turn: an engine of an old wish may be replaced now. spread: 0 to 1 at random; the pause before another
    start is shorter by half of it, so that engines that ended together are not started together each time."""

    row: ReplicaRecord | None = None
    handle: Handle | None = None
    health: Health | None = None
    exit: Exit | None = None
    busy: str = ""
    turn: bool = True
    spread: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one process remembers of a replica between two looks; losing it is harmless. Times: monotonic seconds.

    command_id: the command it is about. starts: in a row without a steady life. published: the last Publish, None =
    none by this process. leaving: when the endpoint was withdrawn. gave_up: why we ended it, or could not start it."""

    command_id: str = ""
    starts: int = 0
    started: float = 0.0
    not_before: float = 0.0
    ready_since: float = 0.0
    bad: int = 0
    published: Publish | None = None
    published_at: float = 0.0
    leaving: float = 0.0
    gave_up: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and what to remember once all of them are done."""

    steps: tuple[Step, ...]
    memory: Memory


def plan(record: DeploymentRecord, wanted: bool, seen: Seen, memory: Memory, now: float, limits: Limits) -> Plan:
    """The next steps for one replica of a deployment."""
    if memory.command_id != record.command_id:  # a new command: try again at once, and tell routers again
        memory = replace(memory, command_id=record.command_id, starts=0, not_before=0.0, published=None, gave_up="")
    if not wanted:
        return _leave(record.drain, seen, memory, now, limits)
    if seen.handle is None:
        return _absent(record, seen, replace(memory, leaving=0.0), now, limits)
    if seen.handle.digest != wish(record):
        return _replace(seen, memory, now, limits)
    memory = replace(memory, leaving=0.0)
    if seen.health is None:
        return Plan((), memory)
    if seen.health.up:
        return _answers(record, seen, seen.handle, seen.health, memory, now, limits)
    return _silent(record, seen, seen.handle, seen.health, memory, now, limits)


# --- what is to go ----------------------------------------------------------------------------------------------------


def _leave(drain: bool, seen: Seen, memory: Memory, now: float, limits: Limits) -> Plan:
    """Routes out, running requests finish, release."""
    out: tuple[Step, ...] = () if memory.leaving else (Withdraw(),)
    memory = replace(memory, leaving=memory.leaving or now, published=None)
    if seen.handle is None:
        return Plan((*out, Forget()), memory)
    if drain and _in_use(seen, memory, now, limits, fresh=bool(out)):
        return Plan((*out, *_changed(seen.row, DRAINING, seen.busy or "its endpoint was withdrawn")), memory)
    how = "idle" if not (out or seen.busy) else "timeout" if drain else "now"
    return Plan((*out, Stop(), Forget(how)), memory)


def _replace(seen: Seen, memory: Memory, now: float, limits: Limits) -> Plan:
    """An engine of an older wish goes as one that is not wanted; the place stays."""
    if not seen.turn and not memory.leaving:
        return Plan((), memory)
    found = _leave(True, seen, memory, now, limits)
    if Stop() not in found.steps:
        return found
    kept = tuple(step for step in found.steps if not isinstance(step, Forget))
    return Plan(
        (*kept, Mark(STARTING, "the engine of the former wish was ended")), Memory(command_id=memory.command_id)
    )


def _in_use(seen: Seen, memory: Memory, now: float, limits: Limits, *, fresh: bool) -> bool:
    """Whether to wait. fresh: the endpoint is only now withdrawn, so nobody could say yet that it is idle."""
    return (fresh or bool(seen.busy)) and now < memory.leaving + limits.drain_s


# --- what should run --------------------------------------------------------------------------------------------------


def _absent(record: DeploymentRecord, seen: Seen, memory: Memory, now: float, limits: Limits) -> Plan:
    row = seen.row if seen.row is not None and seen.row.command_id == record.command_id else None
    if row is not None and row.state in RESTING:
        return Plan((), memory)
    down = _down(seen.row, memory)
    memory = replace(memory, published=down[0], ready_since=0.0) if down else memory
    if not (memory.starts or memory.gave_up or (row is not None and row.pid)):
        first = () if row is not None else (Mark(STARTING, "waiting for the engine's first answer"),)
        return _start((*down, *first), seen, memory, now, limits, again=False)
    rest = resting(record.restart, seen.exit, memory.gave_up)
    if rest is not None:
        return Plan((*down, rest), memory)
    state = FAILED if memory.starts >= _LOOPING or (row is not None and row.state == FAILED) else STARTING
    mark = _changed(row, state, f"{_ended(seen.exit, memory.gave_up)}; it is started again (start {memory.starts + 1})")
    if now < memory.not_before:
        return Plan((*down, *mark), memory)
    return _start((*down, *mark), seen, memory, now, limits, again=True)


def _start(before: tuple[Step, ...], seen: Seen, memory: Memory, now: float, limits: Limits, *, again: bool) -> Plan:
    starts = memory.starts + 1
    pause = 0.0 if starts < 2 else min(limits.restart_most_s, 2.0 ** min(starts - 2, 10)) * (1 - seen.spread / 2)
    memory = replace(memory, starts=starts, started=now, not_before=now + pause, bad=0, gave_up="")
    return Plan((*before, Start(again)), memory)


def resting(restart: str, exit: Exit | None, gave_up: str = "") -> Mark | None:
    """What the restart policy makes of an engine that ended: None = start it again. gave_up: we ended it."""
    clean = exit is not None and exit.status == 0 and not gave_up
    if restart == ALWAYS or (restart == ON_FAILURE and not clean):
        return None
    return (
        Mark(ENDED, f"ended by itself ({exit})") if clean else Mark(CRASHED, f"{_ended(exit, gave_up)}; restart: never")
    )


def could_not_start(record: DeploymentRecord, reason: str) -> Mark:
    """What to write about an engine that could not even be started."""
    return Mark(CRASHED if record.restart == NEVER else FAILED, reason)


def _answers(
    record: DeploymentRecord, seen: Seen, handle: Handle, health: Health, memory: Memory, now: float, limits: Limits
) -> Plan:
    since, wanted = memory.ready_since or now, Publish(True, health.upstream_model)
    fresh = memory.published == wanted and now < memory.published_at + limits.republish_s
    steps: list[Step] = [] if fresh else [wanted]
    row = seen.row
    if row is None or (row.state, row.reason, row.command_id, row.pid) != (READY, "", record.command_id, handle.pid):
        steps.append(Mark(READY))
    return Plan(
        tuple(steps),
        replace(
            memory,
            bad=0,
            ready_since=since,
            published=wanted,
            published_at=memory.published_at if fresh else now,
            starts=0 if now - since >= _STEADY_S else max(memory.starts, 1),
        ),
    )


def _silent(
    record: DeploymentRecord, seen: Seen, handle: Handle, health: Health, memory: Memory, now: float, limits: Limits
) -> Plan:
    memory = replace(memory, bad=memory.bad + 1, started=memory.started or now)
    was = seen.row.state if seen.row is not None else ""
    if was == READY and memory.bad < limits.bad_probes and not health.final:
        return Plan((), memory)
    if was == READY:
        down = Publish(False)
        memory = replace(memory, published=down, ready_since=0.0, started=now)
        return Plan((down, Mark(FAILED, health.reason)), memory)
    late = not memory.ready_since and now - memory.started > limits.start_timeout_s
    reason = f"no answer within {limits.start_timeout_s:g} s ({health.reason})" if late else health.reason
    if late and handle.pid:
        return Plan((Stop(), Mark(FAILED, reason)), replace(memory, gave_up=reason))
    state = FAILED if late or health.final or was == FAILED else STARTING
    return Plan(_changed(seen.row, state, reason), memory)


def suspected(row: ReplicaRecord, memory: Memory | None) -> bool:
    """Whether a ready engine did not answer the last look."""
    return memory is not None and memory.bad > 0 and row.state == READY


def _down(row: ReplicaRecord | None, memory: Memory) -> tuple[Publish, ...]:
    """What to publish when an engine that routers may know as up is gone."""
    recorded = row is not None and row.state == READY and row.pid > 0  # a URL elsewhere cannot be gone, only silent
    known_up = memory.published.up if memory.published is not None else recorded
    return (Publish(False),) if known_up else ()


def _changed(row: ReplicaRecord | None, state: str, reason: str) -> tuple[Mark, ...]:
    same = row is not None and (row.state, row.reason) == (state, reason)
    return () if same else (Mark(state, reason),)


def _ended(exit: Exit | None, gave_up: str) -> str:
    return gave_up or f"the engine ended ({exit or Exit()})"
