"""The only wiring of the router.

event            handler
RequestCleared   Router.handle, one task for each run, claimed before it or beside it (runtime.leases.Leases)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from base.clock import Clock
from base.ids import Random
from policy.prices import Price
from providers.ports import Transport
from runtime.app import Stage
from schemas.envelope import VerifierPort
from schemas.ports import Catalog
from schemas.routes import MODERATIONS_POOL
from workers.router.call import Caller
from workers.router.handlers import Needs, Router
from workers.router.health import Health, Peers
from workers.router.pools import Pools
from workers.router.ports import Credentials
from workers.router.rules import OWN_PLACES, RetryWindow, Seat, price_of_endpoint
from workers.router.settings import RouterSettings


def make_router(
    settings: RouterSettings,
    transport: Transport,
    catalog: Catalog,
    credentials: Credentials,
    verifier: VerifierPort,
    clock: Clock,
    chance: Random,
    peers: Peers,
    prices: Sequence[Price] = (),
) -> Router:
    """The router of one process. The transport is the caller's to close, after the router's stage has stopped; the
    caller also lets it `share` every SHARE_S. prices: the price list, for strategy cost."""
    pools = make_pools(settings, clock, chance, prices)
    return Router(
        Needs(
            caller=Caller(transport, credentials, settings, clock),
            catalog=catalog,
            verifier=verifier,
            clock=clock,
            pools=pools,
            health=Health(pools, peers, settings.breaker.limits(), clock),
            retries=RetryWindow(settings.retry_share, settings.retry_floor, settings.retry_window_s),
            attempts=settings.attempts,
            continuations=settings.continuations,
            early=settings.early,
        )
    )


def router_stage(router: Router, catalog: Catalog, pools: Callable[[], Sequence[str]]) -> Stage:
    """The stage of a router. pools: those that exist now; what it can take of each is announced to the gate."""

    async def capacities() -> dict[str, int]:
        return {pool: await capacity(pool) for pool in pools()}

    async def capacity(pool: str) -> int:
        return OWN_PLACES if pool == MODERATIONS_POOL else router.pools.capacity(pool, await catalog.endpoints(pool))

    def seated(place: int, routers: int) -> None:
        router.pools.seat = Seat(max(place, 0), max(routers, 1))

    return Stage(group="router", run_handler=router.handle, pools=pools, capacities=capacities, seated=seated)


def make_pools(settings: RouterSettings, clock: Clock, chance: Random, prices: Sequence[Price] = ()) -> Pools:
    """The slots by themselves: also for whoever wants to know what a router would choose."""
    named = [Price(model=name, prompt=micros, completion=micros) for name, micros in settings.prices.items()]
    return Pools(
        lambda pool: settings.strategies.get(pool, settings.strategy),
        lambda endpoint: price_of_endpoint(endpoint, named, prices),
        settings.slow_after_s,
        clock,
        chance,
    )
