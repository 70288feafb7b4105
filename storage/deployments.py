"""Deployments and commands in PostgreSQL. Implements ports.Deployments. They belong to the house, not to a tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from schemas.records import DeploymentRecord, ReplicaRecord
from storage.access import OPERATOR
from storage.pool import Pool
from storage.rows import Table

DEPLOYMENTS = Table(DeploymentRecord)
REPLICAS = Table(ReplicaRecord)


class PostgresDeployments:
    """Tables deployments, replicas and commands."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, record: DeploymentRecord) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("put_deployment", *DEPLOYMENTS.values(record))

    async def find(self, deployment: str) -> DeploymentRecord | None:
        async with self._pool.transaction(OPERATOR) as work:
            row = await work.row("find_deployment", deployment)
        return DEPLOYMENTS.build(row) if row else None

    async def list(self) -> Sequence[DeploymentRecord]:
        async with self._pool.transaction(OPERATOR) as work:
            return [DEPLOYMENTS.build(row) for row in await work.rows("list_deployments")]

    async def set_state(
        self, deployment: str, state: str, reason: str, at_ms: int, pid: int = 0, command_id: str | None = None
    ) -> DeploymentRecord | None:
        async with self._pool.transaction(OPERATOR) as work:
            row = await work.row("set_deployment_state", deployment, state, reason, pid, at_ms, command_id)
        return DEPLOYMENTS.build(row) if row else None

    async def put_replica(self, record: ReplicaRecord) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("put_replica", *REPLICAS.values(record))

    async def replicas(self, deployment: str | None = None) -> Sequence[ReplicaRecord]:
        async with self._pool.transaction(OPERATOR) as work:
            return [REPLICAS.build(row) for row in await work.rows("list_replicas", deployment)]

    async def remove_replica(self, deployment: str, replica: int) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("remove_replica", deployment, replica)

    async def remove(self, deployment: str) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("remove_deployment", deployment)

    async def begin(self, command_id: str, kind: str, deployment: str, at_ms: int) -> Literal["new", "begun", "done"]:
        async with self._pool.transaction(OPERATOR) as work:
            if await work.row("begin_command", command_id, kind, deployment, at_ms):
                return "new"
            row = await work.row("command_done_ms", command_id)
        return "done" if row and row["done_ms"] else "begun"

    async def finish(self, command_id: str, at_ms: int) -> None:
        async with self._pool.transaction(OPERATOR) as work:
            await work.run("finish_command", command_id, at_ms)
