"""Engines made of nothing, for tests and simulations: what they answer is what the test says."""

from __future__ import annotations

from collections.abc import Sequence

from workers.provisioner.ports import Exit, Handle, Health, Spec, StartFailed
from workers.provisioner.wishes import endpoint_id


class FakeTarget:
    """Implements ports.Target. Engines are called by their endpoints: `small`, `small/2`.

    health: the next answers (up by default). refuse: why starts fail."""

    def __init__(self) -> None:
        self.health: dict[str, Health] = {}
        self.refuse = ""
        self.started: list[str] = []
        self.stopped: list[str] = []
        self._handles: dict[str, Handle] = {}
        self._exits: dict[str, Exit] = {}

    async def running(self) -> Sequence[Handle]:
        return tuple(self._handles.values())

    async def start(self, spec: Spec) -> Handle:
        if self.refuse:
            raise StartFailed(self.refuse)
        name = endpoint_id(spec.deployment, spec.replica)
        known = self._handles.get(name)
        if known is not None and known.digest == spec.digest:
            return known
        self.started.append(name)
        url = spec.url or f"http://fake/{name}/v1"
        pid = len(self.started) if spec.command else 0
        handle = Handle(
            deployment=spec.deployment, replica=spec.replica, digest=spec.digest, url=url, pid=pid, born=pid
        )
        self._handles[name] = handle
        self._exits.pop(name, None)
        return handle

    async def probe(self, spec: Spec, handle: Handle) -> Health:
        name = endpoint_id(handle.deployment, handle.replica)
        if self._handles.get(name) != handle:
            return Health(up=False, reason="nothing answers")
        return self.health.get(name, Health(up=True, upstream_model=spec.upstream_model or spec.name))

    async def stop(self, handle: Handle) -> None:
        name = endpoint_id(handle.deployment, handle.replica)
        if self._handles.pop(name, None) is not None:
            self.stopped.append(name)

    def ended(self, deployment: str, replica: int) -> Exit | None:
        return self._exits.get(endpoint_id(deployment, replica))

    def die(self, name: str, status: int | None = 1) -> None:
        """The engine ends by itself."""
        if self._handles.pop(name, None) is not None:
            self._exits[name] = Exit(status)
