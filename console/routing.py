"""What a router would choose now, for an operator: the routers' own rules over what they share of one model's pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from base.clock import Clock
from base.ids import Random
from policy.prices import Price
from runtime.app import Context
from schemas.errors import Code, Refusal
from schemas.ports import Catalog
from state.breaker import RedisBreakers
from state.inflight import Use
from state.latency import RedisLatencies
from workers.router.app import make_pools
from workers.router.choice import Place
from workers.router.health import Peers
from workers.router.settings import RouterSettings


class Inflight(Protocol):
    """What routers have at an endpoint: state/inflight.py."""

    async def use(self, endpoint: str, since_ms: int) -> Use: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingView:
    """Over the catalog and the routers' shared state. What they have in flight is a second old or two."""

    catalog: Catalog
    peers: Peers
    inflight: Inflight
    settings: RouterSettings
    prices: tuple[Price, ...]
    clock: Clock
    chance: Random

    async def now(self, name: str) -> dict[str, Any]:
        """The choice for a model, as if one router had all slots. Refusal(not_found)."""
        model = await self.catalog.model(name)
        if model is None:
            text = f"There is no model {name[:128]!r}. `headrace models list` shows all."
            raise Refusal.of(Code.not_found, text, param="model")
        endpoints = await self.catalog.endpoints(model.pool)
        pools = make_pools(self.settings, self.clock, self.chance, self.prices)
        pools.heard(await self.peers.breakers.look(), await self.peers.latencies.exchange({}))
        for place in pools.places(model.pool, endpoints):
            place.in_use = (await self.inflight.use(place.name, 0)).requests
        found = pools.pick(model.pool, endpoints, frozenset())
        chosen = found if isinstance(found, Place) else None
        why = msgspec.to_builtins(pools.explain(model.pool, endpoints, frozenset(), chosen, len(endpoints)))
        return {"model": name, "endpoint": chosen.name if chosen else "", "why": why}


def make_peers(context: Context, settings: RouterSettings) -> Peers:
    """What the routers share, as any process sees it."""
    return Peers(
        breakers=RedisBreakers(context.redis, context.clock, settings.breaker.limits()),
        latencies=RedisLatencies(context.redis, context.clock),
    )
