"""The routes whose requests become runs: accept the run, then show its frames. Raw ASGI, nothing of a framework on the
way. One handler for all; what differs between them stands in routes/table.py.

A request is refused in the order that costs least: draining, a key that is not ours, the body, the bound of live runs.
Whoever leaves, in any phase, is reported to the run within one turn of the loop; the run's own policy decides the rest.
When this process is told to stop in mid-answer the connection is cut and the run is left to be read elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from base import logs, metrics
from base.crypto import digest
from ingress.asked import Asked, Parse
from ingress.body import ClientGone, read_body
from ingress.credentials import Callers, allow
from ingress.cycle import EXTENSION, TRANSPORT
from ingress.errors import INTERNAL, failure_of
from ingress.exchange import Exchange
from ingress.headers import Wishes, deadline_ms, wishes_of
from ingress.once import once_key, once_of
from ingress.parts import Parts
from ingress.presence import Presence, sign_off
from ingress.sse import OVERDUE_S, Pace, RunFailed, collect, relay
from policy.api_keys import Credential
from policy.disconnect import for_a_retry
from schemas.errors import Code, Refusal
from schemas.events import RequestAccepted
from schemas.ports import NewRun, Watch

log = logs.room("ingress")


class Work:
    """The ASGI handler of one route; one per process and route. parse: the route's body."""

    def __init__(self, parts: Parts, path: str, parse: Parse) -> None:
        self._parts, self._path, self._parse = parts, path, parse
        self._settings = parts.settings
        self._callers = Callers(parts.ring)

    @cached_property
    def _unsaid(self) -> Wishes:
        """What holds for a request whose headers ask for nothing."""
        return Wishes(deadline_ms=deadline_ms({}, self._settings.deadline, self._settings.max_deadline))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra = scope.get("extensions", {})
        out = Exchange(send, self._parts.door.mint(), self._parts.clock, extra.get(TRANSPORT), extra.get(EXTENSION))
        model = ""
        try:
            new = await self._request(dict(scope["headers"]), receive, out)
            watch = await self._parts.door.accept(new)
            out.run, out.replayed = watch.run, watch.replayed
            out.accepted, model = True, new.accepted.model
            await self._follow(watch, receive, out, new)
        except ClientGone:
            out.code = Code.cancelled.value
        except Exception as error:
            await fail(out, error)
        _count(out, self._path, model)

    async def _request(self, headers: Mapping[bytes, bytes], receive: Receive, out: Exchange) -> NewRun:
        """The run to be, or a Refusal."""
        self._parts.refuse_if_draining()
        credential = self._callers.credential_of(headers)
        key = once_key(headers)
        limit = self._settings.body_limit
        raw = out.cycle.body_at_hand(limit) if out.cycle is not None else None
        if raw is None:
            raw = await read_body(receive, headers, limit, self._settings.body_timeout)
        asked = await self._asked(raw, headers)
        wishes = wishes_of(headers, self._unsaid, self._settings.max_deadline)
        strict = wishes.strict
        if not strict and self._parts.strict.covers_any:
            strict = await self._is_strict(credential.key_id, asked.model)
        new = self._new_run(out.run, asked, credential, wishes, strict)
        return new if key is None else await self._once(new, key, headers, asked.said or asked.body)

    async def _asked(self, raw: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        return self._parse(raw)

    async def _once(self, new: NewRun, key: bytes, headers: Mapping[bytes, bytes], said: bytes) -> NewRun:
        """A request with an Idempotency-Key may be shown an answer that is there already, which only those may see who
        could have asked for it. One that nobody may answer goes the way of all, without its key."""
        try:
            who = (await allow(headers, self._parts)).key
        except Refusal:
            return new
        accepted = replace(
            new.accepted,
            keep_ms=round(self._settings.keep * 1000),
            on_disconnect=for_a_retry(new.accepted.on_disconnect, self._settings.retry_grace),
        )
        once = once_of(self._parts.ring, who.tenant, who.key_id, self._path, key, said)
        return replace(new, accepted=accepted, once=once)

    async def _is_strict(self, key_id: str, model: str) -> bool:
        """Whether the operator wants it on disk. Only a rule about lanes needs the key's record."""
        rule = self._parts.strict
        if rule.covers(key_id, model) or not rule.lanes:
            return rule.covers(key_id, model)
        key = await self._parts.keys.find(key_id)
        return key is not None and rule.covers_lane(key.lane)

    def _new_run(self, run: str, asked: Asked, who: Credential, wishes: Wishes, strict: bool) -> NewRun:
        settings = self._settings
        accepted = RequestAccepted(
            run=run,
            route=self._path,
            model=asked.model,
            stream=asked.stream,
            key_id=who.key_id,
            secret_mac=who.secret_mac,
            mac_kid=who.mac_kid,
            body_digest=digest(asked.body),
            body_bytes=len(asked.body),
            door=self._parts.name,
            families=self._parts.families,
            topology=self._parts.topology,
            max_tokens=asked.max_tokens,
            prompt_tokens=len(asked.body) // 4,
            client_request_id=wishes.client_request_id,
            on_disconnect=settings.on_disconnect,
            priority=wishes.priority,
            disconnect_wish=wishes.disconnect,
            keep_ms=round(settings.keep * 1000) if asked.store and settings.allow_store else 0,
        )
        return NewRun(
            accepted=accepted, body=asked.body, deadline_ms=wishes.deadline_ms, trace=wishes.trace, strict=strict
        )

    async def _follow(self, watch: Watch, receive: Receive, out: Exchange, new: NewRun) -> None:
        """Watch the run to its end, or until the client or this process goes."""
        open_exchanges, presence = self._parts.stalls.open, Presence(receive, out.cycle)
        open_exchanges.add(out)
        over = False
        try:
            over = await self._answer(watch, out, new)
        except asyncio.CancelledError:
            if not presence.forgive():
                watch.close()  # this process is going: no farewell, the run may be read elsewhere
                raise
            out.code = Code.cancelled.value
        finally:
            presence.stop()
            open_exchanges.discard(out)
        if not over:
            await sign_off(watch)
        watch.close()

    async def _answer(self, watch: Watch, out: Exchange, new: NewRun) -> bool:
        """Whether the run's last frame was shown: there is nothing to leave then."""
        give_up = new.deadline_ms / 1000 + OVERDUE_S
        pace = Pace(self._settings.keep_alive, self._settings.commit_after, give_up)
        try:
            await (relay if new.accepted.stream else collect)(watch, out, pace)
            return True
        except Exception as error:
            await fail(out, error)
            return False


async def fail(out: Exchange, error: Exception) -> None:
    """Tell the client, and the log where it is our fault."""
    failure = failure_of(error)
    if failure is INTERNAL:
        log.exception("request failed", run=out.run)
    await out.fail(failure, error.headers if isinstance(error, RunFailed) else None)


def _count(out: Exchange, path: str, model: str) -> None:
    outcome, label = "completed", model
    if out.code:
        outcome, label = outcome_of(out.code, out.status), label_of(model, out.code, out.status)
    metrics.inc("headrace_requests_total", route=path, model=label, outcome=outcome, status=str(out.status or 499))


#: How a run can end before anybody has looked whether its model exists.
_UNPROVEN = frozenset(
    {
        Code.invalid_api_key,
        Code.permission_denied,
        Code.model_not_found,
        Code.cancelled,
        Code.deadline_exceeded,
        Code.store_unavailable,
        Code.overloaded,
        Code.draining,
        Code.internal_error,
    }
)


def label_of(model: str, code: str, status: int) -> str:
    """The model as a label, "" for a name that may be the client's invention: those would be labels without end."""
    return model if status == 200 or code not in _UNPROVEN else ""


def outcome_of(code: str, status: int) -> str:
    """completed, cancelled, refused (the caller's doing, nothing was sent) or failed."""
    if not code:
        return "completed"
    if code == Code.cancelled:
        return "cancelled"
    return "refused" if 400 <= status < 500 else "failed"
