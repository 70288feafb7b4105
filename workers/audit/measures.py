"""Metrics of ended runs, counted once per run: only rows that were new are measured."""

from __future__ import annotations

from collections.abc import Iterable

from base import metrics
from schemas.records import RequestRecord
from schemas.routes import GENERATED, OPERATIONS


def measure(rows: Iterable[RequestRecord]) -> None:
    """Tokens, cost, duration and time to first token. Names that no catalog knows (404) share one label."""
    sums: dict[str, list[int]] = {}  # model -> tokens in, tokens out, micros: counted once for all rows
    for row in rows:
        model = row.model if row.endpoint else ""
        labels = _labels(row, model)
        metrics.observe("gen_ai_server_request_duration_seconds", row.duration_ms / 1000, **labels)
        if row.ttft_ms:
            metrics.observe("gen_ai_server_time_to_first_token_seconds", row.ttft_ms / 1000, **labels)
        if row.prompt_tokens or row.completion_tokens:
            _measure_tokens(row, labels)
            total = sums.setdefault(model, [0, 0, 0])
            for n, more in enumerate((row.prompt_tokens, row.completion_tokens, row.cost_micros)):
                total[n] += more
    for model, (prompt, completion, micros) in sums.items():
        metrics.inc("headrace_tokens_total", prompt, model=model, type="input")
        metrics.inc("headrace_tokens_total", completion, model=model, type="output")
        metrics.inc("headrace_cost_micros_total", micros, model=model)


def _measure_tokens(row: RequestRecord, labels: dict[str, str]) -> None:
    metrics.observe("gen_ai_client_token_usage", row.prompt_tokens, **labels, gen_ai_token_type="input")
    if row.route in GENERATED:  # an embedding has no output tokens, not even none
        metrics.observe("gen_ai_client_token_usage", row.completion_tokens, **labels, gen_ai_token_type="output")
    if row.stream and row.first_ms and row.completion_tokens > 1:
        seconds = (row.ended_ms - row.first_ms) / 1000 / (row.completion_tokens - 1)
        metrics.observe("gen_ai_server_time_per_output_token_seconds", seconds, **labels)


def _labels(row: RequestRecord, model: str) -> dict[str, str]:
    return {
        "gen_ai_operation_name": OPERATIONS.get(row.route, "chat"),
        "gen_ai_provider_name": "headrace",
        "gen_ai_request_model": model,
        "gen_ai_response_model": model,
        "error_type": row.code,
    }
