"""What is known of one run while the router works on it, and the facts that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from providers.openai_continue import Told
from providers.ports import Answered, EngineStream, Question
from schemas.errors import Failure
from schemas.events import Attempt, Choice, RequestCancelled, RequestCompleted, RequestFailed, Usage
from schemas.ports import RunLease
from schemas.verdicts import Grant, Verdict
from workers.router.rules import without_words

OK = "ok"


def _nobody() -> None:
    """Until an endpoint is called."""


@dataclass(slots=True)
class Work:
    """A cleared run. started: monotonic seconds of the claim, or when it was begun before that. said: the verdicts of
    the guards. speaks: the APIs of the present endpoint; why: what it was chosen from; answered: told when the first
    byte of its answer is here. sent: what earlier owners have sent; told: what the client has of an answer that is to
    be continued; continued: how often that was tried; unable: endpoints that cannot; after: events that the client had
    when the present call began."""

    lease: RunLease
    grant: Grant
    body: bytes
    show_usage: bool
    started: float
    attempts: list[Attempt] = field(default_factory=list)
    said: tuple[Verdict, ...] = ()
    endpoint: str = ""
    speaks: tuple[str, ...] = ()
    why: Choice | None = None
    answered: Callable[[], None] = _nobody
    usage: Usage | None = None
    first_at: float | None = None
    sent: Told | None = None
    told: Told | None = None
    continued: int = 0
    unable: frozenset[str] = frozenset()
    after: int = 0
    _question: Question | None = None

    @property
    def question(self) -> Question:
        """The run as a dialect sees it."""
        if self._question is None:
            self._question = _question_of(self)
        return self._question

    @property
    def deadline(self) -> float:
        """Monotonic seconds of the run's end."""
        return self.started + self.lease.deadline_s

    @property
    def tried(self) -> frozenset[str]:
        """Endpoints that are not to be called (again)."""
        return self.unable.union([one.endpoint for one in self.attempts]) if self.attempts else self.unable

    def since_claim(self, now: float) -> int:
        """Milliseconds from the claim to `now`."""
        return max(0, round((now - self.started) * 1000))

    def note(self, started: float, ended: float, outcome: str, status: int) -> None:
        """One call of the present endpoint is over."""
        self.attempts.append(
            Attempt(
                endpoint=self.endpoint,
                started_ms=self.since_claim(started),
                ended_ms=self.since_claim(ended),
                outcome=outcome,
                status=status,
                why=self.why,
                after=self.after,
            )
        )

    def unserved(self, failure: Failure, now: float) -> None:
        """No endpoint could be called at all: the record says why all the same."""
        if not self.attempts:
            self.note(now, now, failure.code, 0)

    def completed(self, usage: Usage, finish_reason: str, events: int, now: float) -> RequestCompleted:
        """The answer is whole; `events` in all."""
        return RequestCompleted(
            run=self.lease.run,
            model=self.lease.accepted.model,
            endpoint=self.endpoint,
            usage=usage,
            finish_reason=finish_reason,
            events=events,
            ttft_ms=self.since_claim(self.first_at or now),
            upstream_ms=self.since_claim(now),
            attempts=tuple(self.attempts),
        )

    def failed(self, failure: Failure, now: float) -> RequestFailed:
        """It ended with an error, the last event."""
        return RequestFailed(
            run=self.lease.run,
            failure=without_words(failure),
            model=self.lease.accepted.model,
            endpoint=self.endpoint,
            usage=self.usage,
            events=self.lease.sequence + 1,
            ttft_ms=self.since_claim(self.first_at) if self.first_at else 0,
            upstream_ms=self.since_claim(now),
            attempts=tuple(self.attempts),
        )

    def cancelled(self, now: float) -> RequestCancelled:
        """Nobody waits for it; what was generated is billed."""
        return RequestCancelled(
            run=self.lease.run,
            by=self.lease.by,
            model=self.lease.accepted.model,
            endpoint=self.endpoint,
            usage=self.usage,
            events=self.lease.sequence + 1,
            ttft_ms=self.since_claim(self.first_at) if self.first_at else 0,
            upstream_ms=self.since_claim(now),
            attempts=tuple(self.attempts),
        )


def stream_usage(stream: EngineStream, prompt_tokens: int) -> Usage | None:
    """The engine's counts, else ours: every event with text is at least one token. None when nothing was generated."""
    if stream.usage is not None:
        return stream.usage
    if not stream.pieces:
        return None
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=stream.pieces, estimated=True)


def nothing_usage(prompt_tokens: int) -> Usage:
    """A whole answer without text and without the engine's counts."""
    return Usage(prompt_tokens=prompt_tokens, estimated=True)


def unary_usage(answer: Answered, prompt_tokens: int) -> Usage:
    """The engine's counts, else four bytes of text a token."""
    if answer.usage is not None:
        return answer.usage
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=-(-answer.text_bytes // 4), estimated=True)


def _question_of(work: Work) -> Question:
    accepted = work.lease.accepted
    return Question(
        run=accepted.run,
        route=accepted.route,
        model=accepted.model,
        body=work.body,
        stream=accepted.stream,
        show_usage=work.show_usage,
        accepted_ms=work.lease.accepted_ms,
    )
