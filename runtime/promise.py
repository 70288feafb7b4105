"""A run whose process clears it and takes it in one step is begun while that step is under way.

What the step will bring is known beforehand, unless something comes between: the process has judged the run itself and
has its body, and nobody has owned it before. So its work begins on a lease that is promised, and writes nothing until
the step's answer has confirmed it. If that brings anything else, the work hears that its run is lost, and the run goes
its usual way, with a lease of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.claims import Claim
from runtime.scripts import Answer

_ACCEPTED = "t:accepted"


def foreseen(answers: Sequence[Answer], now_ms: int) -> Claim | None:
    """What the first claim of a run will bring if these answers clear it. None where that is not known: others answer
    too, the body is not at hand, or its time is over. now_ms: wall clock, for what is left of its time."""
    asked = answers[0].asked
    if asked is None or not asked.body:
        return None
    fields = {f"v:{answer.family}": answer.stored for answer in answers if answer.stored}
    if any(f"v:{family}" not in fields for family in asked.event.families):
        return None
    accepted_ms = int(asked.entry.partition("-")[0])
    left_ms = accepted_ms + asked.envelope.deadline_ms - now_ms
    if left_ms <= 0:
        return None
    fields |= {"a": asked.fields[b"e"], "as": asked.fields[b"s"], _ACCEPTED: b"%d" % accepted_ms}
    return Claim(state="ok", epoch=1, left_ms=left_ms, body=asked.body, fields=fields)


def holds(promised: Claim, claim: Claim) -> bool:
    """Whether a claim brings what was foreseen of it. The second in which it was accepted is told to clients."""
    if (claim.state, claim.epoch, claim.sequence, claim.body) != ("ok", promised.epoch, 0, promised.body):
        return False
    told = {name: value for name, value in claim.fields.items() if name in ("a", "as") or name[:2] == "v:"}
    seconds = int(claim.fields.get(_ACCEPTED, b"0")) // 1000
    told[_ACCEPTED] = promised.fields[_ACCEPTED]
    return told == promised.fields and seconds == int(told[_ACCEPTED]) // 1000
