"""The one list of metrics: name, kind, labels, unit, meaning, and what an operator does about it.

docs/reference/metrics.md is made of it; base/metrics.py counts. Names gen_ai_* follow the OpenTelemetry GenAI
conventions (status: development), which is why they stand here only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CounterName = Literal[
    "headrace_requests_total",
    "headrace_tokens_total",
    "headrace_cost_micros_total",
    "headrace_redeliveries_total",
    "headrace_dlq_total",
    "headrace_handled_total",
    "headrace_verdicts_total",
    "headrace_findings_total",
    "headrace_limit_rejections_total",
    "headrace_upstream_attempts_total",
    "headrace_endpoint_ejections_total",
    "headrace_owner_lost_total",
    "headrace_swept_total",
    "headrace_gaps_total",
    "headrace_idempotent_total",
    "headrace_slow_readers_total",
    "headrace_redis_losses_total",
    "headrace_audit_written_total",
    "headrace_engine_restarts_total",
    "headrace_drains_total",
]
GaugeName = Literal[
    "headrace_inflight",
    "headrace_watchers",
    "headrace_tasks",
    "headrace_stream_length",
    "headrace_stream_lag",
    "headrace_stream_pending",
    "headrace_stream_waiting",
    "headrace_stream_oldest_pending_seconds",
    "headrace_group_consumers",
    "headrace_dlq_length",
    "headrace_endpoint_up",
    "headrace_endpoint_inflight",
    "headrace_endpoint_breaker_state",
    "headrace_endpoint_ttft_seconds",
    "headrace_audit_lag_seconds",
    "headrace_deployments",
    "headrace_replicas_wanted",
    "headrace_replicas_ready",
    "headrace_build_info",
]
HistogramName = Literal[
    "gen_ai_server_request_duration_seconds",
    "gen_ai_server_time_to_first_token_seconds",
    "gen_ai_server_time_per_output_token_seconds",
    "gen_ai_client_token_usage",
    "headrace_queue_wait_seconds",
    "headrace_stage_duration_seconds",
    "headrace_guardrail_duration_seconds",
]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the list. unit: of the value; remedy: what to do when it looks wrong, "" = only for reading."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str
    remedy: str = ""
    buckets: tuple[float, ...] = ()


_GEN_AI = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "error_type",
)
_DURATION = tuple(0.01 * 2**n for n in range(14))
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**n) for n in range(14))
_STAGE = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

METRICS: tuple[Metric, ...] = (
    # --- what clients see
    Metric(
        "headrace_requests_total",
        "counter",
        ("route", "model", "outcome", "status"),
        "requests",
        "Ended requests. outcome: completed, failed, refused, cancelled.",
        "Many failed: `headrace requests list` names the code, docs/errors its remedy.",
    ),
    Metric(
        "gen_ai_server_request_duration_seconds",
        "histogram",
        _GEN_AI,
        "seconds",
        "From the acceptance of a request to its end.",
        "Compare with headrace_stage_duration_seconds to find the stage that grew.",
        _DURATION,
    ),
    Metric(
        "gen_ai_server_time_to_first_token_seconds",
        "histogram",
        _GEN_AI,
        "seconds",
        "From acceptance to the first frame.",
        "High with a high queue wait: add slots or engines; high without: the engine's prefill.",
        _DURATION,
    ),
    Metric(
        "gen_ai_server_time_per_output_token_seconds",
        "histogram",
        _GEN_AI,
        "seconds",
        "Mean time between output tokens of a request, after the first.",
        "Too many parallel requests on an engine: lower its slots.",
        _PER_TOKEN,
    ),
    Metric(
        "gen_ai_client_token_usage",
        "histogram",
        (*_GEN_AI, "gen_ai_token_type"),
        "tokens",
        "Tokens of a request; gen_ai_token_type: input, output.",
        "",
        _TOKENS,
    ),
    Metric("headrace_tokens_total", "counter", ("model", "type"), "tokens", "Billed tokens; type: input, output."),
    Metric("headrace_cost_micros_total", "counter", ("model",), "micros", "Cost in millionths of the price currency."),
    Metric(
        "headrace_inflight",
        "gauge",
        ("partition",),
        "requests",
        "Accepted requests that have not ended.",
        "Near the bound of live requests: new ones get 503. Add engines or raise the bound.",
    ),
    Metric("headrace_watchers", "gauge", (), "clients", "Clients that wait for frames at this process."),
    Metric(
        "headrace_tasks",
        "gauge",
        (),
        "tasks",
        "Tasks of this process's event loop that have not ended.",
        "Rises while headrace_inflight does not: something is never finished; restart the process and report it.",
    ),
    Metric(
        "headrace_slow_readers_total",
        "counter",
        ("action",),
        "clients",
        "Clients that did not keep up; action: catch_up (reads the stream), cut (no progress for 60 s).",
    ),
    Metric(
        "headrace_gaps_total",
        "counter",
        (),
        "gaps",
        "Pushed frames that did not arrive and were read from the stream.",
        "Steadily rising: check the network to Redis and client-output-buffer-limit pubsub.",
    ),
    Metric(
        "headrace_idempotent_total",
        "counter",
        ("outcome",),
        "requests",
        "Requests with an Idempotency-Key: new (became a run), watched (its run was there), archived (answered from "
        "the record), reused (another request under the same key, 422).",
        "reused: a client takes one key for different requests; its errors say so.",
    ),
    # --- the stages
    Metric(
        "headrace_stage_duration_seconds",
        "histogram",
        ("stage",),
        "seconds",
        "Time in a stage; stage: accept, authorization, rules, persons, queue, upstream, end.",
        "The stage that grew is the one to scale.",
        _STAGE,
    ),
    Metric(
        "headrace_queue_wait_seconds",
        "histogram",
        ("model",),
        "seconds",
        "From cleared to claimed.",
        "Growing: the pool has too few slots.",
        _STAGE,
    ),
    Metric(
        "headrace_handled_total",
        "counter",
        ("stream", "group", "outcome"),
        "entries",
        "Entries a group has finished; outcome: done, again, dead, error.",
    ),
    Metric(
        "headrace_stream_length",
        "gauge",
        ("stream",),
        "entries",
        "Entries that lie in a stream.",
        "Growing while lag is 0: trimming does not run; look for errors of the sweeper.",
    ),
    Metric(
        "headrace_stream_lag",
        "gauge",
        ("stream", "group"),
        "entries",
        "Entries a group has not read yet.",
        "Growing: the group is too slow or has no consumer; scale its room.",
    ),
    Metric(
        "headrace_stream_pending",
        "gauge",
        ("stream", "group"),
        "entries",
        "Entries delivered and not acknowledged.",
        "Constant while lag grows: consumers hang; `headrace lag` shows the oldest.",
    ),
    Metric(
        "headrace_stream_waiting",
        "gauge",
        ("stream", "group"),
        "requests",
        "Cleared requests that wait before a lane for a free slot.",
        "Growing: the engines of that pool are full. Add slots or engines; a router more helps only a busy router.",
    ),
    Metric(
        "headrace_stream_oldest_pending_seconds",
        "gauge",
        ("stream", "group"),
        "seconds",
        "Idle time of the oldest unacknowledged entry.",
        "Above a few idle limits: nobody reclaims; is a consumer of the group alive?",
    ),
    Metric(
        "headrace_redeliveries_total",
        "counter",
        ("stream", "group"),
        "entries",
        "Entries taken over from another consumer.",
        "Expected after a restart; steady means handlers that take longer than the idle limit, or crash.",
    ),
    Metric(
        "headrace_dlq_total",
        "counter",
        ("stream", "reason"),
        "entries",
        "Entries that became dead letters.",
        "`headrace dlq list` shows why; replay after the cause is gone.",
    ),
    Metric(
        "headrace_group_consumers",
        "gauge",
        ("group",),
        "processes",
        "Processes that serve a group and stay; killed ones count for 15 s more.",
        "0 for a minute: nobody serves it. `headrace start ROOM`, or `headrace scale GROUP N`.",
    ),
    Metric("headrace_dlq_length", "gauge", ("partition",), "entries", "Dead letters.", "Show, then replay or purge."),
    Metric(
        "headrace_owner_lost_total",
        "counter",
        ("action",),
        "runs",
        "Writes refused because another consumer owns the run; action: beat, flush, end.",
        "Without restarts: a router blocks its loop longer than the idle limit.",
    ),
    Metric(
        "headrace_swept_total",
        "counter",
        ("reason",),
        "runs",
        "Runs ended by the sweeper; reason: deadline, left (nobody watches), astray.",
        "Runs reach their deadline: no router takes them or engines hang.",
    ),
    Metric(
        "headrace_redis_losses_total",
        "counter",
        ("connection",),
        "losses",
        "Connections to Redis that broke.",
        "Look at the server's log and the network.",
    ),
    # --- who may, and what was found
    Metric(
        "headrace_verdicts_total",
        "counter",
        ("family", "verdict"),
        "verdicts",
        "Answers of the families; verdict: pass, refuse, edits, skip.",
        "Many skips: a family is too slow for its timeout.",
    ),
    Metric("headrace_findings_total", "counter", ("scanner", "action"), "findings", "action: block, redact, flag."),
    Metric(
        "headrace_guardrail_duration_seconds",
        "histogram",
        ("family",),
        "seconds",
        "Time a family took to judge one request.",
        "Growing: scale the guardrails room.",
        _STAGE,
    ),
    Metric(
        "headrace_limit_rejections_total",
        "counter",
        ("limit",),
        "requests",
        "Requests over a limit; limit: requests_per_minute, concurrency, live (runs.most), wait (runs.most_wait).",
        "wait with idle engines: their `slots` are too few; live: raise runs.most where memory allows it.",
    ),
    # --- engines
    Metric(
        "headrace_upstream_attempts_total",
        "counter",
        ("endpoint", "outcome"),
        "calls",
        "Calls of endpoints; outcome: ok, an error code, cancelled, or unclaimed: begun early for a run that then went "
        "elsewhere.",
        "One endpoint with many errors: `headrace deployments list` says what its last probe saw.",
    ),
    Metric(
        "headrace_endpoint_up",
        "gauge",
        ("endpoint", "model"),
        "0 or 1",
        "Whether the endpoint answered its last probe.",
        "0: `headrace deployments logs NAME`.",
    ),
    Metric("headrace_endpoint_inflight", "gauge", ("endpoint",), "requests", "Requests at an endpoint from here."),
    Metric(
        "headrace_endpoint_breaker_state",
        "gauge",
        ("endpoint",),
        "0, 1 or 2",
        "0: it gets requests. 1: half open, the next request tries it again. 2: left out after failures in a row.",
        "2: `headrace route explain --model NAME` and the router's log say since when and why.",
    ),
    Metric(
        "headrace_endpoint_ejections_total",
        "counter",
        ("endpoint",),
        "times",
        "How often an endpoint was left out after failures in a row (router.breaker).",
        "Rising: the engine fails again whenever it comes back; `headrace deployments logs NAME`, then stop it.",
    ),
    Metric(
        "headrace_endpoint_ttft_seconds",
        "gauge",
        ("endpoint",),
        "seconds",
        "Time to the first byte of an endpoint's answers as routers expect it now: a moving average over 10 s, 0 = "
        "not used lately.",
        "One far above the others of its pool: strategy peak_ewma or latency keeps requests away from it.",
    ),
    Metric(
        "headrace_engine_restarts_total",
        "counter",
        ("deployment",),
        "restarts",
        "Local engines started again after they died.",
        "Rising: memory? `headrace deployments logs NAME`.",
    ),
    Metric(
        "headrace_drains_total",
        "counter",
        ("deployment", "outcome"),
        "engines",
        "Engines that were to go; outcome: idle (nothing ran there), timeout (drain_s was over), now (not waited for).",
        "Many timeouts cut answers off: raise provisioner.drain_s above the longest answer.",
    ),
    Metric("headrace_deployments", "gauge", ("target", "state"), "deployments", "Deployments by state."),
    Metric(
        "headrace_replicas_wanted",
        "gauge",
        ("deployment",),
        "engines",
        "Engines a deployment should have.",
        "Change it with `headrace deployments scale NAME N`.",
    ),
    Metric(
        "headrace_replicas_ready",
        "gauge",
        ("deployment",),
        "engines",
        "Engines of a deployment that answer.",
        "Below headrace_replicas_wanted for long: `headrace deployments show NAME`, then its logs.",
    ),
    # --- the record
    Metric("headrace_audit_written_total", "counter", ("table",), "rows", "Rows written; table: facts, requests."),
    Metric(
        "headrace_audit_lag_seconds",
        "gauge",
        (),
        "seconds",
        "Age of the oldest fact that is not in PostgreSQL.",
        "Growing: PostgreSQL is away or slow. Requests go on; the facts wait in Redis.",
    ),
    Metric("headrace_build_info", "gauge", ("version", "room"), "1", "Which version runs in which room."),
)
