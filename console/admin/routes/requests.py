"""/requests, the record of ended ones, and /trace, one run's timeline whether it lives or has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from base.ids import is_run_id
from base.settings import Section
from console.admin.parts import Given, Parts
from schemas.errors import Code, Refusal
from schemas.ports import RunStatus
from schemas.records import FactRecord, RequestRecord
from storage.access import OPERATOR
from storage.ports import Place, RequestFilter

routes = APIRouter()
_MOMENTS = ("accepted", "cleared", "claimed", "first", "ended")  # of a run, in their order


class Wanted(Section):
    """Which requests. after: `next` of the page before."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    outcome: str | None = None
    status: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: str = ""
    limit: int = 50


@routes.get("/requests")
async def list_requests(wanted: Annotated[Wanted, Query()], parts: Given) -> dict[str, Any]:
    """Newest first, a page at a time."""
    limit = min(max(wanted.limit, 1), 1000)
    chosen = RequestFilter(**wanted.model_dump(exclude={"after", "limit"}))
    page = await parts.store.requests.page(OPERATOR, chosen, after=_place(wanted.after), limit=limit)
    following = f"{page.next.ended_ms}:{page.next.run}" if page.next else None
    return {"data": [asdict(row) for row in page.rows], "next": following}


@routes.get("/requests/{run}")
async def show(run: str, parts: Given) -> dict[str, Any]:
    return asdict(await find_run(run, parts))


@routes.get("/trace/{run}")
async def trace(run: str, parts: Given) -> dict[str, Any]:
    """What happened to one run, in order: live from Redis, ended from the record."""
    live = await parts.runs.status(_run(run))
    record = await parts.store.requests.find(OPERATOR, run)
    facts = await parts.store.requests.facts(OPERATOR, run)
    if live is None and record is None and not facts:
        raise Refusal.of(Code.not_found, "No run has that id, or it has expired unrecorded.", param="run")
    return {
        "run": run,
        "state": "ended" if record is not None else (live.state if live else "ended"),
        "live": asdict(live) if live else None,
        "record": asdict(record) if record else None,
        "timeline": timeline(live, record, facts),
    }


@routes.post("/trace/{run}/cancel")
async def cancel(run: str, parts: Given) -> dict[str, Any]:
    """End a live run. cancelled false: it had ended, or is unknown."""
    return {"run": run, "cancelled": await parts.runs.cancel(_run(run), "operator")}


async def find_run(run: str, parts: Parts) -> RequestRecord:
    """The record of an ended run. Refusal(not_found)."""
    found = await parts.store.requests.find(OPERATOR, _run(run))
    if found is None:
        raise Refusal.of(
            Code.not_found, "No ended request has that id. `headrace trace` also shows live ones.", param="run"
        )
    return found


def timeline(live: RunStatus | None, record: RequestRecord | None, facts: Sequence[FactRecord]) -> list[dict[str, Any]]:
    """Every known moment of a run as {at_ms, event, detail}, in order. Pure."""
    times: dict[str, int] = dict(live.times) if live else {}
    found: list[dict[str, Any]] = []
    if record is not None:
        times |= {name: at for name in _MOMENTS if (at := getattr(record, f"{name}_ms"))}
    ordered = sorted(times, key=lambda name: _MOMENTS.index(name) if name in _MOMENTS else len(_MOMENTS))
    found += [{"at_ms": times[name], "event": name, "detail": ""} for name in ordered if times[name]]
    found += [{"at_ms": fact.at_ms, "event": f"fact {fact.kind}", "detail": fact.detail} for fact in facts]
    return sorted(found, key=lambda row: int(row["at_ms"]))


def _run(run: str) -> str:
    if not is_run_id(run):
        raise Refusal.of(
            Code.invalid_request, "That is not a run id; the header x-request-id of an answer has it.", param="run"
        )
    return run


def _place(after: str) -> Place | None:
    if not after:
        return None
    ended, _, run = after.partition(":")
    if not ended.isdecimal() or not is_run_id(run):
        raise Refusal.of(Code.invalid_request, "`after` must be `next` of the page before.", param="after")
    return Place(int(ended), run)
