"""The only wiring of this room.

RequestCompleted, RequestFailed, RequestRefused, RequestCancelled
    ->  handlers.Audit.handle    group audit, in batches
    ->  handlers.Ledger.handle   group ledger, in batches
    ->  archive.Archive.handle   group archive, in batches
"""

from __future__ import annotations

from base.crypto import Verifier
from runtime.app import Context, Stage
from runtime.keeping import Keeping
from schemas.ports import Keys, Limits
from workers.audit.archive import Archive
from workers.audit.batches import Batches
from workers.audit.handlers import Audit, Ledger
from workers.audit.ports import Kept, Record
from workers.audit.settings import AuditSettings


def build(
    context: Context, record: Record, kept: Kept, keys: Keys, limits: Limits, settings: AuditSettings
) -> list[Stage]:
    """The room's stages over the process's record and archive (storage.ports.Store.requests, .archive), keys and limits
    (state.shared.Shared)."""
    verifier = Verifier(context.ring)
    publishers = context.topology.streams["facts"].publishers
    batches = Batches(record, context.clock, settings.linger_ms / 1000)
    audit = Audit(verifier, publishers, batches, settings.price_list(), context.clock)
    ledger = Ledger(verifier, publishers, keys, limits)
    keeping = Keeping(context.runs, context.scripts, context.seals("audit"))
    archive = Archive(verifier, publishers, keeping, kept, context.clock)
    return [
        Stage(group="audit", handler=audit.handle),
        Stage(group="ledger", handler=ledger.handle),
        Stage(group="archive", handler=archive.handle),
    ]
