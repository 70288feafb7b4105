"""What tests of the audit need: ended runs as they lie on the stream `facts`, signed by who may say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import yaml

from base.crypto import KeyRing, RingKey, Signer, Verifier, digest
from schemas.envelope import Event, decode, encode
from schemas.errors import Code, Failure
from schemas.events import Attempt, FactTimes, RequestAccepted, RequestCompleted, RequestRefused, Terminal, Usage
from schemas.outcomes import Delivery
from schemas.verdicts import EDITS, PASS, Edit, Grant, Verdict, seal_verdict

RING = KeyRing([RingKey("t1", bytes(range(32)))])
STRANGER = KeyRing([RingKey("t1", bytes(range(1, 33)))])
VERIFIER = Verifier(RING)
TOPOLOGY = yaml.safe_load((Path(__file__).parents[1] / "streams.yaml").read_text())
PUBLISHERS: dict[str, list[str]] = TOPOLOGY["streams"]["facts"]["publishers"]
BODY = digest(b"{}")
TIMES = FactTimes(accepted=10_000, cleared=10_005, claimed=10_006, first=10_050, ended=10_200)
CANARY = "the heron stands in the reeds"


def run_id(number: int = 1) -> str:
    """A run id with a number."""
    return f"01936b00-0000-7000-8000-{number:012x}"


def accepted(run: str, model: str = "small") -> RequestAccepted:
    return RequestAccepted(
        run=run,
        route="/v1/chat/completions",
        model=model,
        stream=True,
        key_id="00000000000000aa",
        secret_mac="ab" * 32,
        mac_kid="t1",
        body_digest=BODY,
        body_bytes=2,
        door="door",
        families=("authorization", "rules"),
        client_request_id="mine-1",
    )


def completed(run: str) -> RequestCompleted:
    return RequestCompleted(
        run=run,
        model="small",
        endpoint="e1",
        usage=Usage(prompt_tokens=1000, completion_tokens=500, cached_tokens=200),
        finish_reason="stop",
        events=7,
        ttft_ms=44,
        upstream_ms=190,
        attempts=(Attempt(endpoint="e1", started_ms=0, ended_ms=190, outcome="ok", status=200),),
    )


def blocked(run: str) -> RequestRefused:
    failure = Failure(code=Code.content_policy_violation, message=f"it said: {CANARY}")
    return RequestRefused(run=run, family="rules", failure=failure)


def verdicts(run: str, tenant: str = "acme") -> dict[str, Verdict]:
    """Authorization lets it pass with a reservation; rules found an e-mail address."""
    grant = Grant(tenant=tenant, key_id="00000000000000aa", pool="small", scopes=("key:00000000000000aa",))
    edit = Edit(digest=BODY, pointer="/messages/0/content", start=0, end=3, replacement=CANARY, kind="email")
    base = Verdict(run=run, family="authorization", outcome=PASS, policy="p1", body_digest=BODY, grant=grant)
    rules = msgspec.structs.replace(
        base, family="rules", outcome=EDITS, grant=None, edits=(edit,), found={"email": 1}, took_us=90
    )
    return {"authorization": base, "rules": rules}


@dataclass(kw_only=True)
class End:
    """An ended run; change what it says, then `delivery()`. by: who says the fact; rings: who signs what, "" = all."""

    run: str = field(default_factory=run_id)
    fact: Terminal | None = None
    by: str = "router"
    attempt: int = 1
    accepted: RequestAccepted | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    times: bytes = field(default_factory=lambda: msgspec.json.encode(TIMES))
    rings: dict[str, KeyRing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fact = self.fact or completed(self.run)
        self.accepted = self.accepted or accepted(self.run)
        self.verdicts = self.verdicts or verdicts(self.run)

    def signer(self, publisher: str) -> Signer:
        return Signer(self.rings.get(publisher, RING), publisher)

    def fields(self) -> dict[bytes, bytes]:
        """The entry as the script wrote it."""
        assert self.fact is not None and self.accepted is not None
        e = self._envelope(self.fact, self.by, self.fact.run)
        a = self._envelope(self.accepted, "ingress", self.accepted.run)
        found = {
            b"run": self.run.encode(),
            b"kind": type(self.fact).__name__.encode(),
            b"n": b"1",
            b"e": e,
            b"s": self.signer(self.by).sign("facts", e),
            b"a": a,
            b"as": self.signer("ingress").sign("requests", a),
            b"t": self.times,
        }
        for family, verdict in self.verdicts.items():
            found[b"v:" + family.encode()] = seal_verdict(self.signer(verdict.family), verdict)
        return found

    def delivery(self, fields: dict[bytes, bytes] | None = None) -> Delivery:
        """As the engine hands it to a handler."""
        fields = fields or self.fields()
        envelope, event = decode(fields[b"e"])
        return Delivery(stream="{0}:facts", entry="1-1", envelope=envelope, event=event, fields=fields)

    def _envelope(self, event: Event, by: str, run: str) -> bytes:
        return encode(event, id=f"{run}/end", by=by, run=run, attempt=self.attempt, at_ms=TIMES.ended)
