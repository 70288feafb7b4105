"""The only wiring of the router.

event            handler
RequestCleared   Router.handle, one task for each run, the run claimed before it (runtime.lease.Leases)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from base.clock import Clock
from providers.ports import Transport
from runtime.app import Stage
from schemas.envelope import VerifierPort
from schemas.ports import Catalog
from schemas.routes import MODERATIONS_POOL
from workers.router.call import Caller
from workers.router.handlers import Needs, Router
from workers.router.pools import Pools
from workers.router.ports import Credentials
from workers.router.rules import OWN_PLACES, RetryWindow, Seat, strategy_of
from workers.router.settings import RouterSettings
from workers.router.strategies import STRATEGIES


def make_router(
    settings: RouterSettings,
    transport: Transport,
    catalog: Catalog,
    credentials: Credentials,
    verifier: VerifierPort,
    clock: Clock,
) -> Router:
    """The router of one process. The transport is the caller's to close, after the router's stage has stopped."""
    return Router(
        Needs(
            caller=Caller(transport, credentials, settings, clock),
            catalog=catalog,
            verifier=verifier,
            clock=clock,
            pools=Pools(strategy_of(settings.strategies, settings.strategy, STRATEGIES), clock),
            retries=RetryWindow(settings.retry_share, settings.retry_floor, settings.retry_window_s),
            attempts=settings.attempts,
        )
    )


def router_stage(router: Router, catalog: Catalog, pools: Callable[[], Sequence[str]]) -> Stage:
    """The stage of a router. pools: those that exist now; what it can take of each is announced to the gate."""

    async def capacities() -> dict[str, int]:
        return {pool: await capacity(pool) for pool in pools()}

    async def capacity(pool: str) -> int:
        return OWN_PLACES if pool == MODERATIONS_POOL else router.pools.capacity(await catalog.endpoints(pool))

    def seated(place: int, routers: int) -> None:
        router.pools.seat = Seat(max(place, 0), max(routers, 1))

    return Stage(group="router", run_handler=router.handle, pools=pools, capacities=capacities, seated=seated)
