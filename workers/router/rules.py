"""The router's decisions but the choice (choice.py): what a fault means, whether to try again, when to flush. Pure.

asked_early   an endpoint, the setting -> may it be called before the run is claimed
share_of      an endpoint's slots, a seat -> what this process may use
judge         a fault of a call -> what the client is told, and whether another endpoint may do better
RetryWindow   runs and retries of the last seconds -> may one more retry be made
frame_gap     how many frames are stored, and how fast -> the least time between two frames of a run
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from zlib import crc32

import msgspec

from policy.prices import Price, price_of
from providers.errors import (
    ConnectFailed,
    EngineError,
    FirstByteTimeout,
    IdleTimeout,
    TotalTimeout,
    Untranslatable,
    UpstreamFault,
)
from schemas.errors import Code, Failure
from schemas.records import EndpointRecord
from schemas.verdicts import Grant, limit_headers
from workers.router.settings import Early

#: Statuses by which an engine says that the request itself is wrong: passed on, never tried again.
_REQUEST_FAULTS = frozenset({400, 413, 422})
#: The status by which an engine says that it has no such route (llama.cpp: embeddings of a chat model); another may.
_NOT_OFFERED = 501
#: Statuses that another moment or endpoint may not repeat.
_PASSING_FAULTS = frozenset({408, 425, 429})
#: Statuses by which an engine says that it is full.
_FULL = frozenset({429, 503})
_DEFAULT_WAIT_MS = 1000
#: Frames a second that a process stores before they come further apart.
_CALM_FRAMES = 1000


#: Places of a pool in which no endpoint can serve: its runs are told so at once instead of waiting.
ERRANDS = 16
#: Places of the pool that this process serves itself, in about a millisecond a run.
OWN_PLACES = 64
#: Statuses of 4xx that speak of the endpoint and not of the request. 429 with a Retry-After is a pause, not a failure.
_OWN_FAULTS = frozenset({401, 403, 408, 429})


def asked_early(endpoint: EndpointRecord, early: Early) -> bool:
    """Whether it may be called while a run's claim is under way: that call may be for nothing."""
    return early == "all" or (early == "own" and not endpoint.credential)


class Seat(msgspec.Struct, frozen=True):
    """This process among those that use the same endpoints: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def turned(self, endpoint: str) -> Seat:
        """Its place in the order of one endpoint: what does not divide evenly falls to another seat at each."""
        return Seat((self.index + crc32(endpoint.encode())) % self.count, self.count)


def share_of(slots: int, seat: Seat) -> int:
    """How many of an endpoint's slots are this seat's; over all seats they add up to all."""
    return slots // seat.count + (1 if seat.index < slots % seat.count else 0)


def price_of_endpoint(endpoint: EndpointRecord, named: Sequence[Price], listed: Sequence[Price]) -> int:
    """Micros per 1,000,000 tokens: as named for its deployment, else the mean of what its upstream model costs; 0 =
    unknown."""
    found = price_of(named, endpoint.deployment) or price_of(listed, endpoint.upstream_model)
    return (found.prompt + found.completion) // 2 if found else 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A fault as seen by the client. elsewhere: another endpoint may do better, or continue what has begun; rest_ms:
    leave this one alone for so long; broken: it counts against the endpoint (policy.breaker); wordless: nothing was
    asked, for what the engine speaks has no words for it."""

    failure: Failure
    elsewhere: bool
    rest_ms: int = 0
    broken: bool = False
    wordless: bool = False

    @property
    def blames_the_request(self) -> bool:
        """Whether the request is at fault, and neither the engine nor this gateway."""
        return self.failure.code in (Code.invalid_request, Code.context_length_exceeded)


def judge(fault: UpstreamFault, begun: bool) -> Judged:
    """What a fault of a call means. `begun`: the client already has a part of the answer, which is never begun anew."""
    return replace(_judge(fault, begun), broken=speaks_against(fault, begun))


def speaks_against(fault: UpstreamFault, begun: bool) -> bool:
    """Whether a fault is the endpoint's own. A run's time that ends inside an answer is not; without any answer it
    is, or an engine that hangs for longer than requests may take would never be found out."""
    match fault:
        case EngineError(status=status):
            if status in _OWN_FAULTS:
                return status != 429 or fault.retry_after_ms is None
            return not 400 <= status < 500
        case TotalTimeout():
            return not begun
        case Untranslatable():
            return False
    return True


def _judge(fault: UpstreamFault, begun: bool) -> Judged:
    if begun:
        return Judged(_interrupted(fault), elsewhere=not isinstance(fault, TotalTimeout))
    match fault:
        case EngineError():
            return _judge_engine(fault)
        case Untranslatable(message=message, param=param):
            failure = Failure(code=Code.invalid_request, message=message, param=param, public_code="unsupported_value")
            return Judged(failure, elsewhere=False, wordless=True)
        case FirstByteTimeout() | IdleTimeout():
            return Judged(_failure(Code.upstream_timeout, "The engine did not answer in time. Retry later."), True)
        case TotalTimeout():
            return Judged(_failure(Code.deadline_exceeded, "The request's time was over before its answer."), False)
        case ConnectFailed():
            return Judged(_failure(Code.upstream_error, "No engine of this model could be reached. Retry later."), True)
    return Judged(_failure(Code.upstream_error, "The engine gave no usable answer. Retry later."), True)


def _interrupted(fault: UpstreamFault) -> Failure:
    """The answer broke after its first byte: it was billed, so clients shall not repeat it by themselves."""
    code, message = Code.upstream_interrupted, "The engine's answer broke off. What was sent is incomplete."
    if isinstance(fault, IdleTimeout):
        code, message = Code.upstream_timeout, "The engine fell silent inside its answer. What was sent is incomplete."
    elif isinstance(fault, TotalTimeout):
        code, message = Code.deadline_exceeded, "The request's time was over inside its answer."
    elif isinstance(fault, EngineError):
        message = f"The engine stopped inside its answer: {fault.message}"
    return Failure(code=code, message=message, should_retry=False)


def _judge_engine(error: EngineError) -> Judged:
    """The engine's own error. What concerns our credential, our URL or its state is never shown as the client's."""
    if error.status in _REQUEST_FAULTS:
        too_long = error.code == Code.context_length_exceeded
        failure = Failure(
            code=Code.context_length_exceeded if too_long else Code.invalid_request,
            message=error.message,
            param=error.param,
            status=400 if error.status == 422 else error.status,
            type=error.type or "invalid_request_error",
            public_code=error.code,
        )
        return Judged(failure, elsewhere=False)
    if error.status in _FULL:
        wait = error.retry_after_ms if error.retry_after_ms is not None else _DEFAULT_WAIT_MS
        failure = _failure(Code.no_engine, "Every engine of this model is full. Retry later.", error.retry_after_ms)
        return Judged(failure, elsewhere=True, rest_ms=wait)
    if error.status == _NOT_OFFERED:
        failure = Failure(
            code=Code.upstream_error,
            message=f"No engine of this model offers this route. The engine says: {error.message}",
            status=error.status,
            type=error.type or "upstream_error",
            public_code=error.code,
            should_retry=False,
        )
        return Judged(failure, elsewhere=True)
    if error.status >= 500 or error.status in _PASSING_FAULTS:
        return Judged(_failure(Code.upstream_error, "The engine failed. Retry later."), elsewhere=True)
    if error.status == 0:
        return Judged(_failure(Code.upstream_error, f"The engine reported an error: {error.message}"), elsewhere=True)
    message = "The engine refused this gateway's request; its operator must check the deployment's URL and credential."
    return Judged(_failure(Code.upstream_error, message), elsewhere=True)


def without_words(failure: Failure) -> Failure:
    """A failure as a fact may carry it. Facts are not sealed, and an engine's words often repeat the prompt; the client
    has them in its frame, which is."""
    return Failure(code=failure.code, message="", should_retry=failure.should_retry, status=failure.status)


def _failure(code: Code, message: str, retry_after_ms: int | None = None) -> Failure:
    return Failure(code=code, message=message, retry_after_ms=retry_after_ms)


NO_ENGINE = _failure(
    Code.no_engine, "No engine serves this model now. Retry later; its operator sees why in the deployments."
)
OUT_OF_TIME = _failure(Code.deadline_exceeded, "The request's time was over before an engine was free.")
TAKEN_OVER = Failure(
    code=Code.upstream_interrupted,
    message="The process that relayed this answer died. What was sent is incomplete.",
    should_retry=False,
)
CANCELLED = _failure(Code.cancelled, "The request was cancelled.")


@dataclass(slots=True)
class RetryWindow:
    """Credits for retries: each run earns `share` of one, `floor` are free; all expire after `seconds`.

    The rule of Finagle's retry budget: retries stay a fixed share of the load, so they cannot become a storm."""

    share: float
    floor: int
    seconds: float
    _runs: deque[float] = field(default_factory=deque)
    _retries: deque[float] = field(default_factory=deque)

    def ran(self, now: float) -> None:
        """A run made its first call."""
        self._expire(now)
        self._runs.append(now)

    def take(self, now: float) -> bool:
        """Whether one more retry may be made now; if so it is counted."""
        self._expire(now)
        if len(self._retries) >= self.floor + self.share * len(self._runs):
            return False
        self._retries.append(now)
        return True

    def _expire(self, now: float) -> None:
        for marks in (self._runs, self._retries):
            while marks and marks[0] <= now - self.seconds:
                marks.popleft()


def frame_gap(least_s: float, most_s: float, flush_s: float, per_s: float, gap_s: float) -> float:
    """Seconds between two frames of a run, within [least, most]; least where that is more than most.

    Twice what storing one takes now; and longer the more frames this process stores a second, since each costs the same
    whatever is in it. How many they are is what the present gap has made of them, so the next is the mean of both."""
    wanted = max(2 * flush_s, sqrt(gap_s * least_s * per_s / _CALM_FRAMES))
    return max(least_s, min(wanted, most_s))


def public_headers(grant: Grant, endpoint: str, stream: bool) -> dict[str, str]:
    """What the first frame tells the door to send. An empty endpoint is not named."""
    headers = {"content-type": "text/event-stream; charset=utf-8" if stream else "application/json"}
    if endpoint:
        headers["x-headrace-endpoint"] = endpoint
    return headers | limit_headers(grant)
