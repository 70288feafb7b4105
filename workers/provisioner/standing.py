"""How a deployment stands, from its replicas. Pure.

wanted     replicas                              the deployment is
stopping   some are left                         stopping, and why
stopping   none is left                          stopped
none       -                                     paused
some       one answers                           ready, and which others do not
some       all ended by themselves               stopped when all ended well, else failed
some       none answers, one failed or crashed   failed, with its reason
some       none answers                          starting
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import DeploymentRecord, ReplicaRecord
from workers.provisioner.rules import Mark
from workers.provisioner.states import (
    CRASHED,
    DRAINING,
    FAILED,
    PAUSED,
    READY,
    RESTING,
    STARTING,
    STOPPED,
    STOPPING,
)
from workers.provisioner.wishes import wanted


def standing(record: DeploymentRecord, rows: Sequence[ReplicaRecord], left: bool) -> Mark | None:
    """The state to write for a deployment, None = leave it. rows: of its replicas, by number. left: something runs."""
    if record.state == STOPPED:
        return None
    if record.state == STOPPING:
        return Mark(STOPPING, draining(rows) or record.reason) if rows or left else Mark(STOPPED, "stopped by command")
    if not record.replicas:
        return Mark(PAUSED, draining(rows) or "scaled to 0 replicas")
    serving = [row for row in rows if row.replica in wanted(record)]
    return _serving(record, serving) if serving else None


def _serving(record: DeploymentRecord, rows: Sequence[ReplicaRecord]) -> Mark:
    reason = next((told(record, row) for row in rows if row.state != READY), "")
    if any(row.state == READY for row in rows):
        ready = ready_of(record, rows)
        complete = ready == record.replicas
        of = f"{ready} of {record.replicas} replicas are ready"
        return Mark(READY, "" if complete else f"{of}; {reason}" if reason else of)
    broken = next((row for row in rows if row.state in (FAILED, CRASHED)), None)
    if len(rows) == record.replicas and all(row.state in RESTING for row in rows):
        return Mark(FAILED, told(record, broken)) if broken else Mark(STOPPED, reason)
    return Mark(FAILED, told(record, broken)) if broken else Mark(STARTING, reason)


def ready_of(record: DeploymentRecord, rows: Sequence[ReplicaRecord]) -> int:
    """How many engines of the present wish answer."""
    return sum(row.state == READY and row.command_id == record.command_id for row in rows)


def draining(rows: Sequence[ReplicaRecord]) -> str:
    """What is waited for, "" = nothing."""
    return "; ".join(f"replica {row.replica} drains: {row.reason}" for row in rows if row.state == DRAINING)


def told(record: DeploymentRecord, row: ReplicaRecord) -> str:
    """A replica's reason, with its number where there are several."""
    reason = row.reason or row.state
    return reason if record.replicas == 1 else f"replica {row.replica}: {reason}"
