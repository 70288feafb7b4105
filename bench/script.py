"""What one request asks of the mock engine: tokens, stream or not, and the faults written in its prompt.

Pure. Faults stand in the prompt because that is what every gateway passes on:

    @@err=429    answer with that status        @@cut=5    close the connection after 5 tokens
    @@hang=3     fall silent after 3 tokens     @@slow     ten times slower, at least 100 ms a token
    @@times=1    the fault strikes only the first time this id is seen (a retry then succeeds)
    @@id=WORD    the name of the request in the ledger (or the header x-mock-id)
    @@count      token k carries k instead of the moment: the same answer every time

An answer that stands in the request (a last message of the assistant, or the end of a completion's prompt) is gone on
with: its tokens are not said again.
"""

import re
from dataclasses import dataclass, replace

import orjson

from bench.stamps import TOKEN

_MARK = re.compile(rb"@@(err|cut|hang|slow|times|id|count)(?:=([A-Za-z0-9_.-]{1,64}))?")


@dataclass(frozen=True, slots=True)
class Script:
    """How one request is to be answered."""

    model: str
    stream: bool
    usage: bool
    #: Tokens to send; None means the engine's default.
    tokens: int | None
    prompt_tokens: int
    err: int = 0
    #: Tokens after which the connection is closed, or silence begins; None means never.
    cut: int | None = None
    hang: int | None = None
    slow: bool = False
    #: How often a fault strikes one ledger id; None means always.
    times: int | None = None
    ledger_id: str = ""
    #: A completion (choices[].text), not a chat.
    text: bool = False
    #: Tokens of the answer that the request has already.
    said: int = 0
    counted: bool = False


def read(body: bytes, ledger_id: str = "") -> Script:
    """The script of a chat's or completion's body; ValueError with a sentence when it is none."""
    request = orjson.loads(body)
    said = _said(request)
    tokens = request.get("max_completion_tokens") or request.get("max_tokens")
    marks = {kind.decode(): value.decode() for kind, value in _MARK.findall(body)}
    return Script(
        model=str(request.get("model", "mock")),
        stream=request.get("stream") is True,
        usage=bool((request.get("stream_options") or {}).get("include_usage")),
        tokens=tokens if isinstance(tokens, int) and tokens > 0 else None,
        prompt_tokens=sum(_words(message) for message in said),
        text="messages" not in request,
        err=_number(marks, "err") or 0,
        cut=_number(marks, "cut"),
        hang=_number(marks, "hang"),
        slow="slow" in marks,
        times=_number(marks, "times"),
        ledger_id=ledger_id or marks.get("id", ""),
        said=_said_before(said[-1]) if said else 0,
        counted="count" in marks,
    )


def without_faults(script: Script) -> Script:
    """The same request answered well."""
    return replace(script, err=0, cut=None, hang=None, slow=False)


def _number(marks: dict[str, str], name: str) -> int | None:
    value = marks.get(name, "")
    return int(value) if value.isdigit() else None


def texts_of(value: object) -> list[str]:
    """The texts of a prompt or input: one, or a list; ValueError for anything else."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("a text or a list of texts is needed")
    return texts


def _said(request: object) -> list[object]:
    """What the prompt's words are counted in: the messages, or the texts of the prompt as such."""
    if not isinstance(request, dict):
        raise ValueError("an object is needed")
    if "prompt" in request and "messages" not in request:
        return [{"content": text} for text in texts_of(request["prompt"])]
    if not isinstance(request.get("messages"), list):
        raise ValueError("messages must be a list")
    return list(request["messages"])


def _said_before(last: object) -> int:
    """Tokens of ours in the last message, if it is the assistant's, or in a completion's prompt."""
    if not isinstance(last, dict) or last.get("role", "assistant") != "assistant":
        return 0
    content = last.get("content")
    return len(TOKEN.findall(content.encode())) if isinstance(content, str) else 0


def _words(message: object) -> int:
    """The mock's tokenizer: words of the text parts."""
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return sum(len(text.split()) for text in texts if isinstance(text, str))
