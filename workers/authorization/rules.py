"""What authorization decides, as values: no clock, no store, no queue.

policy.decision says who may do what; this file makes of it the reservation, the grant and the verdict of one run.
"""

from __future__ import annotations

from collections.abc import Callable

from policy.api_keys import Credential
from policy.decision import Allowed, Need, Refused, decide
from policy.disconnect import FINISH, governing, narrowed
from policy.quotas import scopes_of
from schemas.errors import Code, Failure
from schemas.events import RequestAccepted
from schemas.ports import Reservation, Reserved
from schemas.records import INFERENCE, KeyRecord, ModelRecord
from schemas.routes import GENERATED, MODERATIONS, MODERATIONS_POOL
from schemas.verdicts import PASS, REFUSE, Grant, Verdict

FAMILY = "authorization"
#: (model, key id, family) -> open | closed: what a verdict that never came means. The guardrails' own policy.
FailPolicy = Callable[[str, str, str], str]
BATCH = "batch"
#: Tokens of an answer whose length the client did not bound, and the most that a client's bound counts for.
USUAL_ANSWER, LONGEST_ANSWER = 256, 4096


def judge(run: RequestAccepted, key: KeyRecord | None, model: ModelRecord | None, now_ms: int) -> Allowed | Refused:
    """May this caller start this run? Limits come after, so that a refused run holds nothing. A moderation needs no
    model: the gateway answers it itself."""
    shown = Credential(key_id=run.key_id, secret_mac=run.secret_mac, mac_kid=run.mac_kid)
    wanted = None if run.route == MODERATIONS else run.model
    judged = decide(key, shown, Need(scope=INFERENCE, model=wanted), model, now_ms)
    if run.disconnect_wish and isinstance(judged, Allowed):
        leaving = on_disconnect(run, judged)
        if isinstance(leaving, Failure):
            return Refused(failure=leaving, key=judged.key)
    return judged


def on_disconnect(run: RequestAccepted, allowed: Allowed) -> str | Failure:
    """The run's policy for the case that its clients leave, or the refusal of a looser wish. Nobody waits for a run in
    the background."""
    if run.background:
        return FINISH
    model = allowed.model.on_disconnect if allowed.model else ""
    return narrowed(governing(allowed.key.on_disconnect, model, run.on_disconnect), run.disconnect_wish)


def reservation(run: RequestAccepted, key: KeyRecord, lifetime_ms: int) -> Reservation:
    """What the run wants of its organization's limits. lifetime_ms: its deadline and the grace."""
    return Reservation(run=run.run, tenant=key.tenant, scopes=scopes_of(key), ttl_ms=lifetime_ms)


def lane(key: str, asked: str) -> str:
    """The slower of the key's lane and the one asked for: batch may be asked for, interactive can't be won."""
    return BATCH if BATCH in (key, asked) else key


def priority(key: int, asked: int | None) -> int:
    """The lower of the key's priority and the one asked for: it can be given up, not won."""
    return key if asked is None else min(key, asked)


def expected_tokens(run: RequestAccepted) -> int:
    """What a run will probably take of an engine, for its place in the queue; mended when it has ended."""
    if run.route not in GENERATED:
        return max(1, run.prompt_tokens)
    answer = USUAL_ANSWER if run.max_tokens is None else min(run.max_tokens, LONGEST_ANSWER)
    return max(1, run.prompt_tokens + answer)


def closed(model: str, key_id: str, family: str) -> str:
    """The fail policy where nobody says otherwise."""
    return "closed"


def fail_policy(run: RequestAccepted, policy: FailPolicy) -> dict[str, str]:
    """Per guard family of this run: open or closed when its verdict never comes."""
    return {family: policy(run.model, run.key_id, family) for family in run.families if family != FAMILY}


def grant(run: RequestAccepted, allowed: Allowed, reserved: Reserved, fail: dict[str, str]) -> Grant:
    """What the later rooms need to know of the caller of an allowed run."""
    key, leaving = allowed.key, on_disconnect(run, allowed)
    assert isinstance(leaving, str), "a looser wish was refused by judge"
    return Grant(
        tenant=key.tenant,
        key_id=key.key_id,
        pool=allowed.model.pool if allowed.model else MODERATIONS_POOL,
        lane=lane(key.lane, run.lane),
        weight=key.weight,
        cost=expected_tokens(run),
        priority=priority(key.priority, run.priority),
        fail=fail,
        scopes=_scope_names(key),
        on_disconnect=leaving,
        limit_requests=reserved.limit_requests,
        remaining_requests=reserved.remaining_requests,
        reset_requests_ms=reserved.reset_requests_ms,
    )


def _scope_names(key: KeyRecord) -> tuple[str, ...]:
    return tuple(scope.name for scope in scopes_of(key))


def known_caller(key: KeyRecord, reserved: Reserved | None = None) -> Grant:
    """Whom a refusal concerns, for the record and the limit headers: no pool, nothing reserved.

    reserved: it was refused for a limit. Then it is settled like others, so that a late second delivery, which might
    find room, holds nothing for a run that has ended."""
    figures = reserved or Reserved(granted=False)
    return Grant(
        tenant=key.tenant,
        key_id=key.key_id,
        pool="",
        scopes=_scope_names(key) if reserved else (),
        limit_requests=figures.limit_requests,
        remaining_requests=figures.remaining_requests,
        reset_requests_ms=figures.reset_requests_ms,
    )


def over_limit(key: KeyRecord, reserved: Reserved) -> Failure:
    """The 429 of a reservation that was not granted. When one of the requests in flight ends nobody knows, so that wait
    is the door's to name."""
    if reserved.limit == "concurrency":
        wait = None
        said = f"This API key may have {key.concurrency} requests in flight at once. Wait until one of them has ended"
    else:
        wait = max(reserved.retry_after_ms, 1)
        said = f"This API key may start {reserved.limit_requests} requests per minute. Try again in {wait / 1000:.1f} s"
    return Failure(
        code=Code.rate_limit_exceeded.value,
        message=f"{said}, or ask an administrator for a higher limit.",
        retry_after_ms=wait,
    )


def verdict(run: RequestAccepted, policy: str, failure: Failure | None, caller: Grant | None, took_us: int) -> Verdict:
    """The answer of this family: refuse with a failure, else pass. caller: the grant, or whom a refusal concerns; None
    while nobody has proven who they are."""
    return Verdict(
        run=run.run,
        family=FAMILY,
        outcome=REFUSE if failure else PASS,
        policy=policy,
        body_digest=run.body_digest,
        failure=failure,
        grant=caller,
        took_us=took_us,
    )
