"""Which dialect a run's engine is spoken to in: chosen by the route and by what the endpoint speaks alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from providers import openai_openai, responses_chunks, responses_openai, responses_responses
from providers.openai_continue import Continued, Told
from providers.ports import Answered, Dialect, EngineStream, Question
from providers.responses_sent import ContinuedResponse
from schemas.records import SPEAKS_RESPONSES
from schemas.routes import EMBEDDINGS, RESPONSES


@dataclass(frozen=True, slots=True)
class OpenAi:
    """Chat, completions and embeddings to an engine that offers the same route."""

    def path(self, question: Question) -> str:
        """See Dialect."""
        return question.route.removeprefix("/v1")

    def request(self, question: Question, upstream_model: str) -> bytes:
        """See Dialect."""
        return openai_openai.request(question.body, upstream_model, question.stream)

    def answer(self, question: Question, body: bytes, ended_ms: int = 0) -> Answered:
        """See Dialect."""
        return openai_openai.answer(body, question.model, "data" if question.route == EMBEDDINGS else "choices")

    def stream(self, question: Question) -> EngineStream:
        """See Dialect."""
        return openai_openai.ChatStream(question.model, question.show_usage)


@dataclass(frozen=True, slots=True)
class ResponsesOverChat:
    """Responses to an engine that only speaks chat."""

    def path(self, question: Question) -> str:
        """See Dialect."""
        return responses_openai.PATH

    def request(self, question: Question, upstream_model: str) -> bytes:
        """See Dialect."""
        return responses_openai.request(question, upstream_model)

    def answer(self, question: Question, body: bytes, ended_ms: int = 0) -> Answered:
        """See Dialect."""
        return responses_chunks.answer(question, body, ended_ms)

    def stream(self, question: Question) -> EngineStream:
        """See Dialect."""
        return responses_chunks.ResponseStream(question)


@dataclass(frozen=True, slots=True)
class ResponsesPassed:
    """Responses to an engine that speaks them itself."""

    def path(self, question: Question) -> str:
        """See Dialect."""
        return responses_responses.PATH

    def request(self, question: Question, upstream_model: str) -> bytes:
        """See Dialect."""
        return responses_responses.request(question, upstream_model)

    def answer(self, question: Question, body: bytes, ended_ms: int = 0) -> Answered:
        """See Dialect."""
        return responses_responses.answer(question, body, ended_ms)

    def stream(self, question: Question) -> EngineStream:
        """See Dialect."""
        return responses_responses.PassedStream(question)


def continued_stream(question: Question, told: Told) -> EngineStream:
    """For the rest of an answer, which a chat engine tells. See openai_continue."""
    if question.route == RESPONSES:
        return ContinuedResponse(question, told)
    return Continued(question.model, question.show_usage, told)


def chat_of(question: Question) -> bytes:
    """The request that its rest would be asked with. Untranslatable."""
    return responses_openai.request(question, "") if question.route == RESPONSES else question.body


_OPENAI, _OVER_CHAT, _PASSED = OpenAi(), ResponsesOverChat(), ResponsesPassed()


def dialect_of(route: str, speaks: Sequence[str] = ()) -> Dialect:
    """The dialect for a run of this route at an endpoint that speaks these."""
    if route != RESPONSES:
        return _OPENAI
    return _PASSED if SPEAKS_RESPONSES in speaks else _OVER_CHAT
