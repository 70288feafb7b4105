"""/requests, the record of ended ones, and /trace, one run's timeline whether it lives or has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from msgspec import structs

from base.ids import is_run_id
from base.settings import Section
from console.admin.parts import Given, Parts
from console.admin.shapes import Shape, like, listed
from ingress.documents.openapi import answer, fails, operation
from schemas.errors import Code, Refusal
from schemas.events import RequestAccepted
from schemas.ports import RunStatus
from schemas.records import FactRecord, RequestRecord
from storage.access import OPERATOR
from storage.ports import Place, RequestFilter

routes = APIRouter(tags=["requests"])
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


_RUN = "01a1fcc2-5e9b-7000-8d34-8839179968b9"
RunId = Annotated[str, Path(description="`x-request-id` of an answer.", examples=[_RUN])]
Request = like("Request", RequestRecord)
Acceptance = like("RequestAccepted", RequestAccepted)
LiveRun = like("LiveRun", RunStatus, accepted=Acceptance | None)


Page = listed(Request, next=str | None)


class Moment(Shape):
    """Something that happened to a run. at_ms: milliseconds since the epoch, Redis's clock."""

    at_ms: int
    event: str
    detail: Any


class Trace(Shape):
    """A run's life. live: as Redis has it, record: as PostgreSQL has it; null where it is not."""

    run: str
    state: str
    live: LiveRun | None  # type: ignore[valid-type]
    record: Request | None  # type: ignore[valid-type]
    timeline: list[Moment]


class Cancelled(Shape):
    """Whether this ended it."""

    run: str
    cancelled: bool


_REQUEST: dict[str, Any] = {
    "run": _RUN,
    "tenant": "default",
    "key_id": "71208818d7d76c52",
    "route": "/v1/chat/completions",
    "model": "smollm2",
    "endpoint": "smollm2",
    "stream": True,
    "status": 200,
    "outcome": "completed",
    "code": "",
    "prompt_tokens": 11,
    "completion_tokens": 30,
    "cached_tokens": 0,
    "estimated": False,
    "cost_micros": 0,
    "events": 32,
    "ttft_ms": 131,
    "duration_ms": 270,
    "accepted_ms": 1_760_000_000_000,
    "cleared_ms": 1_760_000_000_008,
    "claimed_ms": 1_760_000_000_009,
    "first_ms": 1_760_000_000_131,
    "ended_ms": 1_760_000_000_270,
    "attempt": 1,
    "client_request_id": "",
    "verdicts": [
        {"family": "rules", "outcome": "pass", "policy": "1a2b3c4d", "took_us": 180, "found": {}, "edits": {}}
    ],
    "attempts": [{"endpoint": "smollm2", "started_ms": 1, "ended_ms": 261, "outcome": "ok", "status": 200}],
    "finish_reason": "stop",
    "unverified": [],
}
_TRACE = {
    "run": _RUN,
    "state": "ended",
    "live": None,
    "record": _REQUEST,
    "timeline": [{"at_ms": 1_760_000_000_000, "event": "accepted", "detail": ""}],
}


@routes.get(
    "/requests",
    response_model=Page,
    summary="List ended requests",
    openapi_extra=operation(answer({"data": [_REQUEST], "next": None})),
)
async def list_requests(wanted: Annotated[Wanted, Query()], parts: Given) -> dict[str, Any]:
    """Newest first, a page at a time: `next` is `after` of the next page, null on the last one."""
    limit = min(max(wanted.limit, 1), 1000)
    chosen = RequestFilter(**wanted.model_dump(exclude={"after", "limit"}))
    page = await parts.store.requests.page(OPERATOR, chosen, after=_place(wanted.after), limit=limit)
    following = f"{page.next.ended_ms}:{page.next.run}" if page.next else None
    return {"data": [structs.asdict(row) for row in page.rows], "next": following}


@routes.get(
    "/requests/{run}",
    response_model=Request,
    summary="Show an ended request",
    openapi_extra=operation(answer(_REQUEST), fails(Code.not_found)),
)
async def show(run: RunId, parts: Given) -> dict[str, Any]:
    """Its record: tokens, cost, times, verdicts, attempts; never its text."""
    return structs.asdict(await find_run(run, parts))


@routes.get(
    "/trace/{run}",
    response_model=Trace,
    summary="Trace a run",
    openapi_extra=operation(answer(_TRACE), fails(Code.not_found)),
)
async def trace(run: RunId, parts: Given) -> dict[str, Any]:
    """What happened to one run, in order: live from Redis, ended from the record."""
    live = await parts.runs.status(_run(run))
    record = await parts.store.requests.find(OPERATOR, run)
    facts = await parts.store.requests.facts(OPERATOR, run)
    if live is None and record is None and not facts:
        raise Refusal.of(Code.not_found, "No run has that id, or it has expired unrecorded.", param="run")
    return {
        "run": run,
        "state": "ended" if record is not None else (live.state if live else "ended"),
        "live": _shown(live) if live else None,
        "record": structs.asdict(record) if record else None,
        "timeline": timeline(live, record, facts),
    }


@routes.post(
    "/trace/{run}/cancel",
    response_model=Cancelled,
    summary="Cancel a run",
    openapi_extra=operation(answer({"run": _RUN, "cancelled": True})),
)
async def cancel(run: RunId, parts: Given) -> dict[str, Any]:
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


def _shown(live: RunStatus) -> dict[str, Any]:
    return asdict(live) | {"accepted": structs.asdict(live.accepted) if live.accepted else None}
