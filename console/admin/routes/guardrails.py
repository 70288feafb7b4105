"""/guardrails/scan: what the family `rules` finds in a text, and what would happen to it. Nothing is kept."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from base.settings import Section
from console.admin.parts import Given
from schemas.edits import edit_text
from workers.guardrails.rules import decide, scan_text
from workers.guardrails.text import Part

routes = APIRouter(prefix="/guardrails")


class Scan(Section):
    """A text, and for whom: policies differ by model and key."""

    text: str = Field(max_length=200_000)
    model: str = ""
    key_id: str = ""


@routes.post("/scan")
async def scan(wanted: Scan, parts: Given) -> dict[str, Any]:
    """outcome: pass, refuse or edits. text: as an engine would see it. Names of persons need the running room."""
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
