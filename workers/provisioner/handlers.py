"""A command becomes desired state, once per command id; making it true is the reconciler's work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from base import logs
from base.clock import Clock
from schemas.commands import DeployModel, ScaleDeployment, StopDeployment
from schemas.outcomes import Dead, Delivery, Done, Outcome
from schemas.records import DeploymentRecord
from workers.provisioner.ports import Deployments
from workers.provisioner.wishes import desired, scaled, stopping

log = logs.room("provisioner")


class Handlers:
    """wake: called when there is something new to do."""

    def __init__(self, deployments: Deployments, clock: Clock, wake: Callable[[], None]) -> None:
        self._deployments, self._clock, self._wake = deployments, clock, wake

    async def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """In order: a stop that follows a deploy must find it."""
        return [await self.one(delivery) for delivery in deliveries]

    async def one(self, delivery: Delivery) -> Outcome:
        """One command; repeating it changes nothing."""
        command = delivery.event
        if not isinstance(command, DeployModel | ScaleDeployment | StopDeployment):
            return Dead(f"{type(command).__name__} is not a command of the provisioner")
        kind = type(command).__name__
        now = self._clock.now_ms()
        if await self._deployments.begin(command.command_id, kind, command.deployment, now) == "done":
            return Done()
        await self._want(command, now)
        await self._deployments.finish(command.command_id, now)
        log.info("command accepted", kind=kind, deployment=command.deployment, command=command.command_id)
        self._wake()
        return Done()

    async def _want(self, command: DeployModel | ScaleDeployment | StopDeployment, now: int) -> None:
        known = await self._deployments.find(command.deployment)
        match command:
            case DeployModel():
                record: DeploymentRecord | None = desired(command, known, now)
            case ScaleDeployment():
                record = scaled(command, known, now)
            case StopDeployment():
                record = stopping(command, known, now)
        if record is None:
            log.warning("command changes nothing", kind=type(command).__name__, deployment=command.deployment)
        else:
            await self._deployments.put(record)
