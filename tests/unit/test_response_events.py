"""What events of a response told so far, and how its failures are named."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseError

from providers.responses_events import event
from schemas.errors import Code, Failure
from schemas.response_events import Told
from schemas.responses import CODES, error_object


def told(*events: tuple[str, dict[str, Any]]) -> Told:
    heard = Told()
    for number, (kind, fields) in enumerate(events):
        heard.hear(event("response." + kind, number, fields))
    return heard


def item(kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    shown = {"id": kind, "type": kind, "status": "in_progress", **fields}
    return "output_item.added", {"output_index": 0, "item": shown}


AT: dict[str, Any] = {"output_index": 0, "item_id": "x"}


def test_text_grows_in_its_part_and_what_is_done_replaces_what_was_begun() -> None:
    part = {"type": "output_text", "text": ""}
    begun = [
        ("created", {"response": {"id": "r"}}),
        item("message", content=[]),
        ("content_part.added", {**AT, "content_index": 0, "part": part}),
        ("output_text.delta", {**AT, "content_index": 0, "delta": "he"}),
        ("output_text.delta", {**AT, "content_index": 0, "delta": "llo"}),
    ]
    heard = told(*begun)
    assert heard.response == {"id": "r"} and (heard.deltas, heard.events) == (2, 5)
    assert heard.output()[0]["content"][0]["text"] == "hello" and heard.output()[0]["status"] == "in_progress"
    assert heard.output(broken=True)[0]["status"] == "incomplete"
    done = {"id": "message", "type": "message", "status": "completed", "content": []}
    assert told(*begun, ("output_item.done", {"output_index": 0, "item": done})).output(broken=True) == [done]


@pytest.mark.parametrize(
    ("begun", "grows", "field"),
    [
        (item("function_call", arguments=""), "function_call_arguments.delta", "arguments"),
        (item("custom_tool_call", input=""), "custom_tool_call_input.delta", "input"),
    ],
)
def test_what_calls_say_grows_in_the_item(begun: tuple[str, dict[str, Any]], grows: str, field: str) -> None:
    assert told(begun, (grows, {**AT, "delta": "a"}), (grows, {**AT, "delta": "b"})).output()[0][field] == "ab"


def test_a_summary_of_thoughts_grows_in_its_own_list() -> None:
    added = ("reasoning_summary_part.added", {**AT, "summary_index": 0, "part": {"type": "summary_text", "text": ""}})
    grown = ("reasoning_summary_text.delta", {**AT, "summary_index": 0, "delta": "hm"})
    assert told(item("reasoning", summary=[]), added, grown).output()[0]["summary"][0]["text"] == "hm"


def test_what_has_no_place_adds_nothing_and_is_counted() -> None:
    heard = told(("output_text.delta", {**AT, "content_index": 0, "delta": "x"}), ("some.day", {}), ("created", {}))
    assert heard.output() == [] and heard.response is None and heard.events == 3


def test_codes_are_those_of_the_official_client() -> None:
    assert frozenset(get_args(ResponseError.model_fields["code"].annotation)) == CODES


@pytest.mark.parametrize(
    ("failure", "code", "kind"),
    [
        (Failure(code=Code.upstream_interrupted, message="x"), "server_error", "upstream_interrupted"),
        (Failure(code=Code.no_engine, message="x"), "server_error", "no_engine"),
        (Failure(code=Code.rate_limit_exceeded, message="x"), "rate_limit_exceeded", "rate_limit_exceeded"),
        (Failure(code=Code.content_policy_violation, message="x"), "invalid_prompt", "content_policy_violation"),
        (Failure(code=Code.context_length_exceeded, message="x"), "invalid_prompt", "context_length_exceeded"),
        (Failure(code=Code.invalid_request, message="x", public_code="image_parse_error"), *["image_parse_error"] * 2),
        (Failure(code=Code.upstream_error, message="x", status=429, public_code="slow"), "rate_limit_exceeded", "slow"),
        (Failure(code="of a newer writer", message="x"), "server_error", "of a newer writer"),
    ],
)
def test_a_failure_is_named_in_the_clients_words_and_in_ours(failure: Failure, code: str, kind: str) -> None:
    shown = error_object(failure)
    assert (shown["code"], shown["type"], shown["message"]) == (code, kind, "x")
    assert ResponseError.model_validate(shown).code == code
