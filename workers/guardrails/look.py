"""One family looks at one body: the path that requests, moderations and an operator's trial take alike.

A `Find` finds, whatever it takes; `look` says which texts it is given and what its findings mean under the policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from base.clock import Clock
from schemas.routes import MODERATIONS
from schemas.verdicts import REFUSE, SKIP
from workers.guardrails.policy import PERSONS, RULES, Policy
from workers.guardrails.ports import Names
from workers.guardrails.rules import (
    Decision,
    Found,
    TookTooLong,
    decide,
    report,
    scan_part,
    scan_parts,
    unavailable,
    unreadable,
    used_kinds,
)
from workers.guardrails.scanners.finding import Finding
from workers.guardrails.scanners.person_names import chunks, persons, regroup
from workers.guardrails.text import Part, parts, unescape

#: Bodies from here on are scanned in a thread, so that the loop goes on with its heartbeats; bytes.
IN_THREAD = 64 * 1024

Find = Callable[[list[Part], Policy], Awaitable[Found]]


async def look(find: Find, family: str, policy: Policy, route: str, body: Any, digest: str) -> tuple[Found, Decision]:
    """What the family finds in a decoded body of `route` and what that means; for a moderation only what it is.

    TimeoutError when the family's time is over; whatever `find` raises."""
    if route == MODERATIONS:
        found = await find(list(parts({"input": body.get("input")})), policy)
        return found, report(found, used_kinds(policy, family))
    refused = unreadable(body, route, policy, family)
    if refused is not None:
        return (), Decision(outcome=REFUSE, failure=refused, found={})
    found = await find(list(parts(body)), policy)
    return found, decide(found, policy, digest)


def failed(family: str, policy: Policy) -> Decision:
    """What a family that could not judge says: by its fail policy nothing, or a refusal."""
    if policy.families[family].fail == "open":
        return Decision(outcome=SKIP, found={})
    return Decision(outcome=REFUSE, failure=unavailable(family), found={})


def rules_find(clock: Clock) -> Find:
    """The family `rules`: in process; large bodies in a thread, stopped between two texts when time is over."""

    async def find(texts: list[Part], policy: Policy) -> Found:
        timeout = policy.families[RULES].timeout
        until = clock.monotonic() + timeout

        def expired() -> bool:
            return clock.monotonic() > until

        if sum([len(part.text) for part in texts]) < IN_THREAD:
            return scan_parts(texts, policy, expired)
        async with asyncio.timeout(timeout):
            return await asyncio.to_thread(scan_parts, texts, policy, expired)

    return find


def persons_find(names: Names, max_characters: int) -> Find:
    """The family `persons`: asks `names`, in chunks; more than `max_characters` is more than it can judge in time."""

    async def find(texts: list[Part], policy: Policy) -> Found:
        if sum(len(part.text) for part in texts) > max_characters:
            raise TookTooLong
        async with asyncio.timeout(policy.families[PERSONS].timeout):
            return await find_persons(texts, names)

    return find


async def find_persons(texts: Sequence[Part], names: Names) -> Found:
    """Persons of every text that has any, at their places in the text as it stands."""
    plain = [(unescape(part.text) if part.json else None) or (part.text, None) for part in texts]
    cut = [chunks(text) for text, _ in plain]
    pieces = [(offset, piece) for group in cut for offset, piece in group]
    answers = await names.find([piece for _, piece in pieces]) if pieces else []
    moved = [
        [(start + offset, end + offset) for start, end in spans]
        for (offset, _), spans in zip(pieces, answers, strict=True)
    ]
    found: list[tuple[Part, Sequence[Finding]]] = []
    for part, (text, _), spans in zip(texts, plain, regroup([len(group) for group in cut], moved), strict=True):
        findings = scan_part(part, lambda _, text=text, spans=spans: persons(text, spans))  # type: ignore[misc]
        if findings:
            found.append((part, findings))
    return found
