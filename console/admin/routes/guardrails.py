"""/guardrails/scan: what the guardrails find in a text or a request, and what would happen to it. Nothing is kept."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import Field, model_validator

from base.settings import Section
from console.admin.parts import Given
from console.admin.shapes import Shape
from console.scan_desk import Looked
from ingress.documents.openapi import answer, asks, operation
from schemas.routes import CHAT
from workers.guardrails.policy import Policy

routes = APIRouter(prefix="/guardrails", tags=["guardrails"])


class Scan(Section):
    """A text, or the body of a request to `route`; and for whom: policies differ by model and key."""

    text: str | None = Field(None, max_length=200_000)
    body: dict[str, Any] | None = None
    route: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations"] = CHAT
    model: str = ""
    key_id: str = ""

    @model_validator(mode="after")
    def _one(self) -> Scan:
        if (self.text is None) == (self.body is None):
            raise ValueError("give either text or body")
        try:
            orjson.dumps(self.body)
        except TypeError as error:  # half a surrogate pair, or nested too deeply: the door refuses it too
            raise ValueError(f"the body is no JSON that can be sent: {error}") from None
        return self


class Found(Shape):
    """One finding; positions are code points of the text at `pointer`."""

    family: str
    pointer: str
    start: int
    end: int
    kind: str
    scanner: str
    confidence: float
    action: str


class Judged(Shape):
    """What the guardrails say. policy: its version. families: name -> ran | nothing to look for | failed. text, body:
    the one that was given, as an engine would see it; empty when refused."""

    outcome: Literal["pass", "refuse", "edits"]
    policy: str
    families: dict[str, str]
    findings: list[Found]
    message: str
    text: str
    body: Any


_CARD = {"family": "rules", "pointer": "/text", "start": 11, "end": 30, "kind": "card", "scanner": "card/visa"}
_JUDGED = {
    "outcome": "edits",
    "policy": "1a2b3c4d5e6f",
    "families": {"rules": "ran", "persons": "nothing to look for"},
    "findings": [{**_CARD, "confidence": 0.95, "action": "redact"}],
    "message": "",
    "text": "My card is [CARD]",
    "body": None,
}


@routes.post(
    "/scan",
    response_model=Judged,
    summary="Try a text or a request on the guardrails",
    openapi_extra=operation(asks({"text": "My card is 4111 1111 1111 1111"}), answer(_JUDGED)),
)
async def scan(wanted: Scan, parts: Given) -> dict[str, Any]:
    """What is found and what would happen to it; nothing is kept. Persons are looked for where the policy does."""
    body = {"text": wanted.text} if wanted.body is None else wanted.body
    model = wanted.model or str(body.get("model", ""))
    trial = await parts.scan_desk.scan(body, wanted.route, model, wanted.key_id)
    return {
        "outcome": trial.outcome,
        "policy": trial.policy.version,
        "families": {one.family: one.state for one in trial.looked},
        "findings": [row for one in trial.looked for row in _findings(one, trial.policy)],
        "message": trial.message,
        "text": (trial.body or {}).get("text", "") if wanted.text is not None else "",
        "body": trial.body if wanted.text is None else None,
    }


def _findings(looked: Looked, policy: Policy) -> list[dict[str, Any]]:
    """Where, what, by which rule, how surely; never the text."""
    return [
        {"family": looked.family, "pointer": part.pointer, **item._asdict(), "action": policy.actions[item.kind]}
        for part, findings in looked.found
        for item in findings
    ]
