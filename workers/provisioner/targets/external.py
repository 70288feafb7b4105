"""An OpenAI-compatible server somewhere else. We run nothing; starting is remembering, stopping is forgetting."""

from __future__ import annotations

from collections.abc import Sequence

from providers.addresses import refuse_url
from workers.provisioner.ports import Exit, Handle, Health, Spec, StartFailed
from workers.provisioner.targets.models import Fetch, probe


class ExternalTarget:
    """Implements ports.Target for URLs."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._handles: dict[str, Handle] = {}

    async def running(self) -> Sequence[Handle]:
        return tuple(self._handles.values())

    async def start(self, spec: Spec) -> Handle:
        reason = refuse_url(spec.url, bool(spec.credential), spec.private)
        if reason:
            raise StartFailed(reason)
        handle = Handle(deployment=spec.deployment, digest=spec.digest, url=spec.url)
        self._handles[spec.deployment] = handle
        return handle

    async def probe(self, spec: Spec, handle: Handle) -> Health:
        return await probe(self._fetch, handle.url, spec, private=spec.private)

    async def stop(self, handle: Handle) -> None:
        self._handles.pop(handle.deployment, None)

    def ended(self, deployment: str, replica: int) -> Exit | None:
        """What runs elsewhere never ends for us; it only stops answering."""
        return None
