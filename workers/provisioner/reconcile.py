"""The loop that makes deployments true: look, plan, act, every few seconds or when a command came.

It remembers nothing that matters. After a crash the engines that run are found again (adopted or ended), the catalog
is published again and what was interrupted is planned again. While PostgreSQL is away it goes on with what it read
last; while Redis is away it repeats the publishing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from base import logs, metrics
from schemas.errors import Unavailable
from schemas.records import DeploymentRecord, ReplicaRecord
from workers.provisioner import rules, states, wishes
from workers.provisioner.hands import Hands, Replica
from workers.provisioner.ports import Handle
from workers.provisioner.rules import Limits, Mark, Memory, Withdraw
from workers.provisioner.settings import ProvisionerSettings
from workers.provisioner.standing import ready_of, standing

log = logs.room("provisioner")

_IMPATIENT_S = 60.0  # how long a start is watched closely
_BUSY = (states.PENDING, states.STARTING, states.STOPPING)
_BUSY_REPLICA = (states.STARTING, states.DRAINING)
Key = tuple[str, int]


@dataclass(slots=True)
class Notes:
    """What this process remembers between two looks: by replica, and by deployment what routers were told of its
    model (command, whether it is served, when)."""

    memories: dict[Key, Memory] = field(default_factory=dict)
    left_ms: dict[Key, int] = field(default_factory=dict)
    models: dict[str, tuple[str, bool, float]] = field(default_factory=dict)


class Reconciler:
    """One per machine (local engines) or per group (external ones); a second one does the same things again."""

    def __init__(self, hands: Hands, settings: ProvisionerSettings) -> None:
        self._hands, self._clock, self._settings = hands, hands.clock, settings
        self._limits = Limits(
            start_timeout_s=settings.start_timeout_s,
            bad_probes=settings.bad_probes,
            drain_s=settings.drain_s,
            restart_most_s=settings.restart_most_s,
        )
        self._notes = Notes()
        self._records: Sequence[DeploymentRecord] = ()
        self._rows: dict[Key, ReplicaRecord] = {}
        self._woken = asyncio.Event()
        hands.changed = self.wake

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Engines are left running: the next process adopts them."""
        while True:
            self._woken.clear()
            await self.try_look()
            try:
                async with asyncio.timeout(self.pause()):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def pause(self) -> float:
        """Seconds until the next look, as things stand."""
        return self._settings.starting_interval_s if self._busy() else self._settings.interval_s

    async def try_look(self) -> None:
        """A look that may fail: the next one repeats it."""
        try:
            await self.look()
        except Exception:
            log.exception("a look at the deployments failed; the next one repeats it")

    async def look(self) -> None:
        """One round over all deployments and everything that runs."""
        await self._read()
        targets = self._hands.targets
        for name, found in [(name, await target.running()) for name, target in targets.items()]:
            mine = {record.deployment: record for record in self._records if record.target == name}
            await self._end_orphans(name, [handle for handle in found if handle.deployment not in mine])
            await asyncio.gather(*(self._one(record, found) for record in mine.values()))
        await self._mark_unknown_targets()
        self._count()

    def _busy(self) -> bool:
        """Whether something is about to change. What starts for very long is looked at less often. An engine that did
        not answer its last look is looked at again at once, so that it is known as down within the interval."""
        memories = self._notes.memories
        if any(
            row.state == states.DRAINING or rules.suspected(row, memories.get(key)) for key, row in self._rows.items()
        ):
            return True
        since = self._clock.monotonic() - _IMPATIENT_S
        changing = {(record.deployment, 1) for record in self._records if record.state in _BUSY}
        changing |= {key for key, row in self._rows.items() if row.state in _BUSY_REPLICA}
        return any(memories.get(key, Memory(started=since + 1)).started >= since for key in changing)

    async def _read(self) -> None:
        try:
            records, rows = await self._hands.deployments.list(), await self._hands.deployments.replicas()
        except Unavailable as error:
            log.warning("PostgreSQL is away; going on with the deployments read last", reason=str(error))
            return
        self._records, self._rows = records, {(row.deployment, row.replica): row for row in rows}

    async def _one(self, record: DeploymentRecord, found: Sequence[Handle]) -> None:
        """A deployment: its model, its replicas, how it stands."""
        replicas = self._replicas(record, found)
        try:
            await self._tell_model(record)
            await self._each(replicas)
            rows = [item.row for item in replicas if item.row is not None]
            left = any(item.handle is not None for item in replicas)
            await self._stand(record, rows, standing(record, rows, left))
        except Unavailable as error:
            log.warning("a step could not be written and is repeated", deployment=record.deployment, reason=str(error))

    def _replicas(self, record: DeploymentRecord, found: Sequence[Handle]) -> list[Replica]:
        """Those that are wanted, those that run, those that are written about; one of a deployment that is stopping."""
        name = record.deployment
        handles = {handle.replica: handle for handle in found if handle.deployment == name}
        numbers = {*wishes.wanted(record), *handles, *(row for key, row in self._rows if key == name)}
        if record.state == states.STOPPING:
            numbers.add(1)
        return [
            Replica(record=record, number=number, row=self._rows.get((name, number)), handle=handles.get(number))
            for number in sorted(numbers)
        ]

    async def _each(self, replicas: Sequence[Replica]) -> None:
        """All at once. An engine of an old wish is replaced when those before it serve the new one."""
        current = [item.row is not None and ready_of(item.record, [item.row]) == 1 for item in replicas]
        turns = [all(current[:place]) for place in range(len(replicas))]
        failures = await asyncio.gather(*map(self._replica, replicas, turns), return_exceptions=True)
        for item in replicas:
            self._keep(item)
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure

    async def _replica(self, replica: Replica, turn: bool) -> None:
        notes, key, record = self._notes, replica.key, replica.record
        memory = notes.memories.get(key, Memory())
        seen = await self._hands.see(replica, memory, notes.left_ms.get(key, 0), turn)
        wanted = replica.number in wishes.wanted(record)
        found = rules.plan(record, wanted, seen, memory, self._clock.monotonic(), self._limits)
        memory = await self._hands.carry_out(replica, found)
        if Withdraw() in found.steps:
            notes.left_ms[key] = await self._hands.inflight.now_ms()
        notes.memories[key] = memory

    def _keep(self, replica: Replica) -> None:
        """The rows as they are now; nothing of a replica that is gone."""
        if replica.row is not None:
            self._rows[replica.key] = replica.row
            return
        self._rows.pop(replica.key, None)
        if replica.handle is None and replica.number not in wishes.wanted(replica.record):
            self._notes.memories.pop(replica.key, None)
            self._notes.left_ms.pop(replica.key, None)

    async def _tell_model(self, record: DeploymentRecord) -> None:
        """A model goes before its endpoints do; one that is paused stays known. (Else endpoints bring it along.)"""
        going, paused = record.state in states.GOING, not record.replicas
        if not going and not paused:
            self._notes.models.pop(record.deployment, None)
            return
        now, served = self._clock.monotonic(), not going
        command, told, at = self._notes.models.get(record.deployment, ("", served, 0.0))
        if (command, told) == (record.command_id, served) and (going or now < at + self._limits.republish_s):
            return
        if served:
            await self._hands.catalog.publish([wishes.model_of(record)])
        elif not wishes.served_elsewhere(record, self._records):
            await self._hands.catalog.withdraw([record.name], ())
        await self._hands.tell_pool(record)
        self._notes.models[record.deployment] = (record.command_id, served, now)

    async def _stand(self, record: DeploymentRecord, rows: Sequence[ReplicaRecord], mark: Mark | None) -> None:
        """Write how it stands, unless a command has changed the wish meanwhile: then the next look plans anew."""
        metrics.gauge("headrace_replicas_wanted", len(wishes.wanted(record)), deployment=record.deployment)
        metrics.gauge("headrace_replicas_ready", ready_of(record, rows), deployment=record.deployment)
        pid = next((row.pid for row in rows if row.replica == 1), 0)
        if mark is None or (mark.state, mark.reason, pid) == (record.state, record.reason, record.pid):
            return
        now, name = self._clock.now_ms(), record.deployment
        moved = await self._hands.deployments.set_state(name, mark.state, mark.reason, now, pid, record.command_id)
        if moved is not None and mark.state != record.state:
            log.info("deployment is now", deployment=name, state=mark.state, reason=mark.reason)
            self.wake()

    async def _end_orphans(self, target: str, handles: Sequence[Handle]) -> None:
        for handle in handles:
            log.warning("ending an engine that nobody asked for", deployment=handle.deployment, pid=handle.pid)
            await self._hands.targets[target].stop(handle)

    async def _mark_unknown_targets(self) -> None:
        known = self._hands.targets
        for record in self._records:
            if record.target not in known and record.state == states.PENDING:
                reason = f"unknown target {record.target!r}; known here: {', '.join(sorted(known))}"
                await self._stand(record, (), Mark(states.FAILED, reason))

    def _count(self) -> None:
        counted = Counter((record.target, record.state) for record in self._records)
        for (target, state), number in counted.items():
            metrics.gauge("headrace_deployments", number, target=target, state=state)
