"""What the door is made of. Everything comes in from outside; nothing here connects on import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from base.clock import Clock
from base.health import Health
from ingress.settings import ServerSettings
from ingress.stalls import Stalls
from policy.api_keys import Ring
from policy.durability import StrictRuns
from schemas.errors import Code, Refusal
from schemas.ports import Archive, Catalog, Door, Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """name: this ingress process, unique; it is the Door's too. families, topology: from streams.yaml, stamped into
    every RequestAccepted. strict: which runs wait for the disk. asyncapi: makes the document of the streams.
    archive: where answers are kept after their frames are gone."""

    name: str
    settings: ServerSettings
    door: Door
    keys: Keys
    catalog: Catalog
    ring: Ring
    clock: Clock
    health: Health
    stalls: Stalls
    families: tuple[str, ...]
    topology: int = 1
    strict: StrictRuns = field(default_factory=StrictRuns)
    asyncapi: Callable[[], bytes]
    archive: Archive | None = None

    def refuse_if_draining(self) -> None:
        """Refusal(draining) once this process is going away."""
        if self.health.draining:
            raise Refusal.of(
                Code.draining,
                "This gateway process is shutting down; send the request again, another one answers.",
            )
