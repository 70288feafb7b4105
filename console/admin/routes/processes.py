"""/status: one look at everything. /consumers: who serves the groups, and asking one of them to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from base import logs
from base.settings import Section
from console.admin.parts import Given, Parts
from console.status import Look, count_wanted, group_states, left_alone, problems, warnings
from schemas.errors import Code, Refusal, Unavailable
from schemas.events import DrainAsked
from schemas.records import DeploymentRecord

routes = APIRouter()
log = logs.room("console")


class Drain(Section):
    """How a consumer is to go."""

    force: bool = False


@routes.get("/status")
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


@routes.get("/consumers")
async def consumers(parts: Given) -> dict[str, Any]:
    """Every consumer that Redis knows, by group. alive: its process spoke within 15 s; what a dead one still holds is
    taken over by the others."""
    alive = {process.consumer for process in await parts.processes.list()}
    rows = await parts.inspector.consumers()
    return {"data": [{**asdict(row), "alive": row.consumer in alive} for row in rows]}


@routes.post("/consumers/{consumer}/drain", status_code=202)
async def drain(consumer: str, parts: Given, how: Drain | None = None) -> dict[str, Any]:
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
