"""Group `archive`: the answers that a client may ask for again, kept longer than Redis has them.

The script that ends a run marks its fact with `keep` when the run's acceptance asked for it and there is an answer to
keep. The frames are sealed for their place in their run, and are kept as they lie; of a body only what the guards let
through (inputs.py). Kept, committed, then let go in Redis, then acknowledged: killed anywhere, the same comes again and
changes nothing. A client that deletes its answer meanwhile leaves a mark in Redis, and then the copy goes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from base import logs, metrics
from base.clock import Clock
from schemas.envelope import VerifierPort
from schemas.frames import DATA, StoredFrame, pack
from schemas.outcomes import Delivery, Done, Outcome
from schemas.records import ArchiveRecord
from workers.audit.handlers import opened_or_outcome
from workers.audit.inputs import rewriting
from workers.audit.opening import Opened, open_fact
from workers.audit.ports import Held, Kept

log = logs.room("audit")

_KEEP = b"keep"
_MOST = 4_000_000  # bytes of frames in one transaction, and one answer more


class Archive:
    """One per process."""

    def __init__(
        self, verifier: VerifierPort, publishers: Mapping[str, list[str]], held: Held, kept: Kept, clock: Clock
    ) -> None:
        self._read = lambda delivery: open_fact(delivery, verifier, publishers)
        self._held, self._kept, self._clock = held, kept, clock

    async def handle(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Done for what is kept or not to be kept, Dead for what is not to be believed. Unavailable while PostgreSQL
        or Redis is away."""
        opened = [opened_or_outcome(self._read, item) if _KEEP in item.fields else Done() for item in deliveries]
        await self._keep([item for item in opened if isinstance(item, Opened)])
        return [Done() if isinstance(item, Opened) else item for item in opened]

    async def _keep(self, ended: Sequence[Opened]) -> None:
        """Some megabytes at a time: answers may be long."""
        records, size = [], 0
        for item in ended:
            found = await self._record(item)
            if found is not None:
                records.append(found)
                size += len(found.frames) + len(found.body)
            if size > _MOST:
                await self._write(records)
                records, size = [], 0
        await self._write(records)

    async def _record(self, opened: Opened) -> ArchiveRecord | None:
        frames = await self._held.frames(opened.run)
        if not frames or frames[-1].kind == DATA:
            await self._missing(opened)
            return None
        made = record(opened, frames, await self._body(opened))
        if made is None and opened.accepted is not None:  # nobody's: Redis need not have it longer than other runs
            await self._held.let_go(opened.run)
        return made

    async def _body(self, opened: Opened) -> bytes:
        """What is kept of the request, sealed."""
        if opened.accepted is None or not opened.accepted.keep_body:
            return b""
        try:
            return await self._held.body(opened.run, rewriting(opened))
        except (LookupError, ValueError, TypeError):
            log.error("an input is not kept: an edit does not fit it", run=opened.run)
            return b""

    async def _missing(self, opened: Opened) -> None:
        """Nothing to keep: deleted, perhaps after an earlier try had kept it, or lost."""
        if await self._held.let_go(opened.run):
            log.warning("an answer was to be kept, but its frames are gone", run=opened.run)
        elif opened.grant is not None:
            await self._kept.forget(opened.grant.tenant, opened.run)

    async def _write(self, records: Sequence[ArchiveRecord]) -> None:
        if not records:
            return
        new = await self._kept.keep(records, self._clock.now_ms())
        metrics.inc("headrace_audit_written_total", len(new), table="archives")
        for item in records:
            if not await self._held.let_go(item.run):
                await self._kept.forget(item.tenant, item.run)


def record(opened: Opened, frames: Sequence[StoredFrame], body: bytes = b"") -> ArchiveRecord | None:
    """The row of an answer; None when nobody can prove whose it is, or that it is to be kept. body: what is kept of
    the request, sealed."""
    accepted, grant = opened.accepted, opened.grant
    if accepted is None or grant is None or not accepted.keep_ms:
        return None
    ended = opened.times.ended or opened.envelope.at_ms
    return ArchiveRecord(
        run=opened.run,
        tenant=grant.tenant,
        key_id=grant.key_id,
        once=accepted.once,
        asked=accepted.asked,
        stream=accepted.stream,
        frames=pack(frames),
        ended_ms=ended,
        expires_ms=ended + accepted.keep_ms,
        route=accepted.route,
        background=accepted.background,
        accepted_ms=opened.times.accepted,
        body=body,
    )
