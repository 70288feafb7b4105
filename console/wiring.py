"""How each room is opened in a process: name -> function. Every function adds its stages and steps to the House.

ingress        the door: HTTP in, frames out          authorization, rules, persons   who must answer
router         engines                                audit                           record, ledger, archive
provisioner    deployments                            console                         the admin API
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from base import metrics
from base.credentials import open_credential
from base.crypto import CryptoError, Sealer, Verifier
from console.admin.serve import open_room as open_admin
from console.rooms import House, repeat
from console.routing import make_peers
from console.stack import room_of
from console.status import count_serving
from console.traffic import Reporter
from ingress.app import Ingress
from ingress.parts import Parts
from ingress.serve import IngressServer
from ingress.stalls import Stalls
from providers.httptools_transport import HttptoolsTransport
from runtime.asyncapi import document
from runtime.disk import Later, Strict
from runtime.door import StreamDoor
from runtime.inspect import Inspector
from runtime.names import prefix, push_channel
from runtime.tidy import forget_dead
from schemas.records import EndpointRecord
from workers.audit.app import build as build_audit
from workers.authorization.app import build as build_authorization
from workers.guardrails.app import build as build_guardrails
from workers.guardrails.policy import Policies
from workers.provisioner.app import build as build_provisioner
from workers.router.app import make_router, router_stage
from workers.router.handlers import Router
from workers.router.health import SHARE_S

_DOOR_BEAT_S = 5.0
_GAUGES_S = 5.0
_TIDY_S = 300.0
_REPORT_S = 1.0


async def _authorization(house: House) -> None:
    shared, policies = house.shared, Policies(house.settings.guardrails)

    def fail_policy(model: str, key_id: str, family: str) -> str:
        """The guardrails' policy says what a missing verdict means; authorization writes it into the grant."""
        return policies.find(model, key_id).families[family].fail

    house.stages += build_authorization(
        house.context, shared.keys, shared.catalog, shared.limits, house.settings.authorization, fail_policy
    )


def _guardrails(family: str) -> Callable[[House], Awaitable[None]]:
    async def opened(house: House) -> None:
        room = build_guardrails(house.context, house.settings.guardrails, [family])
        house.stages += room.stages
        house.stops.add(f"{family} scanners", room.stop, 5.0)

    return opened


class RingCredentials:
    """Opens provider keys for the router. Implements workers.router.ports.Credentials."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def reveal(self, endpoint: EndpointRecord) -> str:
        """See workers.router.ports.Credentials."""
        try:
            return open_credential(self._sealer, endpoint.deployment, endpoint.credential)
        except CryptoError as error:
            raise ValueError(str(error)) from None


async def _router(house: House) -> None:
    c = house.context
    transport = HttptoolsTransport(c.clock)
    house.stops.add("upstream connections", transport.close, 5.0)
    credentials = RingCredentials(Sealer(c.ring, c.chance))
    router = make_router(
        house.settings.router,
        transport,
        house.shared.catalog,
        credentials,
        Verifier(c.ring),
        c.clock,
        c.chance,
        make_peers(c, house.settings.router),
        house.settings.audit.price_list(),
    )
    house.after.append(_sharing(house, router))
    reporter = Reporter(house.shared.inflight, house.shared.catalog, c.consumer, router.used)
    house.stages.append(router_stage(router, house.shared.catalog, lambda: house.pools))

    async def start() -> None:
        """Before the stage begins and until it has ended: no endpoint is used that nobody has reported on."""
        house.stops.add("reports on endpoints", reporter.leave, 2.0)
        await reporter.report()
        repeat(house, _REPORT_S, reporter.report)

    house.before.append(start)


def _sharing(house: House, router: Router) -> Callable[[], Awaitable[None]]:
    """Routers tell each other what they found out, every second."""

    async def start() -> None:
        repeat(house, SHARE_S, router.share)

    return start


def make_door(house: House, publisher: str, disk: Strict | None = None) -> StreamDoor:
    """A door of this process; without `open_door` it can ask and cancel, but hears no frames. disk: for strict runs."""
    c = house.context
    return StreamDoor(
        c.consumer,
        c.partitions,
        c.scripts,
        c.runs,
        c.seals(publisher),
        c.clock,
        c.chance,
        house.settings.runs.bounds(),
        house.store.archive,
        disk,
    )


async def open_door(house: House, door: StreamDoor) -> None:
    """Hear frames, and tell the sweeper that this door lives."""
    c = house.context
    channels = [push_channel(prefix(n), door.name) for n in range(c.partitions)]
    await c.push.listen(channels, door.hub.hear, door.hub.missed)
    await door.beat(c.redis)
    repeat(house, _DOOR_BEAT_S, lambda: door.beat(c.redis))


async def _ingress(house: House) -> None:
    c, settings = house.context, house.settings.server
    strict = house.settings.runs.strict
    disk = Later(lambda: c.disk(strict), lambda: c.redis.losses)
    if strict.is_asked:
        await disk.look()
    house.stops.add("strict runs", disk.close, 2.0)
    door = make_door(house, "ingress", disk)
    parts = Parts(
        name=door.name,
        settings=settings,
        door=door,
        keys=house.shared.keys,
        catalog=house.shared.catalog,
        ring=c.ring,
        clock=c.clock,
        health=house.health,
        stalls=Stalls(c.clock, settings.stall_limit),
        families=tuple(c.topology.families),
        topology=c.topology.version,
        strict=strict.rule(),
        asyncapi=lambda: document(c.topology),
        archive=house.store.archive,
    )
    server = IngressServer(Ingress(parts), settings, house.health, c.clock)

    async def start() -> None:
        await open_door(house, door)
        await server.start()
        house.addresses["ingress"] = f"http://{settings.host}:{server.port}"
        house.stops.add("door", server.stop, settings.drain_delay + settings.drain_limit + 5.0)

    house.after.append(start)


async def _audit(house: House) -> None:
    c, store, shared = house.context, house.store, house.shared
    house.stages += build_audit(c, store.requests, store.archive, shared.keys, shared.limits, house.settings.audit)

    async def sweep() -> None:
        await store.archive.sweep(c.clock.now_ms())

    async def start() -> None:
        repeat(house, house.settings.audit.sweep_s, sweep)

    house.after.append(start)


async def _provisioner(house: House) -> None:
    transport = HttptoolsTransport(house.context.clock)
    house.stops.add("probes", transport.close, 5.0)
    room = build_provisioner(
        house.context,
        house.store.deployments,
        house.shared.catalog,
        house.shared.inflight,
        transport,
        house.settings.data.directory,
        house.settings.provisioner,
    )
    house.stages += room.stages

    async def start() -> None:
        await room.start()
        house.stops.add("reconciler", room.stop, 5.0)

    house.after.append(start)


async def _console(house: House) -> None:
    await open_admin(house, make_door(house, "console"))
    _watch_streams(house)


def _watch_streams(house: House) -> None:
    """The operator's gauges, from the process that has the admin API."""
    c = house.context
    eyes = Inspector(c.redis, c.topology, c.partitions)

    async def look() -> None:
        for seen in await eyes.lags():
            place = {"stream": seen.stream, "group": seen.group}
            metrics.gauge("headrace_stream_length", seen.length, stream=seen.stream)
            metrics.gauge("headrace_stream_lag", seen.lag, **place)
            metrics.gauge("headrace_stream_pending", seen.pending, **place)
            metrics.gauge("headrace_stream_waiting", seen.waiting, **place)
            metrics.gauge("headrace_stream_oldest_pending_seconds", seen.oldest_ms / 1000, **place)
        processes = await house.shared.processes.list()
        for group in [name for stream in c.topology.streams.values() for name in stream.groups]:
            metrics.gauge("headrace_group_consumers", count_serving(processes, room_of(group)), group=group)
        metrics.gauge("headrace_inflight", await eyes.live(), partition="all")
        metrics.gauge("headrace_dlq_length", await eyes.dead(), partition="all")

    async def tidy() -> None:
        alive = {process.consumer for process in await house.shared.processes.list()}
        await forget_dead(eyes, c.scripts, alive)

    async def start() -> None:
        repeat(house, _GAUGES_S, look)
        repeat(house, _TIDY_S, tidy)

    house.after.append(start)


#: Every room by the name that `processes:` uses.
ROOMS: Mapping[str, Callable[[House], Awaitable[None]]] = {
    "ingress": _ingress,
    "authorization": _authorization,
    "rules": _guardrails("rules"),
    "persons": _guardrails("persons"),
    "router": _router,
    "audit": _audit,
    "provisioner": _provisioner,
    "console": _console,
}
