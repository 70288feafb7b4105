"""Runs that are there already, for whoever may read them: found live, ended or kept, and shown from any event on.

Only for the key that started the run, or another of its tenant; for everybody else there is no such run. Silence is
bridged by a comment line that is not a block of its own: after an `id:` line, readers exist that take a lone comment
block for an empty event and fail on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from fastapi import Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message

from base.health import Health
from base.ids import is_run_id
from ingress.credentials import allow
from ingress.errors import failure_of
from ingress.parts import Parts
from ingress.presence import sign_off
from ingress.sse import OVERDUE_S
from schemas.errors import Failure, HeadraceError, Unavailable
from schemas.frames import Frame
from schemas.ports import RunStatus, Watch
from schemas.records import ArchiveRecord, KeyRecord

Found = RunStatus | ArchiveRecord

_WAIT_S = 60.0  # one wait for a frame; the response pings by itself


@dataclass(frozen=True, slots=True)
class Look:
    """How events go out. frame: those of a frame that the reader has not. failure: one that is no frame's, told after
    so many events; an error after the first byte is an event."""

    frame: Callable[[Frame], Awaitable[Iterable[bytes]]]
    failure: Callable[[Failure, int], Awaitable[bytes]]


def caller_of(parts: Parts) -> Callable[[Request], Awaitable[KeyRecord]]:
    """A dependency that runs before parameters are judged: nobody learns anything without a key."""

    async def caller(request: Request) -> KeyRecord:
        parts.refuse_if_draining()
        return (await allow(dict(request.scope["headers"]), parts)).key

    return caller


async def find(parts: Parts, run: str, key: KeyRecord, *, deleted: bool = False) -> Found | None:
    """The run as it stands, else as the archive of the key's tenant has it; None for what is not there, not the
    key's, or deleted. deleted: one that was deleted is wanted too."""
    if not is_run_id(run):
        return None
    status = await parts.door.status(run)
    if status is not None:
        return status if belongs(status, key) and (deleted or not is_deleted(status)) else None
    return None if parts.archive is None else await parts.archive.find(key.tenant, run, parts.clock.now_ms())


def belongs(status: RunStatus, key: KeyRecord) -> bool:
    """Whether the run is this key's or its tenant's. A run that authorization has not judged yet has no tenant."""
    return status.key_id == key.key_id or (bool(status.tenant) and status.tenant == key.tenant)


def is_deleted(found: Found) -> bool:
    """Whether its client has deleted the answer."""
    return isinstance(found, RunStatus) and "deleted" in found.detail


async def show(parts: Parts, found: Found, after: int, look: Look) -> Response:
    """The run's events behind `after`, live or ended."""
    if isinstance(found, ArchiveRecord):
        return _respond(parts, events_behind(parts.door.replay(found, after), after, look, parts.health))
    if found.state == "ended" and after >= found.sequence:
        return _respond(parts, _nothing())
    watch, give_up = await parts.door.attach(found.run, after), _give_up_ms(found)
    events = events_behind(watch, after, look, parts.health, lambda: parts.clock.now_ms() >= give_up)
    return _respond(parts, events, watch)


def _give_up_ms(status: RunStatus) -> int:
    """When the run must have ended; 0 where nobody knows."""
    return int(status.detail.get("deadline", "0")) + round(OVERDUE_S * 1000)


class _Ping(ServerSentEvent):
    """A comment line without a blank line behind it."""

    def encode(self) -> bytes:
        return b": keep-alive\n"


def _respond(parts: Parts, events: AsyncIterator[bytes], watch: Watch | None = None) -> Response:
    async def gone(_: Message) -> None:
        if watch is not None:
            await sign_off(watch)

    return EventSourceResponse(
        events,
        headers={"cache-control": "no-cache"},
        ping=max(1, round(parts.settings.keep_alive)),
        sep="\n",
        ping_message_factory=_Ping,
        send_timeout=parts.settings.stall_limit,
        client_close_handler_callable=gone,
    )


async def events_behind(
    watch: Watch, after: int, look: Look, health: Health, late: Callable[[], bool] = lambda: True
) -> AsyncIterator[bytes]:
    """The events as they go out. late: whether the run must have ended; until then an outage of Redis is silence."""
    try:
        while True:
            frame = await _next(watch, late)
            if frame is None:
                continue
            after = max(after, frame.sequence)
            for event in await look.frame(frame):
                yield event
            if frame.terminal:
                return
    except HeadraceError as error:
        yield await look.failure(failure_of(error), after)
        await sign_off(watch)
    except GeneratorExit:  # a reader that took nothing was cut; when this process goes, the run is left to be read
        if not health.draining:
            await sign_off(watch)
        raise
    finally:
        watch.close()


async def _next(watch: Watch, late: Callable[[], bool]) -> Frame | None:
    try:
        return await watch.next(_WAIT_S)
    except Unavailable:
        if late():
            raise
        return None


async def _nothing() -> AsyncIterator[bytes]:
    """The events after the last one."""
    return
    yield
