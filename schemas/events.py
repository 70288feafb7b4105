"""What happened, in the past tense. Frozen, versioned, signed by whoever saw it happen.

    RequestAccepted    door -> requests        a pointer to the sealed body, under 1 kB
    RequestCleared     script -> cleared       a bare pointer; carries no authority (scripts cannot sign)
    RequestCompleted   router -> facts         the answer was complete
    RequestFailed      any -> facts            it ended with an error and a code
    RequestRefused     authorization, guards   it was not allowed
    RequestCancelled   door, sweeper -> facts  nobody wanted it any more
    KeyChanged ...     console, provisioner -> control   names what to read again; no authority
    DrainAsked         console -> control      one process is to stop in order

The four endings are the terminal facts: exactly one per run. The script that ends a run adds beside `e` and `s`:
`a`/`as` the acceptance as it was signed, `v:<family>` each stored verdict, `t` the run's times (see FactTimes).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from schemas.envelope import message
from schemas.errors import Failure


@message
class RequestAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """A request became a run. The body lies sealed under {p}:body:<run>; this is its pointer.

    route: the public path. door: the ingress process that accepted it. key_id and secret_mac: the credential's id and
    HMAC(pepper, secret) by ring key mac_kid, never the secret. families: who must answer, the static list of this
    topology version. max_tokens: the client's own bound or None. prompt_tokens: an estimate (bytes / 4).
    on_disconnect: the server's policy, cancel | finish | grace:<seconds>; until authorization has answered nothing is
    done by it. disconnect_wish: what the request asks for instead, "" = nothing. priority: what the client asked for,
    None = its key's.
    keep_ms: how long its ended answer is kept, 0 = as long as any. once: the name of its Idempotency-Key, never the key
    itself, and asked: what was asked under it, as a MAC; "" = it has none. keep_body: its sealed body is kept with its
    answer. background: it goes on without a client, whatever the policies of key and model say.
    """

    run: str
    route: str
    model: str
    stream: bool
    key_id: str
    secret_mac: str
    mac_kid: str
    body_digest: str
    body_bytes: int
    door: str
    families: tuple[str, ...]
    topology: int = 1
    max_tokens: int | None = None
    prompt_tokens: int = 0
    lane: str = "interactive"
    client_request_id: str = ""
    on_disconnect: str = "cancel"
    priority: int | None = None
    disconnect_wish: str = ""
    keep_ms: int = 0
    once: str = ""
    asked: str = ""
    keep_body: bool = False
    background: bool = False
    version: int = 1


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCleared:
    """All families answered and none refused. Written by the verdict script; the router verifies every verdict."""

    run: str
    pool: str
    lane: str
    version: int = 1


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the engine counted them, or our own count with estimated=True."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as the router saw it when it chose. state: fit | half_open (its breaker wants a probe) | slow (no
    first byte for long) | resting (it asked for a pause) | full | open (left out by its breaker) | tried | down.

    in_use, slots: of that router. ttft_ms, peak_ms: averages of the time to the first byte. price: micros per
    1,000,000 tokens, 0 = unknown."""

    endpoint: str
    state: str
    in_use: int = 0
    slots: int = 0
    weight: int = 1
    ttft_ms: int = 0
    peak_ms: int = 0
    price: int = 0


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint was chosen from. of: how many the pool had; seen: the first of them, the chosen one always."""

    pool: str
    strategy: str
    of: int = 0
    seen: tuple[Seen, ...] = ()


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One call of one endpoint; endpoint "" = none could be called. outcome: ok, or a Code. Milliseconds count from
    the claim. why: what it was chosen from, None = written before this was recorded. after: events that the client had
    when it began; > 0: it went on with an answer that had broken off."""

    endpoint: str
    started_ms: int
    ended_ms: int
    outcome: str
    status: int = 0
    why: Choice | None = None
    after: int = 0


@message
class RequestCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The client's answer is complete. ttft_ms and upstream_ms count from the claim; events: SSE data events sent."""

    run: str
    model: str
    endpoint: str
    usage: Usage
    status: int = 200
    finish_reason: str = ""
    events: int = 0
    ttft_ms: int = 0
    upstream_ms: int = 0
    attempts: tuple[Attempt, ...] = ()
    version: int = 1


@message
class RequestFailed(msgspec.Struct, frozen=True, kw_only=True):
    """It ended with an error. usage is set when tokens were produced (billed, marked estimated where unknown)."""

    run: str
    failure: Failure
    model: str = ""
    endpoint: str = ""
    usage: Usage | None = None
    events: int = 0
    ttft_ms: int = 0
    upstream_ms: int = 0
    attempts: tuple[Attempt, ...] = ()
    version: int = 1


@message
class RequestRefused(msgspec.Struct, frozen=True, kw_only=True):
    """A family said no before any engine was called."""

    run: str
    family: str
    failure: Failure
    version: int = 1


@message
class RequestCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody waits for it any more. by: client | lost | operator. Usage as in RequestFailed."""

    run: str
    by: str
    model: str = ""
    endpoint: str = ""
    usage: Usage | None = None
    events: int = 0
    ttft_ms: int = 0
    upstream_ms: int = 0
    attempts: tuple[Attempt, ...] = ()
    version: int = 1


Terminal = RequestCompleted | RequestFailed | RequestRefused | RequestCancelled


class FactTimes(msgspec.Struct, frozen=True, kw_only=True):
    """When a run passed each door: Redis server time, milliseconds since the epoch, 0 = never."""

    accepted: int = 0
    cleared: int = 0
    claimed: int = 0
    first: int = 0
    ended: int = 0


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """A key was created, rotated, changed or revoked: drop what you cached of it."""

    key_id: str
    version: int = 1


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogChanged:
    """Endpoints or models of a pool changed: read the catalog again."""

    pool: str
    version: int = 1


@message
@dataclass(frozen=True, slots=True, kw_only=True)
class DrainAsked:
    """The operator wants the process with this consumer name to stop in order. The name is unique for ever, so a
    second or a late delivery stops nobody else."""

    consumer: str
    version: int = 1
