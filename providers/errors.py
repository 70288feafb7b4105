"""Every way a call of an engine can fail. Foreign exceptions are translated into these at the border.

    UpstreamFault
    ├── ConnectFailed      no connection: refused, unreachable, TLS, or an address that may not be called
    ├── FirstByteTimeout   connected, but no first byte of the answer's body in time
    ├── IdleTimeout        silent for too long between two pieces
    ├── TotalTimeout       the whole call took longer than it may
    ├── Broken             the connection ended inside the answer
    ├── EngineError        the engine's own error, by status or as an event of its stream
    ├── BadResponse        an answer that cannot be understood: not HTTP, not JSON, not an event stream
    └── Untranslatable     the request asks for what the endpoint's API has no words for; it was not called

Their texts are shown to operators and kept in records: they never carry a credential or a prompt.
"""

from __future__ import annotations

from schemas.errors import HeadraceError


class UpstreamFault(HeadraceError):
    """A call of an engine that gave no usable answer."""


class ConnectFailed(UpstreamFault):
    """No connection to the engine."""


class FirstByteTimeout(UpstreamFault):
    """The engine took the request and sent nothing in time."""


class IdleTimeout(UpstreamFault):
    """The engine fell silent inside its answer."""


class TotalTimeout(UpstreamFault):
    """The call as a whole took too long."""


class Broken(UpstreamFault):
    """The connection ended before the answer did."""


class BadResponse(UpstreamFault):
    """The engine sent something that is not an answer."""


def too_long(most: int) -> BadResponse:
    """For a body of more than `most` bytes."""
    return BadResponse(f"the engine's answer is longer than {most} bytes")


class Untranslatable(UpstreamFault):
    """The request cannot be said in the endpoint's API, so nothing was sent. `param`: the path of what cannot, made of
    names of fields and numbers; `message`: for the client alone."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"the endpoint's API has no words for {param}")
        self.param, self.message = param, message


class EngineError(UpstreamFault):
    """The engine's own error, as a status before the answer or as an event inside it (status 0 when it gave none).

    `type`, `code`, `message` and `param` are the engine's words, for the client alone: engines repeat prompts in them,
    so they are not in the exception's text. retry_after_ms is what it asked for, None = nothing."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(f"the engine answered with status {status}" if status else "the engine reported an error")
        self.status, self.message = status, message
        self.type, self.code, self.param = type, code, param
        self.retry_after_ms = retry_after_ms
