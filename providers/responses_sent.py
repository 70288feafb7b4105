"""What went out of a response that broke off: read from the run's own stream, for the record and for its last event.
Pure."""

from __future__ import annotations

from providers.openai_continue import Told
from providers.responses_events import event
from schemas.errors import Failure
from schemas.response_events import Told as ToldEvents
from schemas.responses import error_object

_NOT_CONTINUED = "a response is more than text: it is not continued"


def read(sent: bytes) -> Told:
    """What the client has; never to be continued. Each delta is at least one token."""
    return Told(head={"object": "response"}, pieces=_heard(sent).deltas, odd=_NOT_CONTINUED)


def failed(sent: bytes, number: int, failure: Failure) -> bytes:
    """The last event of a response whose engine failed: response.failed with what was said. number: its own.
    ValueError when the events do not begin a response."""
    told = _heard(sent)
    if told.response is None:
        raise ValueError("the events do not begin with a response")
    response = {
        **told.response,
        "status": "failed",
        "error": error_object(failure),
        "output": told.output(broken=True),
    }
    return event("response.failed", number, {"response": response})


def _heard(sent: bytes) -> ToldEvents:
    told = ToldEvents()
    told.hear(sent)
    return told
