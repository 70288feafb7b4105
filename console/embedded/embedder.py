"""A real embedding model in a process of its own: `python -m console.embedded.embedder --port N`.

    POST /v1/embeddings     `input`: a text or a list of up to 2,048; `encoding_format`: float (default) or base64
    GET  /v1/models, /health

The OpenAI API on 127.0.0.1, nothing else. What this model can't do is a 400 that says so: token ids, another number of
dimensions, a text over 256 tokens (unless `truncate_prompt_tokens` is sent, as for vLLM: -1 cuts at the limit).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.embedded.errors import EmbeddedError
from console.embedded.minilm import DIMENSIONS, MAX_TOKENS, MODEL, Embedded, MiniLM, TooLong

_MOST_TEXTS = 2048
_MOST_BYTES = 32 * 1024 * 1024


class Unfit(ValueError):
    """A request this engine can't serve. param: the field; code: as OpenAI names it."""

    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param, self.code = param, code


class Embedder:
    """The application. model: loaded; name: what it is called; threads: texts at once."""

    def __init__(self, model: MiniLM, name: str, threads: int) -> None:
        self._model, self._name = model, name
        self._threads = ThreadPoolExecutor(threads, "embed")
        self.app = Starlette(
            routes=[
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def _models(self, _: Request) -> Response:
        return _json({"object": "list", "data": [{"id": self._name, "object": "model", "owned_by": "headrace"}]})

    async def _embeddings(self, request: Request) -> Response:
        try:
            fields = read(await _body(request))
            found = await self._embed(fields, request)
        except Unfit as error:
            said = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": error.code}
            return _json({"error": said}, 400)
        return _json(answer(found, self._name, fields.get("encoding_format") == "base64"))

    async def _embed(self, fields: dict[str, Any], request: Request) -> Embedded:
        """In a thread; a client that leaves stops the batch at its next text."""
        gone = threading.Event()
        watch = asyncio.create_task(_left(request, gone))
        cut = fields.get("truncate_prompt_tokens") is not None
        texts = [fields["input"]] if isinstance(fields["input"], str) else fields["input"]
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._model.embed, texts, cut, gone.is_set
            )
        except TooLong as error:
            raise Unfit(f"{error}.", "input", "context_length_exceeded") from None
        finally:
            gone.set()
            watch.cancel()


async def _left(request: Request, gone: threading.Event) -> None:
    """Tell of a client that leaves: the server does not end the handler by itself. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _body(request: Request) -> bytes:
    """The body up to a limit that no sensible batch reaches."""
    whole = bytearray()
    async for piece in request.stream():
        whole += piece
        if len(whole) > _MOST_BYTES:
            raise Unfit(f"The body is larger than {_MOST_BYTES} bytes.", "input")
    return bytes(whole)


def read(body: bytes) -> dict[str, Any]:
    """The request's fields, checked. Unfit."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unfit(f"The body is not JSON: {error.msg}.", "") from None
    if not isinstance(fields, dict):
        raise Unfit("The body must be an object.", "")
    _check_input(fields.get("input"))
    if fields.get("dimensions") not in (None, DIMENSIONS):
        raise Unfit(f"This model gives {DIMENSIONS} numbers and can't give others.", "dimensions")
    if fields.get("encoding_format") not in (None, "float", "base64"):
        raise Unfit("'encoding_format' must be 'float' or 'base64'.", "encoding_format")
    if fields.get("truncate_prompt_tokens") not in (None, -1, MAX_TOKENS):
        raise Unfit(f"'truncate_prompt_tokens' must be -1 or {MAX_TOKENS}.", "truncate_prompt_tokens")
    return fields


def _check_input(value: Any) -> None:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 0 < len(texts) <= _MOST_TEXTS:
        raise Unfit(f"'input' must be a text or a list of 1 to {_MOST_TEXTS} texts.", "input")
    if not all(isinstance(text, str) for text in texts):
        raise Unfit("'input' must be text: token ids of another model's tokenizer would mean other words.", "input")


def answer(found: Embedded, name: str, packed: bool) -> dict[str, Any]:
    """The answer's body. packed: little-endian float32 in base64, as OpenAI's clients ask by themselves."""
    data = [
        {"object": "embedding", "index": place, "embedding": _packed(vector) if packed else vector.tolist()}
        for place, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _packed(vector: Any) -> str:
    return base64.b64encode(vector.tobytes()).decode()


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def main() -> None:
    """Command line of the engine process."""
    parser = argparse.ArgumentParser(description="Serves an embedding model on 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default=MODEL, help="the model's name for clients")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="texts at once")
    options = parser.parse_args()
    try:
        embedder = Embedder(MiniLM(threads=1), options.name, options.threads)
    except EmbeddedError as error:
        sys.exit(str(error))
    uvicorn.run(embedder.app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
