"""One example of each failure, as the documents show it. The words are those that the code really says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ingress.errors import INTERNAL, STORE_AWAY
from policy.decision import INVALID_KEY
from schemas.errors import Code, Failure

_SAID = {
    Code.invalid_request: "Invalid value for 'temperature': it must be a number.",
    Code.missing_required_parameter: "Missing required parameter: 'messages'.",
    Code.request_too_large: "The request body is larger than the limit of 20971520 bytes.",
    Code.context_length_exceeded: "This model's maximum context length is 8192 tokens.",
    Code.content_policy_violation: "The request was blocked by a guardrail: card.",
    Code.permission_denied: "This API key may not do that: it lacks the scope 'inference'.",
    Code.model_not_found: "The model `large` does not exist or this API key may not use it.",
    Code.not_found: "There is no such run, or it is no longer kept.",
    Code.method_not_allowed: "DELETE /v1/models is not allowed.",
    Code.idempotency_key_reused: "This Idempotency-Key was used for another request; choose a new one.",
    Code.request_timeout: "The request body did not arrive within 30 seconds; send it again.",
    Code.rate_limit_exceeded: "The limit of 600 requests per minute of this key is reached.",
    Code.overloaded: "So many requests wait that a new one would be answered too late; try again later.",
    Code.no_engine: "No engine can serve this model now; send the request again later.",
    Code.upstream_error: "Every engine that was tried failed before it answered.",
    Code.upstream_interrupted: "The engine's answer broke off.",
    Code.upstream_timeout: "The engine was silent for too long.",
    Code.deadline_exceeded: "The request was not answered within its deadline.",
    Code.guardrail_unavailable: "A required guardrail could not judge the request.",
    Code.cancelled: "The request was cancelled.",
    Code.draining: "This gateway process is shutting down; send the request again, another one answers.",
}

EXAMPLES: Mapping[Code, Failure] = MappingProxyType(
    {
        **{code: Failure(code=code.value, message=said) for code, said in _SAID.items()},
        Code.invalid_api_key: INVALID_KEY,
        Code.store_unavailable: STORE_AWAY,
        Code.internal_error: INTERNAL,
    }
)
