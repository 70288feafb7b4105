"""What is written down about an ended run, and what is given back for it. Values in, values out.

No text of a client, a model or an engine gets into a row: an error leaves its code, never its message; a verdict its
outcome and counts. Names that others chose (models, ids) are cut, and freed of what PostgreSQL can't hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from policy.prices import Price, cost_micros, price_of
from policy.quotas import scopes_of
from schemas.errors import STATUS, Code, Failure, status_of
from schemas.events import (
    Attempt,
    Choice,
    FactTimes,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestFailed,
    RequestRefused,
    Terminal,
    Usage,
)
from schemas.records import FactRecord, KeyRecord, RequestRecord
from schemas.verdicts import Verdict
from workers.audit.opening import Holder, Opened

_OUTCOMES: dict[type[Any], str] = {
    RequestCompleted: "completed",
    RequestFailed: "failed",
    RequestRefused: "refused",
    RequestCancelled: "cancelled",
}
_LONGEST = 256  # characters of a name
_MOST = 2**63 - 1  # bigint
_MOST_INT = 2**31 - 1  # integer
_NOTHING = Usage()
_MOST_SEEN = 16  # endpoints of one choice


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Reservations to free: limits.settle(tenant, run, scopes)."""

    tenant: str
    run: str
    scopes: tuple[str, ...]


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine did for the run; refusals never reached one."""

    endpoint: str = ""
    model: str = ""
    usage: Usage = _NOTHING
    events: int = 0
    ttft_ms: int = 0
    attempts: tuple[Attempt, ...] = ()
    finish_reason: str = ""


def rows(opened: Opened, prices: Sequence[Price]) -> tuple[FactRecord, RequestRecord]:
    """The fact's row and the request's row."""
    request = request_row(opened, prices)
    return fact_row(opened, request), request


def fact_row(opened: Opened, request: RequestRecord) -> FactRecord:
    """The fact as it came, once per (run, kind, attempt)."""
    return FactRecord(
        run=request.run,
        kind=opened.envelope.type,
        attempt=request.attempt,
        tenant=request.tenant,
        by=opened.envelope.by,
        at_ms=request.ended_ms,
        detail={"outcome": request.outcome, "code": request.code, "status": request.status, "events": request.events},
    )


def request_row(opened: Opened, prices: Sequence[Price]) -> RequestRecord:
    """The row of a run. Where the acceptance is not proven, what only it knew is blank."""
    accepted, grant, times = opened.accepted, opened.grant, opened.times
    work, ended = _work(opened.fact), opened.times.ended or opened.envelope.at_ms
    usage, model = _usage(work.usage), _model(accepted, work)
    status, code = _result(opened.fact)
    return RequestRecord(
        run=opened.run,
        tenant=grant.tenant if grant else "",
        key_id=name(grant.key_id if grant else accepted.key_id if accepted else ""),
        route=name(accepted.route if accepted else ""),
        model=model,
        endpoint=name(work.endpoint),
        stream=accepted.stream if accepted else False,
        status=status,
        outcome=_OUTCOMES[type(opened.fact)],
        code=code,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        estimated=usage.estimated,
        cost_micros=min(cost_micros(price_of(prices, model), usage), _MOST),
        events=whole(work.events),
        ttft_ms=_ttft(times, work),
        duration_ms=max(ended - times.accepted, 0) if times.accepted else 0,
        accepted_ms=times.accepted,
        cleared_ms=times.cleared,
        claimed_ms=times.claimed,
        first_ms=times.first,
        ended_ms=ended,
        attempt=whole(opened.envelope.attempt, _MOST_INT),
        client_request_id=name(accepted.client_request_id if accepted else ""),
        verdicts=[_summary(opened.verdicts[family]) for family in sorted(opened.verdicts)],
        attempts=[_attempt(item) for item in work.attempts],
        finish_reason=name(work.finish_reason),
        unverified=opened.unverified,
    )


def may_hold(holder: Holder) -> bool:
    """Whether there may be something to give back."""
    return bool(holder.key_id or (holder.grant and holder.grant.scopes))


def settlement(holder: Holder, key: KeyRecord | None) -> Settlement | None:
    """What the ledger gives back; None when nothing was held, or nobody can prove whose it was (it expires then).

    key: of a run that ended before authorization had spoken: what it reserves then, before or after, is given back."""
    grant = holder.grant
    tenant, scopes = (grant.tenant, grant.scopes) if grant else ("", ())
    if key is not None:
        tenant, scopes = key.tenant, tuple(scope.name for scope in scopes_of(key))
    return Settlement(tenant=tenant, run=holder.run, scopes=scopes) if scopes else None


def name(text: str) -> str:
    """At most 256 characters, without NUL, which PostgreSQL refuses."""
    return text if len(text) <= _LONGEST and "\x00" not in text else text[:_LONGEST].replace("\x00", "")


def whole(number: int, most: int = _MOST) -> int:
    """A count that fits its column."""
    return number if 0 <= number <= most else min(max(number, 0), most)


def _work(fact: Terminal) -> _Work:
    if isinstance(fact, RequestRefused):
        return _Work()
    return _Work(
        endpoint=fact.endpoint,
        model=fact.model,
        usage=fact.usage or _NOTHING,
        events=fact.events,
        ttft_ms=fact.ttft_ms,
        attempts=fact.attempts,
        finish_reason=fact.finish_reason if isinstance(fact, RequestCompleted) else "",
    )


def _model(accepted: RequestAccepted | None, work: _Work) -> str:
    """The name the client asked for; without a proven acceptance what the router says."""
    return name(accepted.model if accepted else work.model)


def _usage(usage: Usage) -> Usage:
    """Counts come from engines: hold them to what a column takes."""
    return Usage(
        prompt_tokens=whole(usage.prompt_tokens),
        completion_tokens=whole(usage.completion_tokens),
        cached_tokens=whole(usage.cached_tokens),
        estimated=usage.estimated,
    )


def _result(fact: Terminal) -> tuple[int, str]:
    """HTTP status and code as recorded. What the client saw after a first byte was still a 200."""
    if isinstance(fact, RequestCompleted):
        return whole(fact.status, _MOST_INT), ""
    if isinstance(fact, RequestCancelled):
        return STATUS[Code.cancelled], Code.cancelled.value
    return _status(fact.failure), name(fact.failure.code)


def _status(failure: Failure) -> int:
    return whole(status_of(failure), _MOST_INT)


def _ttft(times: FactTimes, work: _Work) -> int:
    """Milliseconds from acceptance to the first frame; a unary answer has none on the server's clock, so the router's
    own measure from the claim on counts. 0 = nothing was sent."""
    if not times.accepted:
        return 0
    if times.first:
        return max(times.first - times.accepted, 0)
    return max(times.claimed - times.accepted, 0) + whole(work.ttft_ms) if work.ttft_ms and times.claimed else 0


def _summary(verdict: Verdict) -> dict[str, object]:
    """A verdict without text: how it went, what kinds were found and how often."""
    said: dict[str, object] = {
        "family": verdict.family,
        "outcome": name(verdict.outcome),
        "policy": name(verdict.policy),
        "took_us": whole(verdict.took_us),
        "found": {name(kind): whole(count) for kind, count in verdict.found.items()},
        "edits": dict(Counter(name(edit.kind) for edit in verdict.edits)) if verdict.edits else {},
    }
    if verdict.failure is not None:
        said["code"] = name(verdict.failure.code)
    if verdict.grant is not None:
        said |= {"pool": name(verdict.grant.pool), "lane": name(verdict.grant.lane)}
    return said


def _attempt(item: Attempt) -> dict[str, object]:
    said: dict[str, object] = {
        "endpoint": name(item.endpoint),
        "started_ms": whole(item.started_ms),
        "ended_ms": whole(item.ended_ms),
        "outcome": name(item.outcome),
        "status": whole(item.status, _MOST_INT),
    }
    continued = {"after": whole(item.after, _MOST_INT)} if item.after else {}
    return said | continued | ({"why": _why(item.why)} if item.why else {})


def _why(choice: Choice) -> dict[str, object]:
    return {
        "pool": name(choice.pool),
        "strategy": name(choice.strategy),
        "of": whole(choice.of),
        "seen": [
            {
                "endpoint": name(seen.endpoint),
                "state": name(seen.state),
                "in_use": whole(seen.in_use),
                "slots": whole(seen.slots),
                "weight": whole(seen.weight),
                "ttft_ms": whole(seen.ttft_ms),
                "peak_ms": whole(seen.peak_ms),
                "price": whole(seen.price),
            }
            for seen in choice.seen[:_MOST_SEEN]
        ],
    }
