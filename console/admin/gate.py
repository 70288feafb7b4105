"""The gate in front of every route: an admin key and a bounded body, before anything is parsed.

Whoever has no valid key learns nothing, not even which paths exist; only the pages of error codes are open, since an
error names its own.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base import logs
from console.admin.parts import Parts
from ingress.credentials import credential_of
from ingress.errors import PAGES, error_body, failure_of, http_status, retry_headers
from policy.decision import Need, Refused, decide
from schemas.errors import Code, Failure, HeadraceError, Refusal
from schemas.records import ADMIN, KeyRecord

log = logs.room("console")

MOST_BYTES = 1_000_000
_TOO_LARGE = Failure(
    code=Code.request_too_large.value, message=f"The body is larger than {MOST_BYTES} bytes, the limit of this API."
)


class Gate:
    """ASGI middleware. Not for lifespan events."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(PAGES):
            await self._app(scope, receive, send)
            return
        try:
            key = await self._allow(scope)
            body = await _read(receive)
        except HeadraceError as error:
            await answer(send, failure_of(error))
            return
        log.debug("admin request", method=scope["method"], path=scope["path"], key_id=key.key_id)
        await self._app(scope, _Replay(body, receive), send)

    async def _allow(self, scope: Scope) -> KeyRecord:
        """Refusal: invalid_api_key, permission_denied. Unavailable when no store answers."""
        credential = credential_of(dict(scope["headers"]), self._parts.ring)
        record = await self._parts.keys.find(credential.key_id)
        decision = decide(record, credential, Need(scope=ADMIN), None, self._parts.clock.now_ms())
        if isinstance(decision, Refused):
            raise Refusal(decision.failure)
        return decision.key


class _Replay:
    """Gives the body that was read; afterwards the connection's own messages."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _read(receive: Receive) -> bytes:
    """The whole body. Refusal(request_too_large); what is too much is read to its end, so that the client can hear."""
    body, total = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        chunk = message.get("body", b"")
        total += len(chunk)
        if total <= MOST_BYTES:
            body += chunk
        if not message.get("more_body"):
            break
    if total > MOST_BYTES:
        raise Refusal(_TOO_LARGE)
    return bytes(body)


async def answer(send: Send, failure: Failure) -> None:
    """An error in OpenAI's shape."""
    headers = [(b"content-type", b"application/json"), *retry_headers(failure)]
    await send({"type": "http.response.start", "status": http_status(failure), "headers": headers})
    await send({"type": "http.response.body", "body": error_body(failure)})
