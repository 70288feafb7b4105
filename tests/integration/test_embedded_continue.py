"""The real small model goes on with a beginning of its own answer, asked as the dialect asks, and repeats nothing."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from providers.openai_continue import Continued, Told, read, request
from schemas.records import CONTINUE_FINAL_MESSAGE, PREFILL
from tests.integration.test_embedded_engine import engine_url as engine_url

ASKED: dict[str, Any] = {
    "model": "small",
    "stream": True,
    "max_tokens": 14,
    "temperature": 0,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "Tell me a story about a river and a mill."}],
}


def _events(url: str, body: bytes) -> list[bytes]:
    with httpx.stream("POST", f"{url}/v1/chat/completions", content=body, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        return [line.removeprefix("data: ").encode() for line in answer.iter_lines() if line.startswith("data: ")]


def _told(events: list[bytes]) -> Told:
    return read(b"".join(b"data: %b\n\n" % event for event in events if event != b"[DONE]"))


@pytest.mark.model
def test_the_rest_of_an_answer_is_what_it_would_have_been(engine_url: str) -> None:
    whole = _events(engine_url, orjson.dumps(ASKED))
    text, counts = _told(whole).text, orjson.loads(whole[-2])["usage"]
    for cut, how in ((5, PREFILL), (9, CONTINUE_FINAL_MESSAGE)):
        told = _told(whole[:cut])
        assert not told.odd
        rest = Continued("small", True, told)
        sent = [rest.take(event) for event in _events(engine_url, request(orjson.dumps(ASKED), told, how))]
        said = _told([event.removeprefix(b"data: ").rstrip() for event in sent if event])
        assert told.text + said.text == text and rest.finish_reason == "length", (cut, how)
        assert rest.usage is not None and rest.usage.completion_tokens == counts["completion_tokens"]
        assert abs(rest.usage.prompt_tokens - counts["prompt_tokens"]) <= 2  # what the template puts in front
