"""The answer of /v1/moderations: what the guards saw, in OpenAI's shape; no engine is called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import orjson
import pytest
from msgspec import structs
from openai.types import ModerationCreateResponse

from base.crypto import digest
from providers.fake import Refuse
from schemas.events import RequestCompleted, RequestFailed, Usage
from schemas.frames import END
from schemas.verdicts import PASS, REFUSE, SKIP, Seen, Verdict
from tests.router_support import MemoryLease, cleared_run, signed
from tests.unit.test_router_handler import Stage
from workers.router.moderation import OPENAI_CATEGORIES, moderation

RULES = ("card", "email")


def said(*seen: tuple[str, str, float], sought: tuple[str, ...] = RULES, family: str = "rules") -> Verdict:
    found = tuple(Seen(pointer=pointer, kind=kind, score=score) for pointer, kind, score in seen)
    return Verdict(run="r", family=family, outcome=PASS, policy="p", body_digest="d", sought=sought, seen=found)


def results(given: Any, *verdicts: Verdict) -> list[dict[str, Any]]:
    answer = moderation("r1", {"input": given}, verdicts)
    assert (answer["id"], answer["model"]) == ("modr-r1", "moderations")
    read = ModerationCreateResponse.model_validate(orjson.loads(orjson.dumps(answer)))
    assert len(read.results) == len(answer["results"])
    found: list[dict[str, Any]] = answer["results"]
    return found


def hits(result: dict[str, Any]) -> set[str]:
    assert result["flagged"] is any(result["categories"].values())
    assert set(result["categories"]) == set(result["category_scores"]) == set(result["category_applied_input_types"])
    return {kind for kind, hit in result["categories"].items() if hit}


def test_each_text_has_its_own_result_in_order() -> None:
    found = results(["a", "b", "c"], said(("/input/2", "card", 0.9), ("/input/0", "email", 0.8)))
    assert [hits(one) for one in found] == [{"email"}, set(), {"card"}]
    assert found[2]["category_scores"]["card"] == 0.9 and found[1]["category_scores"]["card"] == 0.0


def test_a_text_and_a_list_of_parts_are_one_input_with_the_surest_score() -> None:
    assert [hits(one) for one in results("a", said(("/input", "card", 0.9)))] == [{"card"}]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (one,) = results(parts, said(("/input/0/text", "email", 0.5), ("/input/1/text", "email", 0.7)))
    assert hits(one) == {"email"} and one["category_scores"]["email"] == 0.7


def test_openais_categories_are_named_and_said_to_be_applied_to_nothing() -> None:
    (one,) = results("I hate you", said())
    assert all(one["categories"][name] is False for name in OPENAI_CATEGORIES)
    assert {len(one["category_applied_input_types"][name]) for name in OPENAI_CATEGORIES} == {0}
    assert list(one["category_applied_input_types"]["card"]) == ["text"]


def test_a_kind_that_no_family_looked_for_is_absent_rather_than_false() -> None:
    skipped = msgspec.structs.replace(said(sought=(), family="persons"), outcome=SKIP)
    (one,) = results("John Smith", said(), skipped)
    assert set(one["categories"]) == {*OPENAI_CATEGORIES, *RULES}
    (other,) = results("John Smith", said(), said(("/input", "persons", 0.7), sought=("persons",), family="persons"))
    assert hits(other) == {"persons"}


def moderated(verdict: dict[str, Any], given: Any = "pay 4111") -> MemoryLease:
    """A cleared run of the route; `verdict`: what the rules said."""
    lease = cleared_run(stream=False, input=given)
    accepted = structs.replace(lease.accepted, route="/v1/moderations", model="moderations")
    fields = {"run": lease.run, "family": "rules", "outcome": PASS, "policy": "1", "body_digest": digest(lease.body)}
    own = signed("rules", Verdict(**{**fields, **verdict}))
    return replace(lease, accepted=accepted, verdicts={**lease.verdicts, "rules": own}, sent=[], fact=None)


async def test_the_run_ends_with_what_was_seen_and_no_engine_is_called() -> None:
    stage = Stage([Refuse()])
    seen = (Seen(pointer="/input", kind="card", score=0.9),)
    lease = await stage.run(moderated({"sought": RULES, "seen": seen}))
    (frame,) = lease.sent
    assert (frame.kind, frame.events, stage.transport.calls) == (END, 1, [])
    assert orjson.loads(frame.payload)["results"][0]["categories"]["card"] is True
    assert frame.headers["x-headrace-endpoint"] == "guardrails" and "x-ratelimit-limit-requests" in frame.headers
    fact = lease.fact
    assert isinstance(fact, RequestCompleted)
    assert (fact.endpoint, fact.usage, fact.attempts, fact.events) == ("guardrails", Usage(), (), 1)


@pytest.mark.parametrize("forged", ["seen by nobody", "refused"])
async def test_only_verified_verdicts_are_told(forged: str) -> None:
    lease = moderated({"outcome": REFUSE} if forged == "refused" else {})
    if forged == "seen by nobody":
        stored = lease.verdicts["rules"].replace(b'"seen":[]', b'"seen":[{"pointer":"/input","kind":"x","score":1}]')
        lease = replace(lease, verdicts={**lease.verdicts, "rules": stored}, sent=[])
    ended = await Stage([Refuse()]).run(lease)
    assert isinstance(ended.fact, RequestFailed) and ended.failure.code == "internal_error"
