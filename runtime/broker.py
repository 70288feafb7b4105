"""FastStream's side of the house: it declares the stages and owns their lifespan.

Only its public interface is used: a RedisBroker whose start() and stop() run our engines instead of its own loops, and
`broker.subscriber(stream, group)` on a stub typed with the event. The document of the streams is ours (asyncapi.py):
FastStream's knows no publishers and no stream without a group. What FastStream would do for us beyond that, and why it
doesn't, stands with figures in docs/why/faststream.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub

from runtime.address import Address
from runtime.app import Stage, Workers
from runtime.topology import Topology
from schemas.envelope import message_classes


class Declarations(RedisBroker):
    """Declares stages; starts and stops the engines that serve them."""

    def __init__(self, url: str, workers: Workers) -> None:
        super().__init__(url)
        self._workers = workers

    async def start(self) -> None:
        """Our engines, not FastStream's loops."""
        await self._workers.start()

    async def stop(self, *_: Any) -> None:
        await self._workers.stop()


def application(url: str, topology: Topology, workers: Workers, stages: list[Stage]) -> FastStream:
    """The worker application of this process: every stage declared, one lifespan. url: shown, never connected to."""
    broker = Declarations(_shown(url), workers)
    for stage in stages:
        declare(broker, topology, stage.group)
    return FastStream(broker)


def _shown(url: str) -> str:
    """FastStream reads the address of one server."""
    guarded = Address.parse(url).guarded
    return url if guarded is None else f"redis://{guarded.sentinels[0]}"


def declare(broker: RedisBroker, topology: Topology, group: str) -> None:
    """One group of streams.yaml as a FastStream subscriber, typed with what its stream carries."""
    name = topology.group_stream(group)
    stream = topology.streams[name]
    kinds = sorted({kind for said in stream.publishers.values() for kind in said})
    payload: Any = message_classes()[kinds[0]]
    for kind in kinds[1:]:
        payload = payload | message_classes()[kind]
    broker.subscriber(
        stream=StreamSub(stream.key, group=group, consumer="<process>"),
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
        title=f"{name} {group}",
        description=f"{stream.description} {stream.groups[group].description}",
    )(_stub(payload))


def _stub(payload: Any) -> Callable[[Any], None]:
    def handled_by_our_engine(event: Any) -> None:
        """Never called: the engine under the group calls the room's handler."""

    handled_by_our_engine.__annotations__ = {"event": payload, "return": None}
    return handled_by_our_engine
