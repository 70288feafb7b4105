"""Section `server` of headrace.yaml: the door's address, limits and patience."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from base.settings import Section
from policy.disconnect import PATTERN, stated

MEBIBYTE = 1024 * 1024


class ServerSettings(Section):
    """Seconds unless the name says otherwise."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    backlog: int = Field(2048, ge=1, description="Connections the kernel holds until they are accepted.")
    body_limit: int = Field(20 * MEBIBYTE, ge=1024, description="Largest request body in bytes; over it 413.")
    body_timeout: float = Field(60.0, gt=0, description="Time for a request body to arrive; after it 408.")
    header_limit: int = Field(65536, ge=1024, description="Largest request head in bytes; over it 431.")
    header_count: int = Field(200, ge=10, description="Most headers of a request; over it 431.")
    header_timeout: float = Field(30.0, gt=0, description="Time for a request head to arrive; then the socket closes.")
    idle_timeout: float = Field(75.0, gt=0, description="How long a kept-alive connection may be idle.")
    deadline: float = Field(600.0, gt=0, description="Time a request may take when the client names none.")
    max_deadline: float = Field(3600.0, gt=0, description="Most that a client's x-stainless-read-timeout can ask for.")
    keep_alive: float = Field(15.0, gt=0, description="Silence on an open stream after which a comment is sent.")
    commit_after: float = Field(
        45.0, gt=0, description="Wait for the first frame of a stream before the answer begins with 200 and comments."
    )
    keep: float = Field(
        86_400.0,
        ge=1,
        description="How long the answer of a request with an Idempotency-Key, or with `store: true`, is kept.",
    )
    allow_store: bool = Field(
        True,
        description="Keep the answers of chat requests that say `store: true`, and responses with their input unless "
        "they say `store: false`. Off: nothing is kept for a client to ask for again, nothing runs in the background.",
    )
    background_deadline: float = Field(
        3600.0, gt=0, description="Time a response with `background: true` may take; nobody waits for it."
    )
    retry_grace: float = Field(
        10.0,
        ge=0,
        description="Where on_disconnect is cancel: how long a run with an Idempotency-Key goes on without a client, "
        "which may come again. 0: not at all.",
    )
    stall_limit: float = Field(60.0, gt=0, description="A reader that takes nothing for this long is cut off.")
    on_disconnect: Annotated[str, BeforeValidator(stated)] = Field(
        "cancel",
        pattern=PATTERN,
        description="When the last client of a run leaves: cancel, finish, or grace:<seconds>, then cancel. A key's or "
        "a model's own goes before it.",
    )
    drain_delay: float = Field(
        0.0, ge=0, description="On stop: time with /readyz at 503 before the port closes, for load balancers."
    )
    drain_limit: float = Field(600.0, gt=0, description="On stop: time for open answers to finish before they are cut.")
    expose_metrics: bool = Field(True, description="Serve /metrics on this port too, without authentication.")
