"""Metrics of ended runs, counted once per run: only rows that were new are measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from base import metrics
from schemas.records import RequestRecord
from schemas.routes import GENERATED, OPERATIONS


def measure(rows: Iterable[RequestRecord]) -> None:
    """Tokens, cost, duration and time to first token. Names that no catalog knows (404) share one label."""
    alike: dict[tuple[str, str, str], list[RequestRecord]] = defaultdict(list)  # labels are looked up once for all
    for row in rows:
        alike[row.route, row.model if row.endpoint else "", row.code].append(row)
    for (route, model, code), some in alike.items():
        labels = _labels(route, model, code)
        metrics.observe_all(
            "gen_ai_server_request_duration_seconds", [row.duration_ms / 1000 for row in some], **labels
        )
        first = [row.ttft_ms / 1000 for row in some if row.ttft_ms]
        metrics.observe_all("gen_ai_server_time_to_first_token_seconds", first, **labels)
        if counted := [row for row in some if row.prompt_tokens or row.completion_tokens]:
            _measure_tokens(route, model, counted, labels)


def _measure_tokens(route: str, model: str, rows: Sequence[RequestRecord], labels: dict[str, str]) -> None:
    prompt, completion = [row.prompt_tokens for row in rows], [row.completion_tokens for row in rows]
    metrics.inc("headrace_tokens_total", sum(prompt), model=model, type="input")
    metrics.inc("headrace_tokens_total", sum(completion), model=model, type="output")
    metrics.inc("headrace_cost_micros_total", sum([row.cost_micros for row in rows]), model=model)
    metrics.observe_all("gen_ai_client_token_usage", prompt, **labels, gen_ai_token_type="input")
    if route in GENERATED:  # an embedding has no output tokens, not even none
        metrics.observe_all("gen_ai_client_token_usage", completion, **labels, gen_ai_token_type="output")
    steps = [_step(row) for row in rows if row.stream and row.first_ms and row.completion_tokens > 1]
    metrics.observe_all("gen_ai_server_time_per_output_token_seconds", steps, **labels)


def _step(row: RequestRecord) -> float:
    """Seconds from one token to the next."""
    return (row.ended_ms - row.first_ms) / 1000 / (row.completion_tokens - 1)


def _labels(route: str, model: str, code: str) -> dict[str, str]:
    return {
        "gen_ai_operation_name": OPERATIONS.get(route, "chat"),
        "gen_ai_provider_name": "headrace",
        "gen_ai_request_model": model,
        "gen_ai_response_model": model,
        "error_type": code,
    }
