"""Every way a request can fail, as a value that travels, and the few exceptions of a handler's border.

    HeadraceError                 anything of ours that is raised
    ├── Refusal                   a request we will not serve; carries a Failure, becomes an OpenAI-shaped error
    ├── DecodeError               bytes that are not an event of ours: poison, dead letter at once
    ├── UnknownVersion            an event newer than this process: released until its deadline, never poison
    ├── SignatureError            an event whose publisher may not say this: poison
    ├── Unavailable               a store or server is away: retried, then 503 with Retry-After
    └── OwnerLost                 this process no longer owns the run: stop, write nothing

A Failure is what crosses rooms (inside verdicts, frames and facts). STATUS is the one table from code to HTTP status,
for the door that answers and the audit that records; `ingress/errors.py` makes the body and the headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import msgspec

#: What decoding bytes that somebody else wrote may raise: besides msgspec's own errors, those of text that is no UTF-8
#: and of values nested too deeply.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Code(StrEnum):
    """Stable names of failures; each has a page docs/errors/<code>. Never renamed, only added."""

    invalid_request = "invalid_request"  #: JSON broken, wrong type or range
    missing_required_parameter = "missing_required_parameter"  #: a field that must be there is not
    request_too_large = "request_too_large"  #: body over the limit
    context_length_exceeded = "context_length_exceeded"  #: the engine says the prompt is too long
    content_policy_violation = "content_policy_violation"  #: a guardrail blocked it before any engine was called
    invalid_api_key = "invalid_api_key"  #: missing, malformed, unknown, revoked or expired
    permission_denied = "permission_denied"  #: a valid key without the scope
    model_not_found = "model_not_found"  #: absent, or not for this key
    not_found = "not_found"  #: unknown path or id
    method_not_allowed = "method_not_allowed"  #: the path exists, the verb does not
    idempotency_key_reused = "idempotency_key_reused"  #: the Idempotency-Key came before with another request
    request_timeout = "request_timeout"  #: the body did not arrive in time
    rate_limit_exceeded = "rate_limit_exceeded"  #: requests per minute or concurrency of a key
    overloaded = "overloaded"  #: it would be answered past its deadline, or the bound of live runs is reached
    no_engine = "no_engine"  #: no endpoint can serve the model now
    upstream_error = "upstream_error"  #: every engine that was tried failed before the first byte
    upstream_interrupted = "upstream_interrupted"  #: the stream broke after its first byte
    upstream_timeout = "upstream_timeout"  #: the engine was silent too long
    deadline_exceeded = "deadline_exceeded"  #: the run's own deadline passed
    guardrail_unavailable = "guardrail_unavailable"  #: a required guard could not judge (fail closed)
    store_unavailable = "store_unavailable"  #: Redis is away or refuses writes
    cancelled = "cancelled"  #: the client left or cancelled
    draining = "draining"  #: this ingress is going away; ask another
    internal_error = "internal_error"  #: our fault; the run id finds it in the logs


#: Code -> HTTP status, as OpenAI's clients expect them. 499 is never sent: the client is gone, it is for the record.
STATUS: Mapping[Code, int] = MappingProxyType(
    {
        Code.invalid_request: 400,
        Code.missing_required_parameter: 400,
        Code.request_too_large: 413,
        Code.context_length_exceeded: 400,
        Code.content_policy_violation: 400,
        Code.invalid_api_key: 401,
        Code.permission_denied: 403,
        Code.model_not_found: 404,
        Code.not_found: 404,
        Code.method_not_allowed: 405,
        Code.idempotency_key_reused: 422,
        Code.request_timeout: 408,
        Code.rate_limit_exceeded: 429,
        Code.overloaded: 503,
        Code.no_engine: 503,
        Code.upstream_error: 502,
        Code.upstream_interrupted: 502,
        Code.upstream_timeout: 504,
        Code.deadline_exceeded: 504,
        Code.guardrail_unavailable: 503,
        Code.store_unavailable: 503,
        Code.cancelled: 499,
        Code.draining: 503,
        Code.internal_error: 500,
    }
)


def status_of(failure: Failure) -> int:
    """The HTTP status of a failure: the engine's own where one is passed on, else by its code; 500 for an unknown one
    (a newer writer's)."""
    if failure.status is not None:
        return failure.status
    try:
        return STATUS[Code(failure.code)]
    except ValueError:
        return STATUS[Code.internal_error]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run ended without an answer.

    `status`, `type` and `public_code` are set only when an engine's own error is passed on; otherwise the door
    derives them from `code`. `retry_after_ms` becomes retry-after and retry-after-ms: it is for a wait that was
    computed, since every other is the door's to spread. `should_retry` becomes x-should-retry: False where work was
    billed or a retry cannot help, True where nothing was done and the code does not say so.
    """

    code: str
    message: str
    param: str | None = None
    retry_after_ms: int | None = None
    should_retry: bool | None = None
    status: int | None = None
    type: str | None = None
    public_code: str | None = None


class HeadraceError(Exception):
    """Base of everything of ours that is raised."""


class Refusal(HeadraceError):
    """A request that will not be served, with the reason to show."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def of(cls, code: Code, message: str, *, param: str | None = None, retry_after_ms: int | None = None) -> Refusal:
        """A refusal in one line."""
        return cls(Failure(code=code.value, message=message, param=param, retry_after_ms=retry_after_ms))


class DecodeError(HeadraceError):
    """Bytes that are not an event of ours. `raw` is what was read."""

    def __init__(self, reason: str, raw: bytes = b"") -> None:
        super().__init__(reason)
        self.raw = raw


class UnknownVersion(HeadraceError):
    """A well-formed event whose type or version this process does not know yet."""


class SignatureError(HeadraceError):
    """An event that was not signed by a publisher who may say it."""


class Unavailable(HeadraceError):
    """A store or server cannot be reached or refuses writes. The call may or may not have been applied."""


class OwnerLost(HeadraceError):
    """Another consumer owns the run now; nothing was written and nothing more may be."""
