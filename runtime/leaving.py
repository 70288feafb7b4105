"""Ending a run from outside: somebody cancels it, or nobody watches it any more. For doors and for the sweeper."""

from __future__ import annotations

from runtime.runs import Runs
from runtime.scripts import Scripts
from runtime.seals import Seals
from schemas.errors import Code, Failure
from schemas.events import RequestCancelled

CANCELLED = Failure(
    code=Code.cancelled, message="The request was cancelled before it was answered.", should_retry=False
)
_TRIES = 3  # a run that moves on between two steps is asked again


async def cancel_run(scripts: Scripts, runs: Runs, seals: Seals, run: str, by: str, *, unwatched: bool) -> str:
    """Flag a running run, end a waiting one. by: client | lost | operator. unwatched: only while nobody watches it.

    Returns flagged (its owner stops) | cancelled (ended here) | ended | gone | watched | moving (ask again)."""
    for _ in range(_TRIES):
        state = await scripts.cancel(run, by, unwatched=unwatched)
        if state in ("flagged", "gone", "ended", "watched"):
            return state
        fields = await runs.fields(run)
        if not fields:
            return "gone"
        epoch, sequence = int(fields["epoch"]), int(fields["seq"])
        frame = seals.error(run, epoch, sequence + 1, CANCELLED)
        ending = seals.ending(RequestCancelled(run=run, by=by), epoch)
        guard, value = ("unwatched", "") if unwatched else ("state", state)
        if await scripts.end(run, guard, value, f"{epoch}-{sequence}", frame, ending) == "ok":
            return "cancelled"
    return "moving"
