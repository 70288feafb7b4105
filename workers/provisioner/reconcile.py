"""The loop that makes deployments true: look, plan, act, every few seconds or when a command came.

It remembers nothing that matters. After a crash the engines that run are found again (adopted or ended), the catalog
is published again and what was interrupted is planned again. While PostgreSQL is away it goes on with what it read
last; while Redis is away it repeats the publishing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from base import logs, metrics
from base.clock import Clock
from base.crypto import CryptoError
from schemas.errors import Unavailable
from schemas.events import CatalogChanged
from schemas.ports import Publisher
from schemas.records import DeploymentRecord
from workers.provisioner import rules
from workers.provisioner.ports import Catalog, Deployments, Handle, Health, OpenCredential, Spec, StartFailed, Target
from workers.provisioner.rules import Limits, Mark, Memory, Plan, Publish, Start, Step, Stop, Withdraw
from workers.provisioner.settings import ProvisionerSettings

log = logs.room("provisioner")

_IMPATIENT_S = 60.0  # how long a start is watched closely
_BUSY = (rules.PENDING, rules.STARTING, rules.STOPPING)


class Reconciler:
    """One per machine (local engines) or per group (external ones); a second one does the same things again."""

    def __init__(
        self,
        deployments: Deployments,
        targets: Mapping[str, Target],
        catalog: Catalog,
        publisher: Publisher,
        open_credential: OpenCredential,
        clock: Clock,
        settings: ProvisionerSettings,
    ) -> None:
        self._deployments, self._targets, self._catalog = deployments, targets, catalog
        self._publisher, self._open, self._clock, self._settings = publisher, open_credential, clock, settings
        self._limits = Limits(
            start_timeout_s=settings.start_timeout_s,
            bad_probes=settings.bad_probes,
            drain_s=settings.drain_s,
            restart_most_s=settings.restart_most_s,
        )
        self._memories: dict[str, Memory] = {}
        self._records: Sequence[DeploymentRecord] = ()
        self._woken = asyncio.Event()

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
        for target, found in [(name, await target.running()) for name, target in self._targets.items()]:
            handles = {handle.deployment: handle for handle in found}
            mine = {record.deployment: record for record in self._records if record.target == target}
            await self._end_orphans(target, [handle for name, handle in handles.items() if name not in mine])
            await asyncio.gather(*(self._one(record, handles.get(name)) for name, record in mine.items()))
        await self._mark_unknown_targets()
        self._count()

    def _busy(self) -> bool:
        """Whether something is about to change. What starts for very long is looked at less often. An endpoint that did
        not answer its last look is looked at again at once, so that it is known as down within the interval."""
        if any(rules.suspected(record, self._memories.get(record.deployment)) for record in self._records):
            return True
        since = self._clock.monotonic() - _IMPATIENT_S
        changing = [record.deployment for record in self._records if record.state in _BUSY]
        return any(self._memories.get(name, Memory(started=since + 1)).started >= since for name in changing)

    async def _read(self) -> None:
        try:
            self._records = await self._deployments.list()
        except Unavailable as error:
            log.warning("PostgreSQL is away; going on with the deployments read last", reason=str(error))

    async def _one(self, record: DeploymentRecord, handle: Handle | None) -> None:
        memory = self._memories.get(record.deployment, Memory())
        try:
            spec = self._spec(record)
            health = await self._probe(record, spec, handle)
            found = rules.plan(record, handle, health, memory, self._clock.monotonic(), self._limits)
            await self._carry_out(record, spec, handle, found)
        except Unavailable as error:
            log.warning(
                "a step could not be written down and is repeated", deployment=record.deployment, reason=str(error)
            )

    async def _probe(self, record: DeploymentRecord, spec: Spec, handle: Handle | None) -> Health | None:
        if handle is None or record.state in (rules.STOPPING, rules.STOPPED) or handle.digest != spec.digest:
            return None
        if record.credential and not spec.credential:
            reason = "its credential does not open with this key ring; add the model again with its key"
            return Health(up=False, reason=reason, final=True)
        return await self._targets[record.target].probe(spec, handle)

    async def _carry_out(self, record: DeploymentRecord, spec: Spec, handle: Handle | None, found: Plan) -> None:
        """The steps in order. An engine that cannot start is a state, not an error."""
        target, memory = self._targets[record.target], found.memory
        for step in found.steps:
            if isinstance(step, Stop) and handle is not None:
                await target.stop(handle)
            elif isinstance(step, Start):
                try:
                    await self._start(record, spec, target, memory)
                except StartFailed as error:
                    await self._mark(record, Mark(rules.FAILED, str(error)), 0)
            else:
                await self._write(record, handle, step)
        self._memories[record.deployment] = memory
        if found.steps:
            self.wake()

    async def _start(self, record: DeploymentRecord, spec: Spec, target: Target, memory: Memory) -> None:
        handle = await target.start(spec)
        log.info("engine started", deployment=record.deployment, pid=handle.pid, start=memory.starts)
        if memory.starts > 1:
            metrics.inc("headrace_engine_restarts_total", deployment=record.deployment)
        if handle.pid:
            known = await self._deployments.find(record.deployment)
            if known is not None:
                await self._deployments.set_state(
                    record.deployment, known.state, known.reason, self._clock.now_ms(), handle.pid
                )

    async def _write(self, record: DeploymentRecord, handle: Handle | None, step: Step) -> None:
        if isinstance(step, Mark):
            await self._mark(record, step, handle.pid if handle and step.state != rules.STOPPED else 0)
        elif isinstance(step, Publish):
            url = handle.url if handle is not None else record.url
            await self._catalog.publish([rules.model_of(record)], [rules.endpoint_of(record, url, step)])
            await self._changed(record, int(step.up))
        elif isinstance(step, Withdraw):
            await self._catalog.withdraw([] if self._served_elsewhere(record) else [record.name], [record.deployment])
            await self._changed(record, 0)

    async def _mark(self, record: DeploymentRecord, mark: Mark, pid: int) -> None:
        """Write the state, unless a command has changed the wish meanwhile: then the next look plans anew."""
        present = await self._deployments.find(record.deployment)
        if not rules.may_mark(record, present, mark.state):
            return
        await self._deployments.set_state(record.deployment, mark.state, mark.reason, self._clock.now_ms(), pid)
        log.info("deployment is now", deployment=record.deployment, state=mark.state, reason=mark.reason)

    async def _changed(self, record: DeploymentRecord, up: int) -> None:
        metrics.gauge("headrace_endpoint_up", up, endpoint=record.deployment, model=record.name)
        await self._publisher.publish("control", CatalogChanged(pool=record.pool))

    async def _end_orphans(self, target: str, handles: Sequence[Handle]) -> None:
        for handle in handles:
            log.warning("ending an engine that nobody asked for", deployment=handle.deployment, pid=handle.pid)
            await self._targets[target].stop(handle)

    async def _mark_unknown_targets(self) -> None:
        for record in self._records:
            if record.target not in self._targets and record.state == rules.PENDING:
                reason = f"unknown target {record.target!r}; known here: {', '.join(sorted(self._targets))}"
                await self._mark(record, Mark(rules.FAILED, reason), 0)

    def _served_elsewhere(self, record: DeploymentRecord) -> bool:
        ended = (rules.STOPPING, rules.STOPPED)
        others = [other for other in self._records if other.deployment != record.deployment]
        return any(other.name == record.name and other.state not in ended for other in others)

    def _spec(self, record: DeploymentRecord) -> Spec:
        try:
            credential = self._open(record.deployment, record.credential)
        except CryptoError:
            credential = ""
        return Spec(
            deployment=record.deployment,
            name=record.name,
            digest=rules.wish(record),
            url=record.url,
            upstream_model=record.upstream_model,
            credential=credential,
            private=record.private,
            command=record.command,
        )

    def _count(self) -> None:
        counted = Counter((record.target, record.state) for record in self._records)
        for (target, state), number in counted.items():
            metrics.gauge("headrace_deployments", number, target=target, state=state)
