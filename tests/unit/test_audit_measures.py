"""What is measured of ended runs: the operation by route, and no output tokens where a route has none."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from base import metrics
from schemas.routes import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS
from tests.storage_support import REQUEST
from workers.audit.measures import measure


def lines(model: str, *words: str) -> list[str]:
    """The samples of this model that name all the words."""
    text = metrics.exposition().decode().splitlines()
    return [line for line in text if f'"{model}"' in line and all(word in line for word in words)]


@pytest.mark.parametrize(
    ("route", "operation"),
    [(CHAT, "chat"), (COMPLETIONS, "text_completion"), (EMBEDDINGS, "embeddings"), (MODERATIONS, "moderation")],
)
def test_each_route_is_an_operation(route: str, operation: str) -> None:
    model = f"measured-{operation}"
    measure([replace(REQUEST, route=route, model=model, endpoint="e", prompt_tokens=0, completion_tokens=0)])
    found = lines(model, "gen_ai_server_request_duration_seconds_count")
    assert len(found) == 1 and f'gen_ai_operation_name="{operation}"' in found[0]


def test_an_embedding_has_input_tokens_only() -> None:
    for route, model in ((EMBEDDINGS, "measured-vectors"), (CHAT, "measured-words")):
        measure([replace(REQUEST, route=route, model=model, endpoint="e", prompt_tokens=5, completion_tokens=0)])
    assert lines("measured-vectors", "gen_ai_client_token_usage_count", 'type="input"')
    assert not lines("measured-vectors", "gen_ai_client_token_usage", 'gen_ai_token_type="output"')
    assert lines("measured-words", "gen_ai_client_token_usage_count", 'gen_ai_token_type="output"')


def test_what_no_run_had_is_not_shown() -> None:
    measure([replace(REQUEST, model="measured-whole", endpoint="e", stream=False, ttft_ms=0)])
    assert lines("measured-whole", "gen_ai_server_request_duration_seconds_count")
    assert not lines("measured-whole", "time_to_first_token")
    assert not lines("measured-whole", "time_per_output_token")
