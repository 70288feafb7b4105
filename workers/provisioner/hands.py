"""What is done with one replica: look at it, and carry out the steps that rules.py planned.

Steps may be repeated: starting finds what runs, publishing replaces, stopping what is gone does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from base import logs, metrics
from base.clock import Clock
from base.crypto import CryptoError
from base.ids import Random
from schemas.errors import Unavailable
from schemas.events import CatalogChanged
from schemas.ports import Publisher
from schemas.records import DeploymentRecord, ReplicaRecord
from workers.provisioner import rules, wishes
from workers.provisioner.ports import (
    Catalog,
    Deployments,
    Handle,
    Health,
    Inflight,
    OpenCredential,
    Spec,
    StartFailed,
    Target,
    Use,
)
from workers.provisioner.rules import Forget, Mark, Memory, Plan, Publish, Seen, Start, Step, Stop, Withdraw

log = logs.room("provisioner")


@dataclass(slots=True, kw_only=True)
class Replica:
    """One engine of a deployment during one look. row and handle follow what is done. unwritten: not all of it is in
    PostgreSQL, which is away."""

    record: DeploymentRecord
    number: int
    row: ReplicaRecord | None
    handle: Handle | None
    unwritten: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.record.deployment, self.number

    @property
    def endpoint(self) -> str:
        return wishes.endpoint_id(*self.key)


@dataclass(slots=True, kw_only=True)
class Hands:
    """Everything that is reached outside. changed: called when a step was taken, so that the next look comes soon."""

    deployments: Deployments
    targets: Mapping[str, Target]
    catalog: Catalog
    inflight: Inflight
    publisher: Publisher
    open_credential: OpenCredential
    clock: Clock
    chance: Random
    changed: Callable[[], None] = lambda: None

    async def see(self, replica: Replica, memory: Memory, left_ms: int, turn: bool) -> Seen:
        """One look. left_ms: when its endpoint was withdrawn, by the routers' clock."""
        target = self.targets[replica.record.target]
        wanted = replica.number in wishes.wanted(replica.record)
        return Seen(
            row=replica.row,
            handle=replica.handle,
            health=await self._probe(replica, target) if wanted else None,
            exit=target.ended(*replica.key) if replica.handle is None else None,
            busy=await self._busy(replica.endpoint, left_ms) if memory.leaving and replica.handle else "",
            turn=turn,
            spread=self.chance.uniform(0.0, 1.0),
        )

    async def carry_out(self, replica: Replica, found: Plan) -> Memory:
        """The steps in order; what to remember. An engine that cannot start is a state, not an error.

        Unavailable: Redis is away, nothing is ended that routers may still choose. States that cannot be written while
        PostgreSQL is away hinder nothing: they differ from what is written, so a later look plans them again."""
        memory = found.memory
        for step in found.steps:
            try:
                await self._do(replica, step)
            except StartFailed as error:
                memory = replace(memory, gave_up=str(error))
                await self._mark(replica, rules.could_not_start(replica.record, str(error)))
        if found.steps and not replica.unwritten:
            self.changed()
        return memory

    async def _do(self, replica: Replica, step: Step) -> None:
        if isinstance(step, Stop) and replica.handle is not None:
            await self.targets[replica.record.target].stop(replica.handle)
            replica.handle = None
        elif isinstance(step, Start):
            await self._start(replica, step)
        elif isinstance(step, Mark):
            await self._mark(replica, step)
        elif isinstance(step, Publish):
            await self._publish(replica, step)
        elif isinstance(step, Withdraw):
            await self.catalog.withdraw((), [replica.endpoint])
            await self._tell(replica, 0)
        elif isinstance(step, Forget):
            await self._forget(replica, step)

    async def _start(self, replica: Replica, step: Start) -> None:
        handle = await self.targets[replica.record.target].start(self.spec(replica))
        replica.handle = handle
        log.info("engine started", endpoint=replica.endpoint, pid=handle.pid, again=step.again)
        if step.again:
            metrics.inc("headrace_engine_restarts_total", deployment=replica.record.deployment)
        if replica.row is not None:
            await self._put(replica, replace(replica.row, restarts=replica.row.restarts + step.again))

    async def _publish(self, replica: Replica, step: Publish) -> None:
        record, up = replica.record, step.up
        url = replica.handle.url if replica.handle is not None else record.url
        endpoint = wishes.endpoint_of(record, url, up=up, upstream_model=step.upstream_model, replica=replica.number)
        await self.catalog.publish([wishes.model_of(record)], [endpoint])
        await self._tell(replica, int(up))

    async def _mark(self, replica: Replica, mark: Mark) -> None:
        old, record = replica.row, replica.record
        row = ReplicaRecord(
            deployment=record.deployment,
            replica=replica.number,
            command_id=record.command_id,
            state=mark.state,
            reason=mark.reason,
            restarts=old.restarts if old is not None and old.command_id == record.command_id else 0,
        )
        await self._put(replica, row)
        log.info("replica is now", endpoint=replica.endpoint, state=mark.state, reason=mark.reason)

    async def _put(self, replica: Replica, row: ReplicaRecord) -> None:
        url, pid = (replica.handle.url, replica.handle.pid) if replica.handle is not None else ("", 0)
        row = replace(row, url=url, pid=pid, updated_ms=self.clock.now_ms())
        try:
            await self.deployments.put_replica(row)
        except Unavailable as error:
            replica.unwritten = True
            log.warning("a replica's state cannot be written yet", endpoint=replica.endpoint, reason=str(error))
        else:
            replica.row = row

    async def _forget(self, replica: Replica, step: Forget) -> None:
        if replica.row is not None:
            await self.deployments.remove_replica(*replica.key)
            replica.row = None
        if step.drained:
            metrics.inc("headrace_drains_total", deployment=replica.record.deployment, outcome=step.drained)
            log.info("replica is gone", endpoint=replica.endpoint, drained=step.drained)

    async def _probe(self, replica: Replica, target: Target) -> Health | None:
        spec, handle = self.spec(replica), replica.handle
        if handle is None or handle.digest != spec.digest:
            return None
        if replica.record.credential and not spec.credential:
            reason = "its credential does not open with this key ring; add the model again with its key"
            return Health(up=False, reason=reason, final=True)
        return await target.probe(spec, handle)

    async def _busy(self, endpoint: str, left_ms: int) -> str:
        """Why an endpoint that was withdrawn is not idle, "" when it is. In doubt it is not."""
        try:
            return busy(await self.inflight.use(endpoint, left_ms))
        except Unavailable:
            return "Redis is away, so nobody knows whether requests still run"

    async def tell_pool(self, record: DeploymentRecord) -> None:
        """Everybody shall read the catalog again."""
        await self.publisher.publish("control", CatalogChanged(pool=record.pool))

    async def _tell(self, replica: Replica, up: int) -> None:
        metrics.gauge("headrace_endpoint_up", up, endpoint=replica.endpoint, model=replica.record.name)
        await self.tell_pool(replica.record)

    def spec(self, replica: Replica) -> Spec:
        """What the target is asked to run."""
        record = replica.record
        try:
            credential = self.open_credential(record.deployment, record.credential)
        except CryptoError:
            credential = ""
        return Spec(
            deployment=record.deployment,
            replica=replica.number,
            name=record.name,
            digest=wishes.wish(record),
            url=record.url,
            upstream_model=record.upstream_model,
            credential=credential,
            private=record.private,
            command=record.command,
        )


def busy(use: Use) -> str:
    """The sentence for an endpoint that is not idle. Pure."""
    if use.requests:
        return f"{use.requests} requests still run" if use.requests > 1 else "1 request still runs"
    return f"{use.unsure} router processes may still send requests" if use.unsure else ""
