"""Whether an answer that broke off may be continued from what the client has of it. Pure.

Refused where the rest would not be the rest of the same answer: several choices, anything that is decoded under a
grammar from its first token, tool calls, reasoning, log probabilities, a stop sequence that may have begun, a request
that begins the assistant's words itself. Then the run ends as broken, which is always right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from providers.openai_continue import Told
from schemas.routes import CHAT, COMPLETIONS, RESPONSES

#: Fields that put an answer under a grammar (OpenAI, vLLM, SGLang, llama.cpp) or make it more than one plain text.
_BARRED = (
    "tools",
    "functions",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "json_schema",
    "grammar",
    "regex",
    "ebnf",
    "structural_tag",
    "use_beam_search",
    "echo",
    "suffix",
    "audio",
    "prediction",
    "continue_final_message",
    "return_token_ids",
    "return_tokens_as_token_ids",
)
_THOUGHTS = ("<think>", "</think>")
_ONE = ("n", "best_of", "n_probs")


def refusal(route: str, body: bytes, told: Told) -> str:
    """Why the answer may not be continued; "" = it may. body: as the engine gets it, a response as a chat."""
    if told.odd:
        return told.odd
    if told.counted and not told.finish_reason:
        return "its tokens were counted before its end"
    if route not in (CHAT, COMPLETIONS, RESPONSES):
        return f"{route} has no text to go on with"
    asked = orjson.loads(body)
    return _asked_for(asked) or _shape(route, asked) or _seam(told.text) or _stopping(asked, told.text)


def _asked_for(asked: Mapping[str, Any]) -> str:
    barred = next((name for name in _BARRED if asked.get(name)), "")
    if barred:
        return f"it was asked for with {barred}"
    several = next((name for name in _ONE if asked.get(name) not in (None, 0, 1)), "")
    if several:
        return f"it was asked for with {several} above 1"
    shape = asked.get("response_format")
    if shape and not (isinstance(shape, dict) and shape.get("type") == "text"):
        return "it was asked for with a response_format"
    options = asked.get("stream_options")
    if isinstance(options, dict) and options.get("continuous_usage_stats"):
        return "it was asked for with continuous_usage_stats"
    return ""


def _shape(route: str, asked: Mapping[str, Any]) -> str:
    if route == COMPLETIONS:
        if not isinstance(asked.get("prompt"), str):
            return "its prompt is not one text"
        return "" if isinstance(asked.get("max_tokens"), int) else "engines differ in how long it may be by default"
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return "its messages cannot be read"
    return "the request begins the answer itself" if messages[-1].get("role") == "assistant" else ""


def _seam(text: str) -> str:
    """Chat templates leave out of an assistant's message what stands before </think>."""
    if any(mark in text for mark in _THOUGHTS):
        return "its thoughts stand in its text"
    return "it ends inside a character" if "\ud800" <= text[-1:] <= "\udbff" else ""


def _stopping(asked: Mapping[str, Any], text: str) -> str:
    """An engine looks for stop sequences in what it makes itself: one that has begun before would not be found."""
    stop = asked.get("stop")
    words = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    begun = any(
        text.endswith(word[:size]) for word in words if isinstance(word, str) for size in range(1, len(word) + 1)
    )
    return "a stop sequence may have begun" if begun else ""
