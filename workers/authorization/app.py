"""The only wiring of this room.

RequestAccepted  ->  handlers.Authorization.handle   group authorization, in batches
"""

from __future__ import annotations

from runtime.app import Context, Stage
from schemas.ports import Catalog, Keys, Limits
from workers.authorization.handlers import Authorization
from workers.authorization.rules import FAMILY, FailPolicy, closed
from workers.authorization.settings import AuthorizationSettings


def build(
    context: Context,
    keys: Keys,
    catalog: Catalog,
    limits: Limits,
    settings: AuthorizationSettings,
    fail_policy: FailPolicy = closed,
) -> list[Stage]:
    """The room's stages over the process's shared state (state.shared.Shared)."""
    room = Authorization(keys, catalog, limits, context.clock, settings, fail_policy)
    return [Stage(group=FAMILY, handler=room.handle)]
