"""Records that several rooms read: keys, models, endpoints, requests, facts. Values only, wherever they live."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

INFERENCE, ADMIN = "inference", "admin"

#: How an engine goes on with an answer that broke off, by the words of its own API; "" = it cannot, or shall not.
#: continue_final_message: the request's flags of that name and add_generation_prompt=false (vLLM, SGLang, TGI).
#: prefill: a last message of the assistant is continued by itself (llama.cpp, LMDeploy).
CONTINUE_FINAL_MESSAGE, PREFILL = "continue_final_message", "prefill"
CONTINUES = ("", CONTINUE_FINAL_MESSAGE, PREFILL)
#: The APIs in which an engine may be asked for a response: every one speaks chat, some the Responses API itself.
SPEAKS_CHAT, SPEAKS_RESPONSES = "chat", "responses"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An API key as stored: never its secret, only HMAC-SHA-256(pepper of ring key mac_kid, secret) in hexadecimal.

    models: names or patterns with `*` that the key may use; ("*",) = all. requests_per_minute and concurrency: 0 = no
    limit. weight: its tenant's share of scarce engines. priority: its runs' place inside the tenant, higher goes first.
    on_disconnect: "" = the model's, else the server's setting. Times in milliseconds since the epoch, 0 = never.
    previous_mac: valid until previous_until_ms (rotation).
    """

    key_id: str
    tenant: str
    name: str
    secret_mac: str
    mac_kid: str
    scopes: tuple[str, ...] = (INFERENCE,)
    models: tuple[str, ...] = ("*",)
    requests_per_minute: int = 0
    concurrency: int = 0
    weight: int = 1
    lane: str = "interactive"
    on_disconnect: str = ""
    created_ms: int = 0
    expires_ms: int = 0
    revoked_ms: int = 0
    previous_mac: str = ""
    previous_mac_kid: str = ""
    previous_until_ms: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A public model name and the pool that serves it. created: seconds since the epoch (OpenAI's unit).
    on_disconnect: for its runs where the key says nothing, "" = the server's setting."""

    name: str
    pool: str
    created: int = 0
    owned_by: str = "headrace"
    on_disconnect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """One place that serves a pool. url: base address incl. /v1. upstream_model: what the engine calls it.

    credential: provider key sealed by base.crypto ("" = none); only the router opens it. slots: parallel requests.
    private: a loopback or private address is meant. continues: one of CONTINUES. speaks: SPEAKS_CHAT,
    SPEAKS_RESPONSES, or both."""

    endpoint: str
    deployment: str
    pool: str
    model: str
    url: str
    upstream_model: str = ""
    credential: str = ""
    slots: int = 8
    weight: int = 1
    up: bool = True
    private: bool = False
    continues: str = ""
    speaks: tuple[str, ...] = (SPEAKS_CHAT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """What was asked for and how it stands. state: pending | starting | ready | paused | failed | stopping | stopped.

    command_id: the last command about it. pid: of the first replica. replicas: engines wanted. restart: always |
    on-failure | never. drain: when it goes, running requests may finish first. continues: one of CONTINUES.
    on_disconnect: of its model's runs, "" = the server's setting. speaks: as an endpoint's."""

    deployment: str
    command_id: str
    name: str
    target: str
    pool: str
    state: str
    reason: str = ""
    url: str = ""
    upstream_model: str = ""
    credential: str = ""
    slots: int = 8
    weight: int = 1
    private: bool = False
    command: tuple[str, ...] = ()
    pid: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    replicas: int = 1
    restart: str = "always"
    drain: bool = True
    continues: str = ""
    on_disconnect: str = ""
    speaks: tuple[str, ...] = (SPEAKS_CHAT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecord:
    """One engine of a deployment and how it stands. replica: counted from 1.

    state: starting | ready | failed (tried again) | draining | ended, crashed (by itself, and not started again).
    command_id: the command under which this was seen. restarts: starts after the first. pid 0 = nothing runs here."""

    deployment: str
    replica: int
    command_id: str
    state: str
    reason: str = ""
    url: str = ""
    pid: int = 0
    restarts: int = 0
    updated_ms: int = 0


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One ended run as audited; the row behind `requests show`. Costs in integer micros of the price currency.

    verdicts and attempts: JSON values without text. Times: ms since the epoch (Redis clock), 0 = never. ttft_ms and
    duration_ms count from acceptance. tenant "" = the caller was never proven. unverified: parts of the fact whose
    signature did not hold; what they would have said is left blank."""

    run: str
    tenant: str
    key_id: str
    route: str
    model: str
    endpoint: str
    stream: bool
    status: int
    outcome: str
    code: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    estimated: bool
    cost_micros: int
    events: int
    ttft_ms: int
    duration_ms: int
    accepted_ms: int
    cleared_ms: int
    claimed_ms: int
    first_ms: int
    ended_ms: int
    attempt: int
    client_request_id: str
    verdicts: object
    attempts: object
    finish_reason: str = ""
    unverified: tuple[str, ...] = ()


class FactRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as it came, once per (run, kind, attempt). by: its publisher kind. at_ms: ms since the epoch.

    detail: a JSON value without text (outcome, code, status)."""

    run: str
    kind: str
    attempt: int
    tenant: str
    by: str
    at_ms: int
    detail: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRecord:
    """The answer of an ended run, kept. frames: schemas.frames.pack, each sealed under the key ring for its place in
    this run. once, asked: see schemas.events.RequestAccepted. body: what was asked, sealed for this run, b"" = not
    kept. route "" = kept before that was noted. Times: ms since the epoch."""

    run: str
    tenant: str
    key_id: str
    once: str
    asked: str
    stream: bool
    frames: bytes
    ended_ms: int
    expires_ms: int
    route: str = ""
    background: bool = False
    accepted_ms: int = 0
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A process of the system as it announces itself. consumer: its name in every group, unique for ever.

    state: ready | troubled | draining; trouble: what its readiness check says, "" when all is well. health: base
    address of /livez, /readyz and /metrics. addresses: room -> base URL, for rooms that listen. Times in milliseconds
    since the epoch; seen_ms: its last word, by the server's clock.
    """

    consumer: str
    rooms: tuple[str, ...]
    pid: int
    host: str
    started_ms: int
    version: str
    health: str = ""
    addresses: dict[str, str] = field(default_factory=dict)
    state: str = "ready"
    trouble: str = ""
    seen_ms: int = 0
