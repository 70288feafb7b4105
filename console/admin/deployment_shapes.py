"""What /models and /deployments answer, and what their document shows."""

from __future__ import annotations

from typing import Any

from console.admin.shapes import Shape, example, like
from ingress.documents.openapi import answer, asks, fails, operation
from schemas.errors import Code
from schemas.records import DeploymentRecord, ReplicaRecord

Engine = like("Engine", ReplicaRecord)
_MORE: dict[str, Any] = {"credential": bool, "ready": int, "pids": list[int], "restarts": int}
Deployment = like("Deployment", DeploymentRecord, **_MORE, engines=list[Engine])  # type: ignore[valid-type]
ShownEngine = like("ShownEngine", ReplicaRecord, last_line=str)
Standing = like("Standing", DeploymentRecord, **_MORE, engines=list[ShownEngine])  # type: ignore[valid-type]


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


ENTRY = {"name": "hosted-large", "url": "https://models.example/v1", "api_key": "sk-...", "slots": 64}
COMMAND = "5f0c9e7a1b3d4e6f8091a2b3c4d5e6f7"
ENGINE = example(ReplicaRecord, Engine, deployment="hosted-large", replica=1, command_id=COMMAND, state="ready")
DEPLOYMENT = example(
    DeploymentRecord,
    Deployment,
    deployment="hosted-large",
    command_id=COMMAND,
    name="hosted-large",
    target="external",
    pool="hosted-large",
    state="ready",
    url="https://models.example/v1",
    credential=True,
    ready=1,
    pids=[],
    restarts=0,
    engines=[ENGINE],
    slots=64,
    created_ms=1_760_000_000_000,
    updated_ms=1_760_000_001_000,
)
STANDING = {**DEPLOYMENT, "engines": [{**ENGINE, "last_line": ""}]}


ASK: dict[str, Any] = {
    "status_code": 202,
    "response_model": Asked,
    "openapi_extra": operation(
        asks(ENTRY),
        answer({"deployment": "hosted-large", "model": "hosted-large"}, "The command is on its way.", status=202),
    ),
}
STOP: dict[str, Any] = {
    "status_code": 202,
    "response_model": Stopping,
    "openapi_extra": operation(
        answer({"stopping": ["hosted-large"]}, "The commands are on their way.", status=202), fails(Code.not_found)
    ),
}
