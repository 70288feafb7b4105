"""The golden files: how each kind of message lies on the wire, signed and sealed under a ring that everybody knows.

`python -m tests.golden_support` writes files that are missing and never touches one that is there.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec

from base.crypto import KeyRing, RingKey, Sealer, Signer
from base.ids import SystemRandom
from runtime.seals import Seals
from runtime.topology import load
from schemas import envelope as wire
from schemas import events
from schemas.commands import DeployModel, ScaleDeployment, StopDeployment
from schemas.errors import Failure
from schemas.frames import DATA, END, StoredFrame, encode_failure, pack, place
from schemas.verdicts import EDITS, PASS, REFUSE, SKIP, Edit, Grant, Seen, Verdict, seal_verdict
from tests.run_support import CLOCK

FOLDER = Path(__file__).parent / "golden"
RUN = "019a0000-0000-7003-8000-000000000001"
RING = KeyRing([RingKey("golden", bytes(range(32))), RingKey("former", bytes(range(32, 64)))])
FORMER = KeyRing([RingKey("former", bytes(range(32, 64)))])

_FAILURE = Failure(
    code="upstream_error",
    message="The engine said no. Ä €",
    param="messages",
    retry_after_ms=1500,
    should_retry=False,
    status=429,
    type="requests",
    public_code="rate_limit_exceeded",
)
_ATTEMPT = events.Attempt(endpoint="e1", started_ms=1, ended_ms=20, outcome="ok", status=200)
_USAGE = events.Usage(prompt_tokens=7, completion_tokens=9, cached_tokens=2, estimated=True)
_ENDED: dict[str, Any] = {
    "model": "tiny",
    "endpoint": "e1",
    "usage": _USAGE,
    "events": 3,
    "ttft_ms": 12,
    "upstream_ms": 40,
    "attempts": (_ATTEMPT,),
}

#: (stream, publisher) of every message; RequestCleared is written by a script and stands unsigned.
MESSAGES: dict[tuple[str, str], tuple[wire.Event, ...]] = {
    ("requests", "ingress"): (
        events.RequestAccepted(
            run=RUN,
            route="/v1/chat/completions",
            model="tiny",
            stream=True,
            key_id="k1",
            secret_mac="ab" * 32,
            mac_kid="golden",
            body_digest="cd" * 32,
            body_bytes=120,
            door="ingress-1",
            families=("authorization", "rules", "persons"),
            max_tokens=64,
            prompt_tokens=30,
            client_request_id="mine",
            on_disconnect="grace:5",
        ),
    ),
    ("cleared", "script"): (events.RequestCleared(run=RUN, pool="tiny", lane="interactive"),),
    ("facts", "router"): (
        events.RequestCompleted(run=RUN, finish_reason="stop", status=200, **_ENDED),
        events.RequestFailed(run=RUN, failure=_FAILURE, **_ENDED),
    ),
    ("facts", "rules"): (events.RequestRefused(run=RUN, family="rules", failure=_FAILURE),),
    ("facts", "sweeper"): (events.RequestCancelled(run=RUN, by="lost", **_ENDED),),
    ("control", "console"): (events.KeyChanged(key_id="k1"), events.DrainAsked(consumer="rules-7-abc")),
    ("control", "provisioner"): (events.CatalogChanged(pool="tiny"),),
    ("commands", "console"): (
        DeployModel(
            command_id="c1",
            deployment="d1",
            name="tiny",
            target="external",
            url="https://engine.example/v1",
            upstream_model="tiny-1b",
            credential="sealed",
            pool="tiny",
            command=("serve", "--port", "{port}"),
        ),
        StopDeployment(command_id="c2", deployment="d1"),
        ScaleDeployment(command_id="c3", deployment="d1", replicas=3),
    ),
}

_GRANT = Grant(
    tenant="org",
    key_id="k1",
    pool="tiny",
    weight=2,
    fail={"persons": "open"},
    scopes=("key:k1",),
    limit_requests=60,
    remaining_requests=59,
    reset_requests_ms=1000,
)
_EDIT = Edit(digest="cd" * 32, pointer="/messages/0/content", start=3, end=9, replacement="[email]", kind="email")
_SEEN = Seen(pointer="/input/1", kind="card", score=0.95)
_SAID = Verdict(run=RUN, family="rules", outcome=PASS, policy="p7", body_digest="cd" * 32, took_us=80)
VERDICTS: dict[str, Verdict] = {
    "verdict_pass": msgspec.structs.replace(_SAID, family="authorization", grant=_GRANT),
    "verdict_refuse": msgspec.structs.replace(_SAID, outcome=REFUSE, failure=_FAILURE, found={"secret": 1}),
    "verdict_edits": msgspec.structs.replace(_SAID, outcome=EDITS, edits=(_EDIT,), found={"email": 1}),
    "verdict_seen": msgspec.structs.replace(_SAID, sought=("card", "email"), seen=(_SEEN,), found={"card": 2}),
    "verdict_skip": msgspec.structs.replace(_SAID, family="persons", outcome=SKIP),
}


def envelope_of(event: wire.Event, by: str) -> bytes:
    """The event in an envelope with every field set."""
    return wire.encode(
        event,
        id=f"{RUN}/golden",
        by=by,
        run=RUN,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline_ms=60_000,
        attempt=2,
        at_ms=1_700_000_000_123,
    )


def _messages() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (stream, by), said in MESSAGES.items():
        for event in said:
            e = envelope_of(event, by)
            s = wire.sign(Signer(RING, by), stream, e).s if by != "script" else b""
            name = f"{type(event).__name__}_v{event.version}"
            found[name] = {"stream": stream, "by": by, "e": e.decode(), "s": s.decode()}
    return found


def _verdicts() -> dict[str, dict[str, Any]]:
    return {
        f"{name}_v{verdict.version}": {
            "family": verdict.family,
            "stored": seal_verdict(Signer(RING, verdict.family), verdict).decode(),
        }
        for name, verdict in VERDICTS.items()
    }


def _sealed() -> dict[str, dict[str, Any]]:
    """Bodies, frames and a letter as they lie, under the current key and under the one before."""
    pieces = {
        "body": ("body", b'{"model":"tiny"}'),
        "frame": (place(2, 17, "data", 2, b'{"content-type":"text/event-stream"}'), b'data: {"choices":[]}\n\n'),
        "error_frame": (place(0, 1, "error", 1, b""), encode_failure(_FAILURE)),
        "empty": (place(1, 1, "data", 1, b""), b""),
    }
    found: dict[str, dict[str, Any]] = {}
    for suffix, ring in (("", RING), ("_under_the_former_key", FORMER)):
        sealer = Sealer(ring, SystemRandom())
        for name, (where, plain) in pieces.items():
            sealed = sealer.seal(plain, run=RUN, place=where)
            found[f"sealed_{name}{suffix}"] = {
                "run": RUN,
                "place": where,
                "plain": base64.b64encode(plain).decode(),
                "sealed": base64.b64encode(sealed).decode(),
            }
    letter = Seals(RING, "rules", CLOCK, SystemRandom()).letter({b"e": b"{}", b"s": b"\xff"}, "5-1")
    found["letter"] = {"entry": "5-1", "sealed": base64.b64encode(letter).decode(), "fields": {"e": "{}"}}
    return found


def _archived() -> dict[str, dict[str, Any]]:
    """The frames of a run as PostgreSQL keeps them; sealed bytes are any bytes here."""
    frames = (
        StoredFrame(epoch=1, sequence=2, kind=DATA, events=2, payload=b"\x01\x00\xff", headers=b'{"o":"r1"}'),
        StoredFrame(epoch=2, sequence=3, kind=END, events=1, payload=b"", headers=b""),
    )
    plain = [
        {**msgspec.structs.asdict(frame), "payload": frame.payload.hex(), "headers": frame.headers.decode()}
        for frame in frames
    ]
    return {"archived_frames": {"packed": base64.b64encode(pack(frames)).decode(), "frames": plain}}


def write() -> list[str]:
    """Write what is missing; the names of the new files."""
    load()  # registers every message
    new = []
    for name, content in {**_messages(), **_verdicts(), **_sealed(), **_archived()}.items():
        file = FOLDER / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            new.append(file.name)
    return new


if __name__ == "__main__":
    print("\n".join(write()) or "nothing is missing")
