"""What tests of authorization need: keys, runs, deliveries."""

from __future__ import annotations

from msgspec import Raw

from base.crypto import KeyRing, RingKey, digest
from policy.api_keys import Credential, mint
from schemas.envelope import Envelope
from schemas.events import RequestAccepted
from schemas.outcomes import Delivery
from schemas.records import KeyRecord, ModelRecord

RING = KeyRing([RingKey("k1", b"\x01" * 32)])
MODEL = ModelRecord(name="small", pool="gpu-a")
DEADLINE_MS = 30_000


def credential(number: int) -> Credential:
    """The credential of key `number` (0..255)."""
    return mint(bytes([number]) * 32, RING).credential


def key(
    number: int = 1,
    *,
    tenant: str = "acme",
    requests_per_minute: int = 0,
    concurrency: int = 0,
    models: tuple[str, ...] = ("*",),
    scopes: tuple[str, ...] = ("inference",),
) -> KeyRecord:
    """The record of key `number`."""
    shown = credential(number)
    return KeyRecord(
        key_id=shown.key_id,
        tenant=tenant,
        name=f"key {number}",
        secret_mac=shown.secret_mac,
        mac_kid=shown.mac_kid,
        requests_per_minute=requests_per_minute,
        concurrency=concurrency,
        models=models,
        scopes=scopes,
    )


def accepted(run: str, number: int = 1, *, model: str = "small", lane: str = "interactive") -> RequestAccepted:
    """A run of key `number`."""
    shown = credential(number)
    return RequestAccepted(
        run=run,
        route="/v1/chat/completions",
        model=model,
        stream=False,
        key_id=shown.key_id,
        secret_mac=shown.secret_mac,
        mac_kid=shown.mac_kid,
        body_digest=digest(run.encode()),
        body_bytes=2,
        door="door",
        families=("authorization", "rules"),
        lane=lane,
    )


def delivery(event: RequestAccepted, *, starts: int = 0) -> Delivery:
    """The run as the engine hands it to the handler."""
    envelope = Envelope(
        id=event.run, type="RequestAccepted", v=1, by="ingress", run=event.run, deadline_ms=DEADLINE_MS, data=Raw(b"{}")
    )
    return Delivery(stream="{0}:requests", entry="1-0", envelope=envelope, event=event, starts=starts)
