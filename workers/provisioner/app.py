"""The only wiring of this room.

DeployModel, ScaleDeployment, StopDeployment   ->  handlers.Handlers.handle   group provisioner
(time)                                         ->  reconcile.Reconciler.run   started and ended beside the stages
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from base.credentials import open_credential
from base.crypto import Sealer
from providers.ports import Transport
from runtime.app import Context, Stage
from workers.provisioner.fetch import TransportFetch
from workers.provisioner.handlers import Handlers
from workers.provisioner.hands import Hands
from workers.provisioner.ports import Catalog, Deployments, Inflight
from workers.provisioner.reconcile import Reconciler
from workers.provisioner.settings import ProvisionerSettings
from workers.provisioner.states import EXTERNAL, LOCAL
from workers.provisioner.targets.external import ExternalTarget
from workers.provisioner.targets.local import LocalTarget


class Room:
    """The stages, and the loop beside them. Start the loop with the stages, end it before the connections close."""

    def __init__(self, stages: list[Stage], reconciler: Reconciler, local: LocalTarget) -> None:
        self.stages, self.reconciler, self._local = stages, reconciler, local
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, so that no state of an earlier life is taken for the present one; then go on looking."""
        await self.reconciler.try_look()
        self._task = asyncio.create_task(self.reconciler.run(), name="provisioner:reconcile")

    async def stop(self) -> None:
        """Engines go on running; the next provisioner adopts them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._local.close()


def build(
    context: Context,
    deployments: Deployments,
    catalog: Catalog,
    inflight: Inflight,
    transport: Transport,
    data: Path,
    settings: ProvisionerSettings,
) -> Room:
    """The room over the process's shared parts. data: the data directory; engines log under data/engines."""
    fetch = TransportFetch(transport, settings.probe_timeout_s)
    sealer = Sealer(context.ring, context.chance)
    local = LocalTarget(data / "engines", fetch, context.clock, stop_grace_s=settings.stop_grace_s)
    hands = Hands(
        deployments=deployments,
        targets={LOCAL: local, EXTERNAL: ExternalTarget(fetch)},
        catalog=catalog,
        inflight=inflight,
        publisher=context.publisher("provisioner"),
        open_credential=lambda deployment, sealed: open_credential(sealer, deployment, sealed),
        clock=context.clock,
        chance=context.chance,
    )
    reconciler = Reconciler(hands, settings)
    local.on_exit = reconciler.wake
    handlers = Handlers(deployments, context.clock, reconciler.wake)
    return Room([Stage(group="provisioner", handler=handlers.handle)], reconciler, local)
