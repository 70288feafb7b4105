"""What becomes of a run when its last client leaves: cancel, grace:<seconds> and then cancel, or finish. Pure.

The key's word goes before the model's, the model's before the server's. A request may ask for something stricter than
that, never for something looser: cancel is stricter than any grace, a short grace than a long one, all than finish. A
looser wish is refused and not bent, because a client that has left cannot be told that its work was ended.
"""

from __future__ import annotations

import math
import re
from typing import Any

from schemas.errors import Code, Failure

CANCEL, FINISH = "cancel", "finish"
_GRACE = "grace:"
#: What a setting, a key, a model and the request's header may say.
PATTERN = r"^(cancel|finish|grace:[0-9]{1,6}(\.[0-9]{1,3})?)$"
OR_NOTHING = r"^$|" + PATTERN
HEADER = "x-headrace-on-disconnect"


def stated(policy: Any) -> Any:
    """A policy as a setting, a key or a model may say it; a ValueError tells what it can be."""
    if isinstance(policy, str) and policy and not re.fullmatch(PATTERN, policy):
        raise ValueError("it must be cancel, finish or grace:SECONDS, such as grace:30")
    return policy


def patience(policy: str) -> float:
    """Seconds that a run goes on for nobody."""
    if policy == FINISH:
        return math.inf
    return float(policy.partition(":")[2] or 0)


def governing(key: str, model: str, server: str) -> str:
    """The policy of a run before its request is heard; "" = nothing said."""
    return key or model or server


def for_a_retry(policy: str, grace_s: float) -> str:
    """The policy of a run with an Idempotency-Key: its client may come again with the same key, so it is not cancelled
    at once. grace_s: 0 = it is."""
    return f"{_GRACE}{grace_s:g}" if policy == CANCEL and grace_s else policy


def narrowed(policy: str, wish: str) -> str | Failure:
    """The policy as the request wants it ("" = no wish), or the 400 of a wish that is looser."""
    if not wish or patience(wish) <= patience(policy):
        return wish or policy
    words = (
        f"The header '{HEADER}' asks for {wish}, but {policy} holds for this key and model, and a request may only ask "
        "for something stricter (cancel, then grace:SECONDS from short to long, then finish). Leave the header out, or "
        "ask an administrator for a looser policy."
    )
    return Failure(code=Code.invalid_request.value, message=words, param=HEADER)
