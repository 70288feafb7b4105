"""Which runs are accepted only once they are on disk. A request may ask for it, nobody can ask for less."""

from __future__ import annotations

from dataclasses import dataclass

from policy.patterns import any_matches


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictRuns:
    """What the operator decided. models, keys: names or patterns with `*`; lanes: interactive, batch."""

    lanes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def covers_any(self) -> bool:
        """Whether anything at all was decided."""
        return bool(self.lanes or self.models or self.keys)

    def covers(self, key_id: str, model: str) -> bool:
        """Whether the key or the model alone decides it."""
        return any_matches(self.keys, key_id) or any_matches(self.models, model)

    def covers_lane(self, lane: str) -> bool:
        """Whether the lane of the caller's key does."""
        return lane in self.lanes
