"""What one look at the whole system says: values in, a verdict out. Pure.

A problem makes the system unhealthy; a warning is worth a look. How a group is served is told by the processes that
announced themselves, not by the consumers that Redis remembers: a killed one stays there for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from console.stack import room_of
from runtime.inspect import GroupLag
from schemas.records import DeploymentRecord, ProcessRecord

DRAINING, TROUBLED = "draining", "troubled"
_UNWANTED = ("paused", "stopping", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen. servers: name -> what is wrong with it, "" = it answers. groups: every one of streams.yaml."""

    servers: Mapping[str, str]
    groups: Sequence[str]
    processes: Sequence[ProcessRecord] = ()
    lags: Sequence[GroupLag] = ()
    deployments: Sequence[DeploymentRecord] = ()
    live: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """One group over all its streams. consumers: processes that serve it and stay. waiting: for a free slot."""

    group: str
    lag: int
    pending: int
    waiting: int
    oldest_ms: int
    consumers: int


def group_states(look: Look) -> list[GroupState]:
    """Every group, in the order of streams.yaml."""
    return [_state(look, group) for group in look.groups]


def _state(look: Look, group: str) -> GroupState:
    lags = [lag for lag in look.lags if lag.group == group]
    return GroupState(
        group=group,
        lag=sum(lag.lag for lag in lags),
        pending=sum(lag.pending for lag in lags),
        waiting=sum(lag.waiting for lag in lags),
        oldest_ms=max((lag.oldest_ms for lag in lags), default=0),
        consumers=count_serving(look.processes, room_of(group)),
    )


def count_serving(processes: Sequence[ProcessRecord], room: str) -> int:
    """How many processes serve the room and stay."""
    return sum(room in process.rooms and process.state != DRAINING for process in processes)


def count_wanted(deployments: Sequence[DeploymentRecord]) -> tuple[int, int]:
    """(ready, wanted) deployments."""
    wanted = [item for item in deployments if item.state not in _UNWANTED]
    return sum(item.state == "ready" for item in wanted), len(wanted)


def problems(look: Look) -> Iterator[str]:
    """What makes the system unhealthy."""
    yield from (f"{name} does not answer: {reason}" for name, reason in look.servers.items() if reason)
    if look.servers.get("redis"):
        return  # nothing below is known
    if not count_serving(look.processes, "ingress"):
        yield "no ingress takes requests: `headrace start ingress`"
    for state in group_states(look):
        if not state.consumers:
            yield f"the group {state.group} has no consumer: `headrace start {room_of(state.group)}`"
    for process in look.processes:
        if process.state == TROUBLED:
            yield f"{process.consumer} is not ready: {process.trouble}"


def warnings(look: Look) -> Iterator[str]:
    """What is worth a look."""
    yield from (f"{process.consumer} is draining" for process in look.processes if process.state == DRAINING)
    if look.dead:
        yield f"{look.dead} dead letters: `headrace dlq list` names the reasons"
    for item in look.deployments:
        if item.state not in (*_UNWANTED, "ready"):
            yield f"the deployment {item.deployment} is {item.state}{f': {item.reason}' if item.reason else ''}"


def left_alone(processes: Sequence[ProcessRecord], consumer: str) -> list[str]:
    """Rooms of this process that nobody would serve without it."""
    others = [process for process in processes if process.consumer != consumer]
    rooms = next((process.rooms for process in processes if process.consumer == consumer), ())
    return [room for room in rooms if not count_serving(others, room)]
