"""/guardrails/scan: what the guardrails find in a text or a request, and what would happen to it. Nothing is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import Field, model_validator

from base.settings import Section
from console.admin.parts import Given
from console.scan_desk import Looked
from schemas.routes import CHAT
from workers.guardrails.policy import Policy

routes = APIRouter(prefix="/guardrails")

_EXAMPLES: dict[str, Any] = {
    "a text": {"value": {"text": "My card is 4111 1111 1111 1111"}},
    "a request": {
        "value": {
            "route": "/v1/chat/completions",
            "body": {"model": "smollm2", "messages": [{"role": "user", "content": "My card is 4111 1111 1111 1111"}]},
        }
    },
}


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
        return self


@routes.post("/scan")
async def scan(wanted: Annotated[Scan, Body(openapi_examples=_EXAMPLES)], parts: Given) -> dict[str, Any]:
    """outcome: pass, refuse or edits. families: which ran. text, body: as an engine would see it. Persons are looked
    for where the policy does."""
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
