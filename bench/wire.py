"""Ready-made bytes of the mock engine's answers: HTTP heads, chunks of a stream, the unary body.

Everything about a stream that does not change from token to token is built once, when the stream begins.
"""

import base64
import struct

import orjson

from bench.stamps import STAMP_LETTERS

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests",
            500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}  # fmt: skip

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
#: The moment every answer claims to have been made, so that its bytes can be built once.
CREATED = 1_700_000_000


def answer(status: int, body: object, extra: str = "") -> bytes:
    """A whole JSON answer; `extra` is further header lines, each with its CRLF."""
    payload = orjson.dumps(body)
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n{extra}\r\n"
    )
    return head.encode() + payload


def failure(status: int, message: str) -> bytes:
    """An error in OpenAI's shape; 429 and 503 say when to come back."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return answer(status, {"error": error}, "retry-after: 1\r\n" if status in (429, 503) else "")


def completion(ident: str, model: str, text: str, finish: str, usage: dict[str, int], *, plain: bool = False) -> bytes:
    """The answer to a unary request. plain: to a completion, not a chat."""
    said = {"text": text} if plain else {"message": {"role": "assistant", "content": text, "refusal": None}}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
    kind = "text_completion" if plain else "chat.completion"
    return answer(
        200,
        {"id": ident, "object": kind, "created": CREATED, "model": model, "choices": [choice], "usage": usage},
    )


#: Numbers in a vector of the mock engine.
DIMENSIONS = 8


def embeddings(model: str, texts: list[str], encoded: bool) -> bytes:
    """Vectors that depend on the text alone: the shares of its letters, by their place in the alphabet."""
    counts = {"prompt_tokens": sum(len(text.split()) for text in texts)}
    rows = [
        {"object": "embedding", "index": place, "embedding": _vector(text, encoded)} for place, text in enumerate(texts)
    ]
    usage = {**counts, "total_tokens": counts["prompt_tokens"]}
    return answer(200, {"object": "list", "data": rows, "model": model, "usage": usage})


def _vector(text: str, encoded: bool) -> list[float] | str:
    letters = [ord(letter) % DIMENSIONS for letter in text]
    shares = [letters.count(place) / max(len(letters), 1) for place in range(DIMENSIONS)]
    if not encoded:
        return shares
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *shares)).decode()


def usage_of(prompt: int, generated: int) -> dict[str, int]:
    """OpenAI's three token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


class StreamBytes:
    """The chunks of one stream, HTTP chunk framing included.

    A token's chunk is `before + token + after`: all three of fixed length, so the chunk header is built once.
    """

    __slots__ = ("_head", "_plain", "_tail", "after", "before")

    def __init__(self, ident: str, model: str, with_usage: bool, plain: bool = False) -> None:
        name, kind = orjson.dumps(model).decode(), "text_completion" if plain else "chat.completion.chunk"
        self._plain = plain
        self._head = f'data: {{"id":"{ident}","object":"{kind}","created":{CREATED},"model":{name},"choices":['
        self._tail = ',"usage":null}\n\n' if with_usage else "}\n\n"
        opening = f'{self._head}{{"index":0,' + ('"text":"' if plain else '"delta":{"content":"')
        closing = ('"' if plain else '"}') + f',"finish_reason":null}}]{self._tail}'
        size = len((opening + closing).encode()) + 2 + STAMP_LETTERS
        self.before = f"{size:x}\r\n{opening}".encode()
        self.after = f"{closing}\r\n".encode()

    def role(self) -> bytes:
        """The first chunk of a chat: it names the speaker and carries no token. A completion has none."""
        if self._plain:
            return b""
        return self._event('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}')

    def finish(self, reason: str, usage: dict[str, int] | None) -> bytes:
        """The last chunks: finish reason, usage where asked for, the end mark, the end of the body."""
        said = '"text":""' if self._plain else '"delta":{}'
        last = self._event(f'{{"index":0,{said},"finish_reason":"{reason}"}}')
        if usage is not None:
            counts = orjson.dumps(usage).decode()
            last += _chunk(f'{self._head}],"usage":{counts}}}\n\n'.encode())
        return last + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def _event(self, choice: str) -> bytes:
        return _chunk(f"{self._head}{choice}]{self._tail}".encode())


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)
