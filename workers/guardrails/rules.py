"""What the findings of a request mean under a policy: pass, refuse or edits. Pure: values in, values out.

Redaction leaves a mark in the place of the match ([EMAIL]); spans that overlap become one. An edit never carries the
matched text, nor does a refusal: it names kinds. Where a mark would break JSON (a bare number in tool call
arguments) it is put in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from schemas.edits import merge
from schemas.errors import Code, Failure
from schemas.verdicts import EDITS, PASS, REFUSE, Edit, Seen
from workers.guardrails.policy import FAMILY_KINDS, RULES, Policy
from workers.guardrails.scanners import scan
from workers.guardrails.scanners.finding import KINDS, Finding, Kind
from workers.guardrails.text import Part, token_ids, unescape

#: More edits than this in one request become one edit per text, from its first match to its last.
MAX_EDITS = 1000

MARKS: dict[Kind, str] = {
    "secrets": "[SECRET]",
    "card": "[CARD]",
    "iban": "[IBAN]",
    "us_ssn": "[US_SSN]",
    "email": "[EMAIL]",
    "phone": "[PHONE]",
    "ip": "[IP]",
    "injection": "[REMOVED]",
    "banned_words": "[REMOVED]",
    "persons": "[PERSON]",
}
_ESCAPED = re.compile(r"\\.", re.DOTALL)
Found = Sequence[tuple[Part, Sequence[Finding]]]


class TookTooLong(Exception):
    """The family's time was over before the last text was read."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """outcome: schemas.verdicts.PASS | REFUSE | EDITS. found: kind -> how often, flagged ones included."""

    outcome: str
    edits: tuple[Edit, ...] = ()
    failure: Failure | None = None
    found: dict[str, int]
    sought: tuple[Kind, ...] = ()
    seen: tuple[Seen, ...] = ()


def scan_text(text: str, policy: Policy) -> list[Finding]:
    """What the family `rules` finds in one text under `policy`; for dry runs and tests."""
    return scan(text, policy.families[RULES].kinds, policy.banned_words)


def scan_parts(parts: Iterable[Part], policy: Policy, expired: Callable[[], bool]) -> Found:
    """Findings of every text that has any. TookTooLong as soon as `expired` says so between two texts."""
    found: list[tuple[Part, Sequence[Finding]]] = []
    scanner = partial(scan, kinds=policy.families[RULES].kinds, banned_words=policy.banned_words)
    for part in parts:
        if expired():
            raise TookTooLong
        findings = scan_part(part, scanner)
        if findings:
            found.append((part, findings))
    return found


def scan_part(part: Part, scanner: Callable[[str], list[Finding]]) -> list[Finding]:
    """Findings at their places in the part as it stands, also when its escapes had to be resolved to see them."""
    plain = unescape(part.text) if part.json else None
    if plain is None:
        return scanner(part.text)
    text, starts = plain
    return [item._replace(start=starts[item.start], end=starts[item.end]) for item in scanner(text)]


def decide(found: Found, policy: Policy, digest: str) -> Decision:
    """The verdict on a request whose body has `digest`."""
    if not found:
        return Decision(outcome=PASS, found={})
    counts = _count(found)
    blocked = [kind for kind in KINDS if counts.get(kind) and policy.actions[kind] == "block"]
    if blocked:
        return Decision(outcome=REFUSE, failure=violation(blocked), found=counts)
    edits = [edit for part, findings in found for edit in _edits(part, findings, policy, digest)]
    if len(edits) > MAX_EDITS:
        edits = _coarse(edits)
    if len(edits) > MAX_EDITS:
        kinds: list[Kind] = [kind for kind in KINDS if policy.actions[kind] == "redact" and counts.get(kind)]
        return Decision(outcome=REFUSE, failure=violation(kinds), found=counts)
    return Decision(outcome=EDITS if edits else PASS, edits=tuple(edits), found=counts)


def report(found: Found, sought: Sequence[Kind]) -> Decision:
    """The verdict where nothing is blocked or changed, only told: which kinds stand in which text, how surely.

    sought: what was looked for; what was not is not said to be absent."""
    surest: dict[tuple[str, str], float] = {}
    for part, findings in found:
        for finding in findings:
            place = (part.pointer, finding.kind)
            surest[place] = max(surest.get(place, 0.0), finding.confidence)
    seen = tuple(Seen(pointer=pointer, kind=kind, score=score) for (pointer, kind), score in surest.items())
    return Decision(outcome=PASS, found=_count(found), sought=tuple(sought), seen=seen)


def unreadable(body: Any, route: str, policy: Policy, family: str) -> Failure | None:
    """Why a body that holds token ids may not pass: nobody can look into them, and this family has something to keep
    from an engine. None when it may."""
    if policy.token_ids == "pass" or not policy.families[family].keeps:
        return None
    name = token_ids(body, route)
    return None if name is None else _tokens(name)


def _tokens(name: str) -> Failure:
    return Failure(
        code=Code.invalid_request.value,
        public_code="invalid_value",
        message=(
            f"Invalid value for '{name}': it must be text. The guardrails of this gateway can't read token ids or "
            "ready embeddings; an administrator can let them pass unread with guardrails.token_ids: pass."
        ),
        param=name,
    )


def violation(kinds: Sequence[Kind]) -> Failure:
    """The error of a blocked request: names of guardrails, never what they matched."""
    names = ", ".join(kinds)
    return Failure(
        code=Code.content_policy_violation.value,
        message=f"The request was blocked by a guardrail ({names}). Remove what it names and send it again.",
        should_retry=False,
    )


def unavailable(family: str) -> Failure:
    """The error of a request whose required guard could not judge."""
    return Failure(
        code=Code.guardrail_unavailable.value,
        message=f"The guardrail family {family!r} could not judge this request in time. Try again in a moment.",
    )


def used_kinds(policy: Policy, family: str) -> tuple[Kind, ...]:
    """What `family` looks for under `policy`, in report order; empty: it has nothing to do and skips."""
    return tuple(kind for kind in FAMILY_KINDS[family] if kind in policy.families[family].kinds)


def _count(found: Found) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, findings in found:
        for finding in findings:
            counts[finding.kind] = counts.get(finding.kind, 0) + 1
    return counts


def _edits(part: Part, findings: Sequence[Finding], policy: Policy, digest: str) -> list[Edit]:
    wanted = [finding for finding in findings if policy.actions[finding.kind] == "redact"]
    edits = [
        Edit(
            digest=digest,
            pointer=part.pointer,
            start=finding.start,
            end=finding.end,
            replacement=f'"{MARKS[finding.kind]}"' if bare else MARKS[finding.kind],
            kind=finding.kind,
        )
        for finding, bare in zip(wanted, _bare(part, wanted), strict=True)
    ]
    return merge(edits) if len(edits) > 1 else edits


def _bare(part: Part, findings: Sequence[Finding]) -> list[bool]:
    """For each finding (by position): does it stand outside the strings of a part that is JSON? One walk."""
    if not part.json:
        return [False] * len(findings)
    inside, reached = False, 0
    answers: list[bool] = []
    for finding in findings:
        quotes = _ESCAPED.sub("", part.text[reached : finding.start]).count('"')
        inside, reached = inside ^ (quotes % 2 == 1), max(reached, finding.start)
        answers.append(not inside)
    return answers


def _coarse(edits: Sequence[Edit]) -> list[Edit]:
    """One edit per text, over everything from the first match to the last."""
    spans: dict[str, Edit] = {}
    for edit in edits:
        first = spans.setdefault(edit.pointer, edit)
        spans[edit.pointer] = Edit(
            digest=edit.digest,
            pointer=edit.pointer,
            start=min(first.start, edit.start),
            end=max(first.end, edit.end),
            replacement="[REMOVED]",
            kind=first.kind,
        )
    return list(spans.values())
