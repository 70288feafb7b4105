"""What must be true of every run whatever was struck, judged from outside. Pure.

    I1  the client has a whole answer, an error with a code, or a cut connection whose run was read to its end
    I2  what it saw is the beginning of one attempt of an engine: in order, nothing twice, nothing missing, no mixture;
        of a model that continues, the beginnings of several, each behind the one before it
    I3  one row; a whole answer is billed as its engine counted it; a broken one for the tokens the client can read,
        marked as estimated, never for more than the engine sent; a continued one is billed as a broken one is, for at
        most what all its engines sent
    I5  one fact for each row, saying the same, and nothing in the row whose signature did not hold

I4 and I6 are about the house, not about a run: outside.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.faults.said import Said


class Attempt(Protocol):
    """What an engine's ledger says of one arrival of a run."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """All about one run. replayed: the events that an ingress still has of it, None when they were not read."""

    said: Said
    attempts: Sequence[Attempt]
    rows: Sequence[Mapping[str, Any]]
    facts: Sequence[Mapping[str, Any]]
    replayed: Sequence[bytes] | None = None


@dataclass(slots=True)
class Verdict:
    """How a run ended for its client, and which promises it broke, by kind."""

    ended: str  # completed, coded, resumed, not accepted, lost
    truncated: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    billing: list[str] = field(default_factory=list)
    record: list[str] = field(default_factory=list)
    code: str = ""
    continued: bool = False

    @property
    def broken(self) -> list[str]:
        """All of it as sentences; nothing when every promise held."""
        lost = ["ended with neither an answer nor an error"] if self.ended == "lost" else []
        return [*lost, *self.truncated, *self.order, *self.billing, *self.record]


def judge(found: Evidence) -> Verdict:
    """One run."""
    verdict = Verdict(_ended(found), code=found.said.code, continued=_continued(found))
    verdict.truncated = _truncated(found)
    verdict.order = _order(found)
    verdict.billing = _billing(found, verdict.ended)
    verdict.record = _record(found)
    return verdict


def _ended(found: Evidence) -> str:
    said = found.said
    if said.late or said.garbage:
        return "lost"
    if said.code:
        return "resumed" if said.cut else "coded"
    if not said.cut:
        return "completed" if said.whole else "lost"
    if said.run:
        return "resumed" if said.read_on == "whole" and said.done else "lost"
    if not found.rows:
        return "lost" if any(one.state == "finished" for one in found.attempts) else "not accepted"
    return "resumed" if found.replayed else "lost"


def _truncated(found: Evidence) -> list[str]:
    """What looks whole to its client and is not."""
    said = found.said
    if not (said.whole or (said.cut and said.done)) or said.code:
        return []
    if not said.finish:
        return ["a clean end without a finish reason"]
    if _continued(found):
        return [] if said.tokens == said.wanted else [f"continued to {said.tokens} tokens instead of {said.wanted}"]
    if not any(one.state == "finished" and one.text == said.text for one in found.attempts):
        return [f"a whole answer of {said.tokens} tokens that no engine gave"]
    return []


def _continued(found: Evidence) -> bool:
    """Whether its text is no single engine's whole answer, but put together as a model that continues may."""
    said, attempts = found.said, found.attempts
    alone = any(one.state == "finished" and one.text == said.text for one in attempts)
    return said.continues and said.stream and not alone and _made_of(said.text, [one.text for one in attempts])


def _made_of(text: str, parts: Sequence[str]) -> bool:
    """Whether a text is made of beginnings of the parts, in their order."""
    if not text or not parts:
        return not text
    size = next((place for place, (one, other) in enumerate(zip(text, parts[0], strict=False)) if one != other), -1)
    most = size if size >= 0 else min(len(text), len(parts[0]))
    return any(_made_of(text[size:], parts[1:]) for size in range(most, -1, -1))


def _order(found: Evidence) -> list[str]:
    said, broken = found.said, []
    if said.text and not any(one.text.startswith(said.text) for one in found.attempts) and not _continued(found):
        broken.append("its text is not the beginning of one answer of an engine")
    if said.cut and said.run and said.read_on != "whole":
        broken.append(f"reading on: {said.read_on or 'was not done'}")
    if _read_again(found) not in (None, said.events):
        broken.append(f"read again it has {len(found.replayed or ())} events, or others, instead of {len(said.events)}")
    return broken


def _read_again(found: Evidence) -> list[bytes] | None:
    """The events of a stream whose bytes can be compared; the official client does not show its bytes."""
    comparable = found.said.stream and found.said.run and not found.said.official
    return list(found.replayed) if found.replayed is not None and comparable else None


def _billing(found: Evidence, ended: str) -> list[str]:
    said = found.said
    if not found.rows:
        return ["no row"] if (said.run and said.status == 200) or ended in ("completed", "resumed") else []
    if len(found.rows) > 1:
        return [f"{len(found.rows)} rows"]
    row, sent = found.rows[0], [one.tokens for one in found.attempts]
    most = sum(sent) if said.continues else max(sent, default=0)
    billed = row["completion_tokens"]
    if billed > most:
        return [f"billed {billed} tokens, the engine sent {most}"]
    if row["outcome"] == "completed":
        return (
            [] if _as_counted(found, billed, row["estimated"]) else [f"completed and billed {billed} tokens of {most}"]
        )
    if said.whole:
        return [f"answered whole and on the record as {row['outcome']}"]
    if billed and not row["estimated"]:
        return ["broken off and not marked as estimated"]
    if said.stream and (said.run or not billed) and not said.official and billed != said.tokens:
        return [f"broken off after {said.tokens} tokens and billed {billed}"]
    return []


def _as_counted(found: Evidence, billed: int, estimated: bool) -> bool:
    """Billed as the engine counted the very answer that the client has, or could have read."""
    text = found.said.text if found.said.whole else None
    whole = [one for one in found.attempts if one.state == "finished" and text in (None, one.text)]
    if estimated:  # put together, or only its end was missing
        return found.said.continues and found.said.stream and billed == found.said.tokens
    return any(one.tokens == billed for one in whole)


def _record(found: Evidence) -> list[str]:
    broken = []
    for row in found.rows:
        if row["unverified"]:
            broken.append(f"signatures that do not hold: {', '.join(row['unverified'])}")
        facts = [fact for fact in found.facts if fact["run"] == row["run"]]
        if len(facts) != 1:
            broken.append(f"{len(facts)} facts for one row")
        elif (facts[0]["outcome"], facts[0]["tenant"]) != (row["outcome"], row["tenant"]):
            broken.append("the fact and the row differ")
    return broken
