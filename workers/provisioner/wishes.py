"""What was asked for, as records: a command becomes a deployment, a deployment its endpoints and its model. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from base.crypto import digest
from schemas.commands import DeployModel, ScaleDeployment, StopDeployment
from schemas.records import DeploymentRecord, EndpointRecord, ModelRecord
from workers.provisioner.states import GOING, LOCAL, PAUSED, PENDING, STOPPED, STOPPING


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
        replicas=command.replicas if command.target == LOCAL else 1,
        restart=command.restart,
        continues=command.continues,
        on_disconnect=command.on_disconnect,
        speaks=command.speaks,
    )
    if known is None or known.state in GOING or wish(known) != wish(record):
        return record
    return replace(record, state=known.state, reason=known.reason, pid=known.pid)


def scaled(command: ScaleDeployment, known: DeploymentRecord | None, now_ms: int) -> DeploymentRecord | None:
    """The record a ScaleDeployment asks for; None when there is nothing that could be scaled."""
    if known is None or known.state in GOING or known.target != LOCAL or command.replicas < 0:
        return None
    state = PENDING if known.state == PAUSED else known.state
    return replace(known, command_id=command.command_id, replicas=command.replicas, state=state, updated_ms=now_ms)


def stopping(command: StopDeployment, known: DeploymentRecord | None, now_ms: int) -> DeploymentRecord | None:
    """The record a StopDeployment asks for; None when it has ended already."""
    if known is None or known.state == STOPPED:
        return None
    reason = "asked to stop now" if command.now else "asked to stop"
    return replace(
        known,
        command_id=command.command_id,
        state=STOPPING,
        reason=reason,
        drain=known.drain and not command.now,
        updated_ms=now_ms,
    )


def wish(record: DeploymentRecord) -> str:
    """A short digest of what an engine is started with; another one means another engine."""
    parts = (record.target, record.name, record.url, record.upstream_model, str(record.private), *record.command)
    return digest("\n".join((*parts, record.credential)).encode())[:16]


def wanted(record: DeploymentRecord) -> range:
    """The replicas that should run, by number."""
    return range(1, 1 if record.state in GOING else record.replicas + 1)


def endpoint_id(deployment: str, replica: int) -> str:
    """The first engine's endpoint has the deployment's name, the others add their number."""
    return deployment if replica == 1 else f"{deployment}/{replica}"


def endpoint_of(
    record: DeploymentRecord, url: str, *, up: bool, upstream_model: str = "", replica: int = 1
) -> EndpointRecord:
    """The endpoint of one replica, as routers see it."""
    return EndpointRecord(
        endpoint=endpoint_id(record.deployment, replica),
        deployment=record.deployment,
        pool=record.pool,
        model=record.name,
        url=url,
        upstream_model=upstream_model or record.upstream_model or record.name,
        credential=record.credential,
        slots=record.slots,
        weight=record.weight,
        up=up,
        private=record.private or record.target == LOCAL,
        continues=record.continues,
        speaks=record.speaks,
    )


def model_of(record: DeploymentRecord) -> ModelRecord:
    """The public name that a deployment serves."""
    created = record.created_ms // 1000
    return ModelRecord(name=record.name, pool=record.pool, created=created, on_disconnect=record.on_disconnect)


def served_elsewhere(record: DeploymentRecord, records: Iterable[DeploymentRecord]) -> bool:
    """Whether another deployment that stays serves the same name."""
    others = (other for other in records if other.deployment != record.deployment)
    return any(other.name == record.name and other.state not in GOING for other in others)
