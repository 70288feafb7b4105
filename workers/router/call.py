"""One call of one endpoint: open it, relay its answer into the run, end the run; or say what went wrong.

The engine's connection is closed at once on every path that does not read its answer to the end.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from base import logs, metrics
from base.clock import Clock
from providers.addresses import refuse_url
from providers.dialects import continued_stream, dialect_of
from providers.errors import ConnectFailed, UpstreamFault
from providers.openai_continue import request as continuing
from providers.openai_errors import MAX_BODY, engine_error
from providers.ports import Dialect, EngineStream, Timeouts, Transport, UpstreamResponse
from schemas.frames import END
from schemas.records import EndpointRecord
from workers.router.attempt import OK, Work, nothing_usage, stream_usage, unary_usage
from workers.router.interrupt import Interrupt, Stopped
from workers.router.ports import Credentials
from workers.router.relay import Pace, Relay
from workers.router.rules import Judged, judge, public_headers
from workers.router.settings import RouterSettings

log = logs.room("router")

#: Seconds the end of an engine's body may lag behind its last event before its connection is given up.
_DRAIN_S = 0.1
#: How calls end that nobody waits for: of runs that were cancelled, and of those whose claim did not come.
_CANCELLED, _UNCLAIMED = "cancelled", "unclaimed"


class Caller:
    """Calls endpoints for runs. Holds no state of a run."""

    def __init__(self, transport: Transport, credentials: Credentials, settings: RouterSettings, clock: Clock) -> None:
        self._transport, self._credentials = transport, credentials
        self._settings, self._clock = settings, clock
        self._pace = Pace(settings.coalesce_ms / 1000, settings.coalesce_max_ms / 1000)

    async def call(self, work: Work, endpoint: EndpointRecord, interrupt: Interrupt) -> Judged | None:
        """One call of one endpoint. None when it ended the run, else what its fault means."""
        work.endpoint, work.speaks, work.after = endpoint.endpoint, endpoint.speaks, work.lease.sequence
        started, status, outcome = self._clock.monotonic(), 0, _CANCELLED
        response: UpstreamResponse | None = None
        try:
            response = await interrupt.wait(self._open(work, endpoint))
            status = response.status
            if status != 200:
                raise engine_error(status, response.headers, await interrupt.wait(response.whole(MAX_BODY)))
            if work.lease.accepted.stream:
                await self._stream(work, response, interrupt, started)
            else:
                await self._unary(work, response, interrupt, started)
            outcome = OK
            await response.drain(_DRAIN_S)
            return None
        except UpstreamFault as fault:
            judged = judge(fault, begun=work.lease.sequence > 0)
            outcome = judged.failure.code
            work.note(started, self._clock.monotonic(), outcome, status)
            say = log.info if judged.blames_the_request else log.warning
            say("call failed", run=work.lease.run, endpoint=endpoint.endpoint, status=status, reason=str(fault))
            return judged
        except Stopped:
            work.note(started, self._clock.monotonic(), outcome, status)
            raise
        finally:
            outcome = _UNCLAIMED if outcome == _CANCELLED and not work.lease.claimed else outcome
            metrics.inc("headrace_upstream_attempts_total", endpoint=endpoint.endpoint, outcome=outcome)
            metrics.observe("headrace_stage_duration_seconds", self._clock.monotonic() - started, stage="upstream")
            if response is not None:
                response.close()

    def _open(self, work: Work, endpoint: EndpointRecord) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send the request to the endpoint, with its own credential and nobody else's. Untranslatable, ConnectFailed
        when it cannot even be sent."""
        refused = refuse_url(endpoint.url, bool(endpoint.credential), endpoint.private)
        if refused:
            raise ConnectFailed(refused)
        headers = {"content-type": "application/json"}
        if endpoint.credential:
            headers["authorization"] = f"Bearer {self._reveal(endpoint)}"
        return self._transport.open(
            endpoint.url.rstrip("/") + _dialect_of(work).path(work.question),
            headers,
            _asked(work, endpoint),
            self._timeouts(work, endpoint.pool),
            private=endpoint.private,
        )

    def _timeouts(self, work: Work, pool: str) -> Timeouts:
        """The settings' limits, inside what is left of the run's time; in the background there is only that."""
        left = work.deadline - self._clock.monotonic()
        most = left if work.lease.accepted.background else min(self._settings.total_timeout_s, left)
        first_byte = self._settings.first_byte_timeouts_s.get(pool, self._settings.first_byte_timeout_s)
        return Timeouts(
            connect_s=self._settings.connect_timeout_s,
            first_byte_s=first_byte,
            idle_s=self._settings.idle_timeout_s,
            total_s=max(most, 0.001),
        )

    def _reveal(self, endpoint: EndpointRecord) -> str:
        try:
            return self._credentials.reveal(endpoint)
        except ValueError:
            raise ConnectFailed("the endpoint's credential cannot be opened with this key ring") from None

    async def _stream(self, work: Work, response: UpstreamResponse, interrupt: Interrupt, called: float) -> None:
        """Relay a stream and end the run. What was generated is known to `work` however it ends."""
        accepted = work.lease.accepted
        stream = _stream_of(work)
        headers = public_headers(work.grant, work.endpoint, stream=True)
        relay = Relay(work.lease, stream, headers, self._pace, self._clock, work.answered)
        try:
            await relay.pump(response, interrupt)
            last = stream.ending(self._clock.now_ms())
        except (UpstreamFault, Stopped):
            response.close()
            await relay.settled()
            work.first_at = work.first_at or relay.first_at
            if work.lease.sequence > 0 or work.lease.cancelled.is_set():
                work.usage = stream_usage(stream, accepted.prompt_tokens)
                await relay.flush()
            raise
        payload, events = relay.rest()
        events += stream.told
        now = self._clock.monotonic()
        work.first_at = work.first_at or relay.first_at or now
        work.note(called, now, OK, response.status)
        work.usage = stream_usage(stream, accepted.prompt_tokens) or nothing_usage(accepted.prompt_tokens)
        fact = work.completed(work.usage, stream.finish_reason, work.lease.sequence + events, now)
        await work.lease.end(END, payload + last, events, fact, None if work.lease.sequence else headers)

    async def _unary(self, work: Work, response: UpstreamResponse, interrupt: Interrupt, called: float) -> None:
        """Relay a whole answer and end the run."""
        accepted = work.lease.accepted
        body = await interrupt.wait(response.whole(self._settings.max_answer_bytes))
        work.answered()
        found = _dialect_of(work).answer(work.question, body, self._clock.now_ms())
        now = self._clock.monotonic()
        work.first_at = now
        work.note(called, now, OK, response.status)
        fact = work.completed(unary_usage(found, accepted.prompt_tokens), found.finish_reason, 1, now)
        await work.lease.end(END, found.body, 1, fact, public_headers(work.grant, work.endpoint, stream=False))


def _asked(work: Work, endpoint: EndpointRecord) -> bytes:
    """The endpoint's request: for the whole answer, or for what the client lacks of it."""
    body = _dialect_of(work).request(work.question, endpoint.upstream_model)
    return body if work.told is None else continuing(body, work.told, endpoint.continues)


def _dialect_of(work: Work) -> Dialect:
    """What is continued is continued as a chat."""
    return dialect_of(work.lease.accepted.route, work.speaks if work.told is None else ())


def _stream_of(work: Work) -> EngineStream:
    if work.told is not None:
        return continued_stream(work.question, work.told)
    return _dialect_of(work).stream(work.question)
