"""The routes whose requests become runs, and what every room must know of them. One table.

A route of an engine is passed on under the same path, RESPONSES as a chat where the engine speaks nothing else;
MODERATIONS is answered by the guard families alone: its runs go to a pool of its own, because the gateway itself serves
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"
MODERATIONS: Final = "/v1/moderations"
RESPONSES: Final = "/v1/responses"

#: The pool of MODERATIONS; console/entries.py lets no deployment have it.
MODERATIONS_POOL = "@moderations"
#: The model that a moderation's record, metrics and policy name, whatever the client wrote.
MODERATIONS_MODEL = "moderations"
#: The endpoint that answers for the built-in pool: no engine.
GUARDRAILS = "guardrails"

#: Route -> gen_ai.operation.name (OpenTelemetry GenAI conventions; `moderation` is ours, they have none).
OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        CHAT: "chat",
        COMPLETIONS: "text_completion",
        EMBEDDINGS: "embeddings",
        MODERATIONS: "moderation",
        RESPONSES: "chat",
    }
)
#: Routes whose answer is generated, token by token; the others have no output tokens at all.
GENERATED = frozenset({CHAT, COMPLETIONS, RESPONSES})
#: Where a route's body may carry token ids instead of text: nobody but the engine can read those.
TOKEN_IDS: Mapping[str, str] = MappingProxyType({COMPLETIONS: "prompt", EMBEDDINGS: "input"})
