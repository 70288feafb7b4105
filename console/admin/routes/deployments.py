"""/models, what should be served, and /deployments, how it stands. Both lead to commands; nothing is done here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from console.admin.parts import Given, Parts
from console.admin.shapes import Shape, example, like, listed
from console.entries import ModelEntry
from ingress.documents.openapi import answer, asks, fails, operation
from schemas.errors import Code, Refusal
from schemas.records import DeploymentRecord

routes = APIRouter(tags=["models"])

Deployment = like("Deployment", DeploymentRecord, credential=bool)
Name = Annotated[str, Path(description="A deployment.", examples=["hosted-large"])]
All = Annotated[bool, Query(description="Also the stopped ones.")]


class Asked(Shape):
    """What was asked for."""

    deployment: str
    model: str


class Stopping(Shape):
    """Deployments that are on their way out."""

    stopping: list[str]


class Log(Shape):
    """The last lines of an engine's output."""

    deployment: str
    log: str


class Model(Shape):
    """A public name. ready: how many of its deployments serve it now."""

    name: str
    ready: int
    deployments: list[Deployment]  # type: ignore[valid-type]


_ENTRY = {"name": "hosted-large", "url": "https://models.example/v1", "api_key": "sk-...", "slots": 64}
_DEPLOYMENT = example(
    DeploymentRecord,
    Deployment,
    deployment="hosted-large",
    command_id="5f0c9e7a1b3d4e6f8091a2b3c4d5e6f7",
    name="hosted-large",
    target="external",
    pool="hosted-large",
    state="ready",
    url="https://models.example/v1",
    credential=True,
    slots=64,
    created_ms=1_760_000_000_000,
    updated_ms=1_760_000_001_000,
)


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
    by_name: dict[str, list[DeploymentRecord]] = {}
    for record in await parts.store.deployments.list():
        if record.state != "stopped":
            by_name.setdefault(record.name, []).append(record)
    return {"data": [_model(name, records) for name, records in sorted(by_name.items())]}


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
    return {"data": [shape(row) for row in await parts.store.deployments.list() if all or row.state != "stopped"]}


@routes.get(
    "/deployments/{deployment}",
    response_model=Deployment,
    summary="Show a deployment",
    openapi_extra=operation(answer(_DEPLOYMENT), fails(Code.not_found)),
)
async def show(deployment: Name, parts: Given) -> dict[str, Any]:
    """Whether it has a credential, never the credential."""
    return shape(await _find(parts, deployment))


@routes.delete("/deployments/{deployment}", summary="Stop a deployment", **_STOP)
async def stop(deployment: Name, parts: Given) -> dict[str, Any]:
    """Out of rotation first, then what it runs is ended."""
    return {"stopping": [(await parts.model_desk.stop(deployment)).deployment]}


@routes.get(
    "/deployments/{deployment}/logs",
    response_model=Log,
    summary="Read an engine's output",
    openapi_extra=operation(answer({"deployment": "local", "log": "listening on ..."}), fails(Code.not_found)),
)
async def engine_logs(deployment: Name, parts: Given, lines: int = Query(200, ge=1, le=10_000)) -> dict[str, Any]:
    """The last lines that a local engine wrote."""
    record = await _find(parts, deployment)
    if record.target != "local":
        state = record.reason or record.state
        text = f"The deployment runs elsewhere ({record.url}): its log is there. Its last state: {state}"
        raise Refusal.of(Code.not_found, text)
    found = await parts.engine_logs.tail(deployment, lines)
    if found is None:
        raise Refusal.of(Code.not_found, "This machine has no log of that engine; look where its provisioner runs.")
    return {"deployment": deployment, "log": found}


def shape(record: DeploymentRecord) -> dict[str, Any]:
    """A deployment as operators see it: whether it has a credential, never the credential."""
    shown = asdict(record)
    shown["credential"] = bool(record.credential)
    return shown


async def _find(parts: Parts, deployment: str) -> DeploymentRecord:
    record = await parts.store.deployments.find(deployment)
    if record is None:
        text = "There is no such deployment (yet). `headrace deployments list` shows all."
        raise Refusal.of(Code.not_found, text, param="deployment")
    return record


def _model(name: str, records: Sequence[DeploymentRecord]) -> dict[str, Any]:
    ready = sum(record.state == "ready" for record in records)
    return {"name": name, "ready": ready, "deployments": [shape(record) for record in records]}
