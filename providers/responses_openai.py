"""From a Responses request to an engine that speaks chat completions only. Pure: bytes in, bytes out.

    request   the client's body -> that of a chat completion
    back      responses_chunks: a chat completion, or its chunks -> a response, or its events

The bound of the answer is sent as max_tokens: that is the name which vLLM, SGLang, llama.cpp, TGI and Ollama all obey;
some of them pass over max_completion_tokens without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.errors import Untranslatable
from providers.ports import Question
from providers.responses_items import messages_of, shown
from providers.responses_object import dump, load

PATH = "/chat/completions"

#: Fields that end here: said in another way to the engine, or the gateway's own affair.
_SAID = frozenset((
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning",
    "max_output_tokens", "max_tool_calls", "include", "truncation", "previous_response_id", "store", "background",
    "stream", "stream_options",
))  # fmt: skip
#: What no chat engine does -> what to do instead.
NOT_DONE: Mapping[str, str] = {
    "conversation": "name the turn before in 'previous_response_id'",
    "prompt": "send 'instructions' and 'input'",
    "context_management": "leave it out, and send fewer items when the context is full",
    "moderation": "leave it out: the guardrails of this gateway judge, and /v1/moderations says what they find",
    "access_programs": "leave it out",
    "image": "leave it out",
}
_THOUGHTS = "leave it out: thoughts are told in full where the engine tells any"
#: A field, one inside it, values by which it asks for what no chat engine does -> what to do instead.
_NOT_SO: Mapping[tuple[str, str], tuple[tuple[Any, ...], str]] = {
    ("truncation", ""): (("auto",), NOT_DONE["context_management"]),
    ("prompt_cache_options", "prewarm"): ((True,), "leave it out"),
    ("reasoning", "summary"): (("concise", "detailed"), _THOUGHTS),
    ("reasoning", "generate_summary"): (("concise", "detailed"), _THOUGHTS),
}
#: Fields of a chat completion that would contradict the request -> what says the same here.
_MOVED: Mapping[str, str] = {
    "messages": "'input'",
    "max_tokens": "'max_output_tokens'",
    "max_completion_tokens": "'max_output_tokens'",
    "response_format": "'text.format'",
    "reasoning_effort": "'reasoning.effort'",
    "functions": "'tools'",
    "function_call": "'tool_choice'",
    "n": "a request for each answer",
    "logprobs": "/v1/chat/completions",
    "top_logprobs": "/v1/chat/completions",
}
#: What may be asked to be included: it is there anyhow, or comes of tools and thoughts that a chat engine has not.
_INCLUDABLE = frozenset((
    "message.input_image.image_url", "reasoning.encrypted_content", "code_interpreter_call.outputs",
    "computer_call_output.output.image_url", "file_search_call.results", "web_search_call.action.sources",
    "web_search_call.results",
))  # fmt: skip
_LOGPROBS = "message.output_text.logprobs"


def request(question: Question, upstream_model: str) -> bytes:
    """The engine's request. Untranslatable where a chat completion has no words for what is asked."""
    body = load(question.body)
    _refuse(body)
    asked = {
        "model": upstream_model or question.model,
        "messages": messages_of(body.get("instructions"), body.get("input")),
        **{name: value for name, value in body.items() if name not in _SAID and name not in _MOVED},
        **_tools(body),
        **_format(body),
    }
    effort = _inside(body, "reasoning", "effort")
    asked |= {"reasoning_effort": effort} if effort is not None else {}
    asked |= {"max_tokens": body["max_output_tokens"]} if body.get("max_output_tokens") is not None else {}
    asked |= {"stream": True, "stream_options": {"include_usage": True}} if question.stream else {}
    return dump(asked)


def _refuse(body: Mapping[str, Any]) -> None:
    """What would be passed over in silence, or contradict the rest."""
    for name, instead in NOT_DONE.items():
        if body.get(name) is not None:
            raise Untranslatable(name, f"The engine of this model does not offer '{name}': {instead}.")
    for (name, field), (values, instead) in _NOT_SO.items():
        value = _inside(body, name, field) if field else body.get(name)
        if value in values:
            where = f"{name}.{field}" if field else name
            raise Untranslatable(where, f"The engine of this model cannot do '{where}: {value}': {instead}.")
    for name, instead in _MOVED.items():
        if body.get(name):
            raise Untranslatable(name, f"'{name}' does not belong to this route: use {instead}.")
    _refuse_included(body.get("include") or [])


def _refuse_included(names: Any) -> None:
    if not isinstance(names, list):
        raise Untranslatable("include", "Invalid value for 'include': it must be a list.")
    if _LOGPROBS in names:
        raise Untranslatable("include", "Log probabilities are not offered on this route: use /v1/chat/completions.")
    if not all(isinstance(name, str) and name in _INCLUDABLE for name in names):
        raise Untranslatable("include", "The engine of this model has nothing of that name to include.")


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """tools, tool_choice and parallel_tool_calls; engines refuse the latter two without the first."""
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise Untranslatable("tools", "Invalid value for 'tools': it must be a list.")
    functions = [_function(f"tools[{number}]", tool) for number, tool in enumerate(tools)]
    choice, allowed = _choice(body.get("tool_choice"))
    if allowed is not None:
        functions = [one for one in functions if one["function"]["name"] in allowed]
    if not functions:
        return {"tool_choice": choice} if choice not in (None, "auto", "none") else {}
    said = {"tools": functions, "tool_choice": choice, "parallel_tool_calls": body.get("parallel_tool_calls")}
    return {name: value for name, value in said.items() if value is not None}


def _function(where: str, tool: Any) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        message = f"The engine of this model cannot run tools of {shown(kind)}: only functions, which the client runs."
        raise Untranslatable(f"{where}.type", message)
    if not isinstance(tool.get("name"), str):
        raise Untranslatable(f"{where}.name", f"Invalid value for '{where}.name': it must be a text.")
    kept = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in kept if tool.get(name) is not None}}


def _choice(choice: Any) -> tuple[Any, frozenset[str] | None]:
    """tool_choice as a chat says it, and the names of the tools that alone may be called; None = all."""
    if choice is None or isinstance(choice, str):
        return choice, None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}, None
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        names = [tool.get("name") for tool in choice["tools"] if isinstance(tool, dict)]
        return choice.get("mode"), frozenset(name for name in names if isinstance(name, str))
    raise Untranslatable("tool_choice", f"The engine of this model cannot be given a tool_choice of {shown(kind)}.")


def _format(body: Mapping[str, Any]) -> dict[str, Any]:
    """response_format and verbosity; plain text is what engines write by themselves."""
    verbosity, shape = _inside(body, "text", "verbosity"), _inside(body, "text", "format")
    said = {} if verbosity is None else {"verbosity": verbosity}
    kind = shape.get("type") if isinstance(shape, dict) else None
    if kind == "json_schema":
        kept = ("name", "description", "schema", "strict")
        schema = {name: shape[name] for name in kept if shape.get(name) is not None}
        return {**said, "response_format": {"type": "json_schema", "json_schema": schema}}
    if kind == "json_object":
        return {**said, "response_format": {"type": "json_object"}}
    if shape is not None and kind != "text":
        raise Untranslatable("text.format", f"The engine of this model cannot write a format of {shown(kind)}.")
    return said


def _inside(body: Mapping[str, Any], name: str, field: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Untranslatable(name, f"Invalid value for '{name}': it must be an object.")
    return value.get(field) if value else None
