"""The answer of POST /v1/moderations, composed from what the guards saw. Pure.

The shape is OpenAI's, so that its clients read it. OpenAI's own categories are always false: no scanner of ours looks
for hate or violence, and `category_applied_input_types` says so with an empty list. Beside them stand our kinds, those
that were looked for under the policy; a kind that is absent was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.routes import MODERATIONS_MODEL
from schemas.verdicts import Verdict

#: What clients of the OpenAI API expect to be named. We judge none of them.
OPENAI_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def moderation(run: str, body: Mapping[str, Any], said: Sequence[Verdict]) -> dict[str, Any]:
    """The answer for a request `body` that the door let in. said: the verdicts of the guards, verified.

    One result for each text; a list of parts is one input and has one result."""
    sought = tuple(dict.fromkeys(kind for verdict in said for kind in verdict.sought))
    results = [_result(sought, scores) for scores in _by_input(body["input"], said)]
    return {"id": f"modr-{run}", "model": MODERATIONS_MODEL, "results": results}


def _by_input(given: str | list[Any], said: Sequence[Verdict]) -> list[dict[str, float]]:
    """Kind -> the highest score, for each input in order."""
    several = isinstance(given, list) and isinstance(given[0], str)
    inputs: list[dict[str, float]] = [{} for _ in (given if several else [given])]
    for seen in [item for verdict in said for item in verdict.seen]:
        scores = inputs[int(seen.pointer.split("/")[2]) if several else 0]
        scores[seen.kind] = max(scores.get(seen.kind, 0.0), seen.score)
    return inputs


def _result(sought: Sequence[str], scores: Mapping[str, float]) -> dict[str, Any]:
    return {
        "flagged": bool(scores),
        "categories": dict.fromkeys(OPENAI_CATEGORIES, False) | {kind: kind in scores for kind in sought},
        "category_scores": dict.fromkeys(OPENAI_CATEGORIES, 0.0) | {kind: scores.get(kind, 0.0) for kind in sought},
        "category_applied_input_types": dict.fromkeys(OPENAI_CATEGORIES, ()) | dict.fromkeys(sought, ("text",)),
    }
