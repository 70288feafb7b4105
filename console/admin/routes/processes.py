"""/status: one look at everything. /consumers: who serves the groups, and asking one of them to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from base import logs
from base.settings import Section
from console.admin.parts import Given, Parts
from console.admin.shapes import Shape, example, like, listed
from console.status import GroupState, Look, count_wanted, group_states, left_alone, problems, warnings
from ingress.documents.openapi import answer, asks, fails, operation
from runtime.inspect import ConsumerView
from schemas.errors import Code, Refusal, Unavailable
from schemas.events import DrainAsked
from schemas.records import DeploymentRecord, ProcessRecord

routes = APIRouter(tags=["groups"])
log = logs.room("console")


class Drain(Section):
    """How a consumer is to go."""

    force: bool = Field(False, strict=True, description="Also when it is the last process of a room.")


Process = like("Process", ProcessRecord)
Group = like("Group", GroupState)
Consumer = like("Consumer", ConsumerView, alive=bool)


class Server(Shape):
    """A server and whether it answers. reason: why not."""

    name: str
    up: bool
    reason: str


class Deployments(Shape):
    """How many deployments serve, and how many shall."""

    ready: int
    wanted: int


class Status(Shape):
    """One look at everything."""

    healthy: bool
    problems: list[str]
    warnings: list[str]
    servers: list[Server]
    processes: list[Process]  # type: ignore[valid-type]
    groups: list[Group]  # type: ignore[valid-type]
    deployments: Deployments
    live: int
    dead: int


class Draining(Shape):
    """Who was asked to go. left_alone: rooms without any process then."""

    draining: str
    left_alone: list[str]


_NAME = "workers-71208818d7d76c52"
_PROCESS = example(
    ProcessRecord,
    Process,
    consumer=_NAME,
    rooms=["rules"],
    pid=4242,
    host="gateway-1",
    started_ms=1_760_000_000_000,
    version="1.2.3",
    addresses={},
    seen_ms=1_760_000_005_000,
)
_GROUP = {"group": "rules", "lag": 0, "pending": 2, "waiting": 0, "oldest_ms": 12, "consumers": 1}
_STATUS = {
    "healthy": True,
    "problems": [],
    "warnings": [],
    "servers": [{"name": "redis", "up": True, "reason": ""}],
    "processes": [_PROCESS],
    "groups": [_GROUP],
    "deployments": {"ready": 1, "wanted": 1},
    "live": 2,
    "dead": 0,
}
_CONSUMER = {"stream": "{0.178}:requests", "group": "rules", "consumer": _NAME, "pending": 2, "idle_ms": 3}


@routes.get("/status", response_model=Status, summary="Look at everything", openapi_extra=operation(answer(_STATUS)))
async def status(parts: Given) -> dict[str, Any]:
    """Servers, processes, groups, deployments, live runs and dead letters. healthy: no problem; warnings are no
    problems."""
    look = await _look(parts)
    found = list(problems(look))
    ready, wanted = count_wanted(look.deployments)
    return {
        "healthy": not found,
        "problems": found,
        "warnings": list(warnings(look)),
        "servers": [{"name": name, "up": not why, "reason": why} for name, why in look.servers.items()],
        "processes": [asdict(process) for process in look.processes],
        "groups": [asdict(state) for state in group_states(look)],
        "deployments": {"ready": ready, "wanted": wanted},
        "live": look.live,
        "dead": look.dead,
    }


@routes.get(
    "/consumers",
    response_model=listed(Consumer),
    summary="List the consumers",
    openapi_extra=operation(answer({"data": [{**_CONSUMER, "alive": True}]})),
)
async def consumers(parts: Given) -> dict[str, Any]:
    """Every consumer that Redis knows, by group. alive: its process spoke within 15 s; what a dead one still holds is
    taken over by the others."""
    alive = {process.consumer for process in await parts.processes.list()}
    rows = await parts.inspector.consumers()
    return {"data": [{**asdict(row), "alive": row.consumer in alive} for row in rows]}


@routes.post(
    "/consumers/{consumer}/drain",
    status_code=202,
    response_model=Draining,
    summary="Ask a process to go",
    openapi_extra=operation(
        asks({"force": False}, required=False),
        answer({"draining": _NAME, "left_alone": []}, "It was asked; `/status` shows when it is gone.", status=202),
        fails(Code.not_found),
    ),
)
async def drain(
    consumer: Annotated[str, Path(description="A name of the list of consumers.", examples=[_NAME])],
    parts: Given,
    how: Drain | None = None,
) -> dict[str, Any]:
    """Ask a process to go through its stop sequence: it takes nothing new, finishes what it holds, gives back the rest
    and ends. Refused for the last process of a room unless `force`."""
    known = await parts.processes.list()
    if consumer not in {process.consumer for process in known}:
        text = f"No process is called {consumer[:64]!r}. `headrace status` shows all."
        raise Refusal.of(Code.not_found, text, param="consumer")
    alone = left_alone(known, consumer)
    if alone and not (how and how.force):
        raise Refusal.of(
            Code.invalid_request,
            f"{consumer} is the last process of {', '.join(alone)}. Start another first (`headrace start {alone[0]}`), "
            "or repeat this with --force.",
            param="force",
        )
    await parts.publisher.publish("control", DrainAsked(consumer=consumer))
    log.warning("drain asked", consumer=consumer, left_alone=alone)
    return {"draining": consumer, "left_alone": alone}


async def _look(parts: Parts) -> Look:
    """Everything that answers; a server that is away is part of the answer."""
    servers = {"redis": "", "postgres": ""}
    deployments: Sequence[DeploymentRecord] = ()
    try:
        deployments = await parts.store.deployments.list()
    except Unavailable as error:
        servers["postgres"] = str(error)
    try:
        return Look(
            servers=servers,
            groups=parts.groups,
            processes=await parts.processes.list(),
            lags=await parts.inspector.lags(),
            deployments=deployments,
            live=await parts.inspector.live(),
            dead=await parts.inspector.dead(),
        )
    except Unavailable as error:
        return Look(servers={**servers, "redis": str(error)}, groups=parts.groups, deployments=deployments)
