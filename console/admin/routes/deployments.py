"""/models, what should be served, and /deployments, how it stands. Both lead to commands; nothing is done here.

What an engine wrote is shown from this machine's log and stored nowhere else: it may hold what a client said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from base.settings import Section
from console.admin.parts import Given, Parts
from console.entries import MOST_REPLICAS, ModelEntry
from schemas.errors import Code, Refusal
from schemas.records import DeploymentRecord, ReplicaRecord

routes = APIRouter()

Lines = Annotated[int, Query(ge=1, le=10_000)]
ReplicaNumber = Annotated[int, Query(ge=1, le=MOST_REPLICAS)]


class Scale(Section):
    """How many engines a deployment should have."""

    replicas: int = Field(ge=0, le=MOST_REPLICAS, description="0: none for now; the model stays known.")


@routes.post("/models", status_code=202)
@routes.post("/deployments", status_code=202)
async def add(entry: ModelEntry, parts: Given) -> dict[str, Any]:
    """Ask for it. 202: the command is on its way; GET /deployments/{deployment} tells how it goes."""
    deployment = await parts.model_desk.add(entry)
    return {"deployment": deployment, "model": entry.name}


@routes.get("/models")
async def models(parts: Given) -> dict[str, Any]:
    """Public names with their deployments."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in await _all(parts):
        if row["state"] != "stopped":
            by_name.setdefault(row["name"], []).append(row)
    return {"data": [_model(name, rows) for name, rows in sorted(by_name.items())]}


@routes.delete("/models/{name:path}", status_code=202)
async def remove(name: str, parts: Given) -> dict[str, Any]:
    """Stop every deployment of a model."""
    serving = [item for item in await parts.store.deployments.list() if item.name == name and item.state != "stopped"]
    if not serving:
        raise Refusal.of(
            Code.not_found, "No deployment serves that model. `headrace models list` shows all.", param="name"
        )
    return {"stopping": [(await parts.model_desk.stop(item.deployment)).deployment for item in serving]}


@routes.get("/deployments")
async def deployments(parts: Given, all: bool = False) -> dict[str, Any]:
    """Deployments; with `all` also the stopped ones."""
    return {"data": [row for row in await _all(parts) if all or row["state"] != "stopped"]}


@routes.get("/deployments/{deployment}")
async def show(deployment: str, parts: Given) -> dict[str, Any]:
    """How it stands, engine by engine, with the last line of those that are not ready."""
    record = await _find(parts, deployment)
    rows = await parts.store.deployments.replicas(deployment)
    shown = shape(record, rows)
    if record.target == "local":
        for row in shown["engines"]:
            ready = row["state"] == "ready"
            row["last_line"] = "" if ready else await parts.engine_logs.last_line(deployment, row["replica"])
    return shown


@routes.delete("/deployments/{deployment}", status_code=202)
async def stop(deployment: str, parts: Given, now: bool = False) -> dict[str, Any]:
    """Take it out of rotation, let its requests finish, end it. `now`: do not wait for them."""
    return {"stopping": [(await parts.model_desk.stop(deployment, now=now)).deployment]}


@routes.post("/deployments/{deployment}/drain", status_code=202)
async def drain(deployment: str, parts: Given) -> dict[str, Any]:
    """The same as DELETE without `now`."""
    return {"stopping": [(await parts.model_desk.stop(deployment)).deployment]}


@routes.post("/deployments/{deployment}/scale", status_code=202)
async def scale(deployment: str, wish: Scale, parts: Given) -> dict[str, Any]:
    """Ask for another number of engines. Surplus ones go when their requests have finished."""
    command_id = await parts.model_desk.scale(deployment, wish.replicas)
    return {"deployment": deployment, "replicas": wish.replicas, "command_id": command_id}


@routes.get("/deployments/{deployment}/logs")
async def engine_logs(
    deployment: str, parts: Given, lines: Lines = 200, replica: ReplicaNumber = 1, previous: bool = False
) -> dict[str, Any]:
    """The last lines that a local engine wrote; `previous`: those of its life before the present one."""
    await _local(parts, deployment)
    found = await parts.engine_logs.tail(deployment, lines, replica=replica, previous=previous)
    if found is None:
        raise Refusal.of(Code.not_found, _no_log(replica, previous))
    return {"deployment": deployment, "replica": replica, "log": found}


@routes.get("/deployments/{deployment}/logs/live", response_class=EventSourceResponse)
async def live_logs(
    deployment: str, parts: Given, lines: Lines = 20, replica: ReplicaNumber = 1
) -> EventSourceResponse:
    """Server-sent events, one for each line: the last ones, then every line as it is written."""
    await _local(parts, deployment)
    if await parts.engine_logs.tail(deployment, 1, replica=replica) is None:
        raise Refusal.of(Code.not_found, _no_log(replica, False))

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for line in parts.engine_logs.follow(deployment, lines, replica=replica):
            yield ServerSentEvent(data=line)

    return EventSourceResponse(events(), headers={"cache-control": "no-cache"}, sep="\n")


def shape(record: DeploymentRecord, rows: Sequence[ReplicaRecord] = ()) -> dict[str, Any]:
    """A deployment as operators see it: whether it has a credential, never the credential. rows: its engines."""
    shown = asdict(record)
    shown["credential"] = bool(record.credential)
    shown["ready"] = sum(row.state == "ready" and row.command_id == record.command_id for row in rows)
    shown["pids"] = [row.pid for row in rows if row.pid]
    shown["restarts"] = sum(row.restarts for row in rows)
    shown["engines"] = [asdict(row) for row in rows]
    return shown


async def _all(parts: Parts) -> list[dict[str, Any]]:
    """Every deployment with its engines."""
    rows: dict[str, list[ReplicaRecord]] = {}
    for row in await parts.store.deployments.replicas():
        rows.setdefault(row.deployment, []).append(row)
    return [shape(record, rows.get(record.deployment, ())) for record in await parts.store.deployments.list()]


async def _local(parts: Parts, deployment: str) -> None:
    """Refusal when its log is not here."""
    record = await _find(parts, deployment)
    if record.target != "local":
        state = record.reason or record.state
        text = f"The deployment runs elsewhere ({record.url}): its log is there. Its last state: {state}"
        raise Refusal.of(Code.not_found, text)


def _no_log(replica: int, previous: bool) -> str:
    if previous:
        return f"Replica {replica} has had no life before its present one, or its log was set aside."
    return f"This machine has no log of replica {replica}; look where its provisioner runs."


async def _find(parts: Parts, deployment: str) -> DeploymentRecord:
    record = await parts.store.deployments.find(deployment)
    if record is None:
        text = "There is no such deployment (yet). `headrace deployments list` shows all."
        raise Refusal.of(Code.not_found, text, param="deployment")
    return record


def _model(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ready = sum(row["state"] == "ready" for row in rows)
    return {"name": name, "ready": ready, "deployments": list(rows)}
