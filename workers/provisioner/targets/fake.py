"""Engines made of nothing, for tests and simulations: what they answer is what the test says."""

from __future__ import annotations

from collections.abc import Sequence

from workers.provisioner.ports import Handle, Health, Spec, StartFailed


class FakeTarget:
    """Implements ports.Target. health: the next answers by deployment (up by default). refuse: why starts fail."""

    def __init__(self) -> None:
        self.health: dict[str, Health] = {}
        self.refuse = ""
        self.started: list[str] = []
        self.stopped: list[str] = []
        self._handles: dict[str, Handle] = {}

    async def running(self) -> Sequence[Handle]:
        return tuple(self._handles.values())

    async def start(self, spec: Spec) -> Handle:
        if self.refuse:
            raise StartFailed(self.refuse)
        known = self._handles.get(spec.deployment)
        if known is not None and known.digest == spec.digest:
            return known
        self.started.append(spec.deployment)
        url = spec.url or f"http://fake/{spec.deployment}/v1"
        pid = len(self.started) if spec.command else 0
        handle = Handle(deployment=spec.deployment, digest=spec.digest, url=url, pid=pid, born=pid)
        self._handles[spec.deployment] = handle
        return handle

    async def probe(self, spec: Spec, handle: Handle) -> Health:
        if self._handles.get(handle.deployment) != handle:
            return Health(up=False, reason="nothing answers")
        return self.health.get(handle.deployment, Health(up=True, upstream_model=spec.upstream_model or spec.name))

    async def stop(self, handle: Handle) -> None:
        if self._handles.pop(handle.deployment, None) is not None:
            self.stopped.append(handle.deployment)

    def die(self, deployment: str) -> None:
        """The engine ends by itself."""
        self._handles.pop(deployment, None)
