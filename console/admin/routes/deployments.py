"""/models, what should be served, and /deployments, how it stands. Both lead to commands; nothing is done here.

What an engine wrote is shown from this machine's log and stored nowhere else: it may hold what a client said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from base.settings import Section
from console.admin.parts import Given, Parts
from console.admin.shapes import Shape, example, like, listed
from console.entries import MOST_REPLICAS, ModelEntry
from ingress.documents.openapi import EVENT, EVENTS, answer, asks, fails, operation
from schemas.errors import Code, Refusal
from schemas.records import DeploymentRecord, ReplicaRecord

routes = APIRouter(tags=["models"])

Engine = like("Engine", ReplicaRecord)
_MORE: dict[str, Any] = {"credential": bool, "ready": int, "pids": list[int], "restarts": int}
Deployment = like("Deployment", DeploymentRecord, **_MORE, engines=list[Engine])  # type: ignore[valid-type]
ShownEngine = like("ShownEngine", ReplicaRecord, last_line=str)
Standing = like("Standing", DeploymentRecord, **_MORE, engines=list[ShownEngine])  # type: ignore[valid-type]
Name = Annotated[str, Path(description="A deployment.", examples=["hosted-large"])]
All = Annotated[bool, Query(description="Also the stopped ones.")]

Lines = Annotated[int, Query(ge=1, le=10_000)]
ReplicaNumber = Annotated[int, Query(ge=1, le=MOST_REPLICAS)]


class Scale(Section):
    """How many engines a deployment should have."""

    replicas: int = Field(strict=True, ge=0, le=MOST_REPLICAS, description="0: none for now; the model stays known.")


class Asked(Shape):
    """What was asked for."""

    deployment: str
    model: str


class Stopping(Shape):
    """Deployments that are on their way out."""

    stopping: list[str]


class Scaled(Shape):
    """What was asked for, and the command that carries it."""

    deployment: str
    replicas: int
    command_id: str


class Log(Shape):
    """The last lines of an engine's output."""

    deployment: str
    replica: int
    log: str


class Model(Shape):
    """A public name. ready: how many of its deployments serve it now."""

    name: str
    ready: int
    deployments: list[Deployment]  # type: ignore[valid-type]


_ENTRY = {"name": "hosted-large", "url": "https://models.example/v1", "api_key": "sk-...", "slots": 64}
_COMMAND = "5f0c9e7a1b3d4e6f8091a2b3c4d5e6f7"
_ENGINE = example(ReplicaRecord, Engine, deployment="hosted-large", replica=1, command_id=_COMMAND, state="ready")
_DEPLOYMENT = example(
    DeploymentRecord,
    Deployment,
    deployment="hosted-large",
    command_id=_COMMAND,
    name="hosted-large",
    target="external",
    pool="hosted-large",
    state="ready",
    url="https://models.example/v1",
    credential=True,
    ready=1,
    pids=[],
    restarts=0,
    engines=[_ENGINE],
    slots=64,
    created_ms=1_760_000_000_000,
    updated_ms=1_760_000_001_000,
)
_STANDING = {**_DEPLOYMENT, "engines": [{**_ENGINE, "last_line": ""}]}


_ASK: dict[str, Any] = {
    "status_code": 202,
    "response_model": Asked,
    "openapi_extra": operation(
        asks(_ENTRY),
        answer({"deployment": "hosted-large", "model": "hosted-large"}, "The command is on its way.", status=202),
    ),
}
_STOP: dict[str, Any] = {
    "status_code": 202,
    "response_model": Stopping,
    "openapi_extra": operation(
        answer({"stopping": ["hosted-large"]}, "The commands are on their way.", status=202), fails(Code.not_found)
    ),
}


@routes.post("/models", summary="Ask for a model", **_ASK)
@routes.post("/deployments", summary="Ask for a deployment", **_ASK)
async def add(entry: ModelEntry, parts: Given) -> dict[str, Any]:
    """The provisioner does it; GET /deployments/{deployment} tells how it goes. Asking again for what stands is no
    command."""
    deployment = await parts.model_desk.add(entry)
    return {"deployment": deployment, "model": entry.name}


@routes.get(
    "/models",
    response_model=listed(Model),
    summary="List the models",
    openapi_extra=operation(
        answer({"data": [{"name": "hosted-large", "ready": 1, "deployments": [_DEPLOYMENT]}]}),
    ),
)
async def models(parts: Given) -> dict[str, Any]:
    """Public names with their deployments."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in await _all(parts):
        if row["state"] != "stopped":
            by_name.setdefault(row["name"], []).append(row)
    return {"data": [_model(name, rows) for name, rows in sorted(by_name.items())]}


@routes.delete("/models/{name:path}", summary="Remove a model", **_STOP)
async def remove(
    name: Annotated[str, Path(description="A public name; may hold `/`.", examples=["hosted-large"])], parts: Given
) -> dict[str, Any]:
    """Stop every deployment of it."""
    serving = [item for item in await parts.store.deployments.list() if item.name == name and item.state != "stopped"]
    if not serving:
        raise Refusal.of(
            Code.not_found, "No deployment serves that model. `headrace models list` shows all.", param="name"
        )
    return {"stopping": [(await parts.model_desk.stop(item.deployment)).deployment for item in serving]}


@routes.get(
    "/deployments",
    response_model=listed(Deployment),
    summary="List the deployments",
    openapi_extra=operation(answer({"data": [_DEPLOYMENT]})),
)
async def deployments(parts: Given, all: All = False) -> dict[str, Any]:
    """Deployments; with `all` also the stopped ones."""
    return {"data": [row for row in await _all(parts) if all or row["state"] != "stopped"]}


@routes.get(
    "/deployments/{deployment}",
    response_model=Standing,
    summary="Show a deployment",
    openapi_extra=operation(answer(_STANDING), fails(Code.not_found)),
)
async def show(deployment: Name, parts: Given) -> dict[str, Any]:
    """How it stands, engine by engine, with the last line of those that are not ready. Whether it has a credential,
    never the credential."""
    record = await _find(parts, deployment)
    rows = await parts.store.deployments.replicas(deployment)
    shown = shape(record, rows)
    for row in shown["engines"]:
        silent = record.target != "local" or row["state"] == "ready"
        row["last_line"] = "" if silent else await parts.engine_logs.last_line(deployment, row["replica"])
    return shown


@routes.delete("/deployments/{deployment}", summary="Stop a deployment", **_STOP)
async def stop(
    deployment: Name, parts: Given, now: Annotated[bool, Query(description="Do not wait for its requests.")] = False
) -> dict[str, Any]:
    """Take it out of rotation, let its requests finish, end it."""
    return {"stopping": [(await parts.model_desk.stop(deployment, now=now)).deployment]}


@routes.post("/deployments/{deployment}/drain", summary="Drain a deployment", **_STOP)
async def drain(deployment: Name, parts: Given) -> dict[str, Any]:
    """The same as DELETE without `now`."""
    return {"stopping": [(await parts.model_desk.stop(deployment)).deployment]}


@routes.post(
    "/deployments/{deployment}/scale",
    status_code=202,
    response_model=Scaled,
    summary="Scale a deployment",
    openapi_extra=operation(
        asks({"replicas": 2}),
        answer({"deployment": "local", "replicas": 2, "command_id": _COMMAND}, "It was asked for.", status=202),
        fails(Code.not_found),
    ),
)
async def scale(deployment: Name, wish: Scale, parts: Given) -> dict[str, Any]:
    """Ask for another number of engines. Surplus ones go when their requests have finished."""
    command_id = await parts.model_desk.scale(deployment, wish.replicas)
    return {"deployment": deployment, "replicas": wish.replicas, "command_id": command_id}


@routes.get(
    "/deployments/{deployment}/logs",
    response_model=Log,
    summary="Read an engine's output",
    openapi_extra=operation(
        answer({"deployment": "local", "replica": 1, "log": "listening on ..."}), fails(Code.not_found)
    ),
)
async def engine_logs(
    deployment: Name, parts: Given, lines: Lines = 200, replica: ReplicaNumber = 1, previous: bool = False
) -> dict[str, Any]:
    """The last lines that a local engine wrote; `previous`: those of its life before the present one."""
    await _local(parts, deployment)
    found = await parts.engine_logs.tail(deployment, lines, replica=replica, previous=previous)
    if found is None:
        raise Refusal.of(Code.not_found, _no_log(replica, previous))
    return {"deployment": deployment, "replica": replica, "log": found}


@routes.get(
    "/deployments/{deployment}/logs/live",
    response_class=Response,
    summary="Follow an engine's output",
    openapi_extra=operation(
        answer("data: listening on ...\n\n", "One event for each line.", schema=EVENT, media=EVENTS),
        fails(Code.not_found),
    ),
)
async def live_logs(
    deployment: Name, parts: Given, lines: Lines = 20, replica: ReplicaNumber = 1
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
