"""/guardrails/scan: what the family `rules` finds in a text, and what would happen to it. Nothing is kept."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from base.settings import Section
from console.admin.parts import Given
from console.admin.shapes import Shape
from ingress.documents.openapi import answer, asks, operation
from schemas.edits import edit_text
from workers.guardrails.rules import decide, scan_text
from workers.guardrails.text import Part

routes = APIRouter(prefix="/guardrails", tags=["guardrails"])


class Scan(Section):
    """A text, and for whom: policies differ by model and key."""

    text: str = Field(max_length=200_000)
    model: str = ""
    key_id: str = ""


class Found(Shape):
    """One finding; positions are code points of the text."""

    start: int
    end: int
    kind: str
    scanner: str
    confidence: float
    action: str


class Judged(Shape):
    """What the rules say. text: as an engine would see it, empty when refused. policy: its version."""

    outcome: Literal["pass", "refuse", "edits"]
    policy: str
    findings: list[Found]
    message: str
    text: str


_MAIL = {"start": 11, "end": 20, "kind": "email", "scanner": "email", "confidence": 0.9, "action": "redact"}
_JUDGED = {"outcome": "edits", "policy": "1a2b3c4d", "findings": [_MAIL], "message": "", "text": "mail me at [EMAIL]"}


@routes.post(
    "/scan",
    response_model=Judged,
    summary="Try a text on the guardrails",
    openapi_extra=operation(asks({"text": "mail me at a@b.example"}), answer(_JUDGED)),
)
async def scan(wanted: Scan, parts: Given) -> dict[str, Any]:
    """What the family `rules` finds and what would happen to it. Names of persons need the running room."""
    policy = parts.policies.find(wanted.model, wanted.key_id)
    findings = scan_text(wanted.text, policy)
    decision = decide([(Part("/text", wanted.text), findings)] if findings else [], policy, "")
    return {
        "outcome": decision.outcome,
        "policy": policy.version,
        "findings": [{**item._asdict(), "action": policy.actions[item.kind]} for item in findings],
        "message": decision.failure.message if decision.failure else "",
        "text": "" if decision.failure else edit_text(wanted.text, decision.edits),
    }
