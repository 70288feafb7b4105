"""From what is wanted and what is seen to the next steps. Pure: time is passed in, nothing is done here.

wanted     seen                      steps
stopped    something runs            stop it (an orphan)
stopping   anything                  withdraw the endpoint, wait for the drain, stop, mark stopped
running    nothing                   start, after a pause that grows with every failure
running    an engine of an old wish  stop it; the next look starts the new one
running    it answers                publish it as up, mark ready
running    it does not answer        once ready: publish it as down; still starting: wait, then give up
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from base.crypto import digest
from schemas.commands import DeployModel
from schemas.records import DeploymentRecord, EndpointRecord, ModelRecord
from workers.provisioner.ports import Handle, Health

PENDING, STARTING, READY, FAILED, STOPPING, STOPPED = "pending", "starting", "ready", "failed", "stopping", "stopped"
LOCAL, EXTERNAL = "local", "external"
_STEADY_S = 60.0  # an engine that was ready this long has its failures forgiven
_LOOPING = 3  # failures in a row after which a deployment counts as failed


@dataclass(frozen=True, slots=True)
class Start:
    """Start the engine."""


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
    """Take the endpoint, and a model that nobody else serves, out of the catalog."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Write the state down, with its reason."""

    state: str
    reason: str = ""


Step = Start | Stop | Publish | Withdraw | Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The figures of ProvisionerSettings that rules use; seconds. republish_s: how often an unchanged endpoint is
    published again, should Redis have lost it."""

    start_timeout_s: float = 600.0
    bad_probes: int = 3
    drain_s: float = 5.0
    restart_most_s: float = 60.0
    republish_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one process remembers of a deployment between two looks; losing it is harmless. Times: monotonic seconds.

    command_id: the wish it is about. published: the last Publish, None = none by this process. starts: starts in a row
    without a steady life."""

    command_id: str = ""
    starts: int = 0
    started: float = 0.0
    not_before: float = 0.0
    ready_since: float = 0.0
    withdrawn: float = 0.0
    bad: int = 0
    published: Publish | None = None
    published_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, and what to remember once all of them are done."""

    steps: tuple[Step, ...]
    memory: Memory


def plan(
    record: DeploymentRecord, handle: Handle | None, health: Health | None, memory: Memory, now: float, limits: Limits
) -> Plan:
    """The next steps for one deployment. health: of `handle`, None when it was not looked at."""
    if memory.command_id != record.command_id:
        memory = Memory(command_id=record.command_id)
    if record.state in (STOPPING, STOPPED):
        return _ending(record, handle, memory, now, limits)
    if handle is None:
        return _absent(record, memory, now, limits)
    if handle.digest != wish(record):
        return Plan((*_down(memory), Stop()), Memory(command_id=memory.command_id, published=_seen_down(memory)))
    if health is None:
        return Plan((), memory)
    return (
        _answers(record, health, memory, now, limits)
        if health.up
        else _silent(record, handle, health, memory, now, limits)
    )


def _ending(record: DeploymentRecord, handle: Handle | None, memory: Memory, now: float, limits: Limits) -> Plan:
    steps: list[Step] = [] if memory.withdrawn else [Withdraw()]
    memory = replace(memory, withdrawn=memory.withdrawn or now, published=None)
    if handle is not None and record.state == STOPPING and now < memory.withdrawn + limits.drain_s:
        return Plan(tuple(steps), memory)
    if handle is not None:
        steps.append(Stop())
    if record.state == STOPPING:
        steps.append(Mark(STOPPED, "stopped by command"))
    return Plan(tuple(steps), memory)


def _absent(record: DeploymentRecord, memory: Memory, now: float, limits: Limits) -> Plan:
    if now < memory.not_before:
        return Plan((), memory)
    starts, died = memory.starts + 1, memory.starts > 0 or record.pid > 0
    pause = 0.0 if starts < 2 else min(limits.restart_most_s, 2.0 ** min(starts - 2, 10))
    down = Publish(False) if died and (memory.published is None or memory.published.up) else None
    steps: list[Step] = [down] if down else []
    if died:
        state = FAILED if memory.starts >= _LOOPING or record.state == FAILED else STARTING
        steps.append(Mark(state, f"the engine ended and is started again (start {starts}); see its log"))
    elif record.state != READY:
        steps.append(Mark(STARTING, "waiting for the engine's first answer"))
    steps.append(Start())
    published = down or memory.published
    return Plan(
        tuple(steps),
        replace(
            memory, starts=starts, started=now, not_before=now + pause, ready_since=0.0, bad=0, published=published
        ),
    )


def _answers(record: DeploymentRecord, health: Health, memory: Memory, now: float, limits: Limits) -> Plan:
    since, wanted = memory.ready_since or now, Publish(True, health.upstream_model)
    fresh = memory.published == wanted and now < memory.published_at + limits.republish_s
    steps: list[Step] = [] if fresh else [wanted]
    if record.state != READY or record.reason:
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
    record: DeploymentRecord, handle: Handle, health: Health, memory: Memory, now: float, limits: Limits
) -> Plan:
    memory = replace(memory, bad=memory.bad + 1, started=memory.started or now)
    if record.state == READY and memory.bad < limits.bad_probes and not health.final:
        return Plan((), memory)
    if record.state == READY:
        down = Publish(False)
        return Plan((down, Mark(FAILED, health.reason)), replace(memory, published=down, ready_since=0.0))
    if handle.pid and not memory.ready_since and now - memory.started > limits.start_timeout_s:
        reason = f"no answer within {limits.start_timeout_s:g} s of its start ({health.reason}); see its log"
        return Plan((Stop(), Mark(FAILED, reason)), memory)
    state = FAILED if health.final or record.state == FAILED else STARTING
    changed = (state, health.reason) != (record.state, record.reason)
    return Plan((Mark(state, health.reason),) if changed else (), memory)


def suspected(record: DeploymentRecord, memory: Memory | None) -> bool:
    """Whether a ready endpoint did not answer the last look."""
    return memory is not None and memory.bad > 0 and record.state == READY


def _down(memory: Memory) -> tuple[Step, ...]:
    """What to publish when an engine that routers know as up is gone."""
    return (Publish(False),) if memory.published is not None and memory.published.up else ()


def _seen_down(memory: Memory) -> Publish | None:
    return Publish(False) if memory.published is not None else None


def may_mark(planned: DeploymentRecord, present: DeploymentRecord | None, state: str) -> bool:
    """Whether a state planned for one record may be written over the present one: not when a command came between."""
    if present is None or present.command_id != planned.command_id or present.state == STOPPED:
        return False
    return present.state != STOPPING or state == STOPPED


# --- records --------------------------------------------------------------------------------------------------------


def wish(record: DeploymentRecord) -> str:
    """A short digest of what an engine is started with; another one means another engine."""
    parts = (record.target, record.name, record.url, record.upstream_model, str(record.private), *record.command)
    return digest("\n".join((*parts, record.credential)).encode())[:16]


def desired(command: DeployModel, known: DeploymentRecord | None, now_ms: int) -> DeploymentRecord:
    """The record a DeployModel asks for. An engine that already serves the same wish goes on."""
    record = DeploymentRecord(
        deployment=command.deployment,
        command_id=command.command_id,
        name=command.name,
        target=command.target,
        pool=command.pool or command.name,
        state=PENDING,
        url=command.url.rstrip("/"),
        upstream_model=command.upstream_model,
        credential=command.credential,
        slots=command.slots,
        weight=command.weight,
        private=command.private,
        command=command.command,
        created_ms=known.created_ms if known else now_ms,
        updated_ms=now_ms,
    )
    if known is None or known.state in (STOPPING, STOPPED) or wish(known) != wish(record):
        return record
    return replace(record, state=known.state, reason=known.reason, pid=known.pid)


def endpoint_of(record: DeploymentRecord, url: str, publish: Publish) -> EndpointRecord:
    """The endpoint of a deployment, as routers see it. A deployment has one."""
    return EndpointRecord(
        endpoint=record.deployment,
        deployment=record.deployment,
        pool=record.pool,
        model=record.name,
        url=url,
        upstream_model=publish.upstream_model or record.upstream_model or record.name,
        credential=record.credential,
        slots=record.slots,
        weight=record.weight,
        up=publish.up,
        private=record.private or record.target == LOCAL,
    )


def model_of(record: DeploymentRecord) -> ModelRecord:
    """The public name that a deployment serves."""
    return ModelRecord(name=record.name, pool=record.pool, created=record.created_ms // 1000)
