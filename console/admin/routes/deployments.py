"""/models, what should be served, and /deployments, how it stands. Both lead to commands; nothing is done here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query

from console.admin.parts import Given, Parts
from console.entries import ModelEntry
from schemas.errors import Code, Refusal
from schemas.records import DeploymentRecord

routes = APIRouter()


@routes.post("/models", status_code=202)
@routes.post("/deployments", status_code=202)
async def add(entry: ModelEntry, parts: Given) -> dict[str, Any]:
    """Ask for it. 202: the command is on its way; GET /deployments/{deployment} tells how it goes."""
    deployment = await parts.model_desk.add(entry)
    return {"deployment": deployment, "model": entry.name}


@routes.get("/models")
async def models(parts: Given) -> dict[str, Any]:
    """Public names with their deployments."""
    by_name: dict[str, list[DeploymentRecord]] = {}
    for record in await parts.store.deployments.list():
        if record.state != "stopped":
            by_name.setdefault(record.name, []).append(record)
    return {"data": [_model(name, records) for name, records in sorted(by_name.items())]}


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
    return {"data": [shape(row) for row in await parts.store.deployments.list() if all or row.state != "stopped"]}


@routes.get("/deployments/{deployment}")
async def show(deployment: str, parts: Given) -> dict[str, Any]:
    return shape(await _find(parts, deployment))


@routes.delete("/deployments/{deployment}", status_code=202)
async def stop(deployment: str, parts: Given) -> dict[str, Any]:
    return {"stopping": [(await parts.model_desk.stop(deployment)).deployment]}


@routes.get("/deployments/{deployment}/logs")
async def engine_logs(deployment: str, parts: Given, lines: int = Query(200, ge=1, le=10_000)) -> dict[str, Any]:
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
