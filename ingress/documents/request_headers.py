"""The headers of a request that becomes a run: what a client may say beside its body. ingress/headers.py reads them."""

from __future__ import annotations

from ingress.documents.openapi import Part
from policy.disconnect import HEADER, PATTERN


def _header(name: str, said: str, example: str, **schema: object) -> Part:
    return {
        "name": name,
        "in": "header",
        "description": said,
        "schema": {"type": "string", **schema},
        "example": example,
    }


REQUEST_HEADERS: Part = {
    "parameters": [
        _header(
            "idempotency-key",
            "Requests with the same key, API key, route and body are one request: it runs once, and each of them has "
            "its answer, from the first event. Another body under the key is an error. Kept for a day; refusals and "
            "failures before the first token are not.",
            "order-4711-summary",
            minLength=1,
            maxLength=255,
            pattern="^[ -~]+$",
        ),
        _header(
            HEADER,
            "What becomes of the run when its last reader has left: `cancel`, `grace:SECONDS` (then cancel) or "
            "`finish`. Only something stricter than what holds for the key and the model; else an error.",
            "cancel",
            pattern=PATTERN,
        ),
        _header(
            "x-headrace-durability",
            "`strict`: accept the request only once it is on the store's disk. An error where the store cannot say.",
            "strict",
            enum=["strict"],
        ),
        _header(
            "x-headrace-priority",
            "The place among the waiting requests of the same tenant, -10 (last) to 10; the key's own is the most it "
            "can have.",
            "-1",
            pattern="^-?(10|[0-9])$",
        ),
        _header(
            "x-stainless-read-timeout",
            "Seconds the client waits, as OpenAI's libraries announce them: the run's deadline, within the server's "
            "own. What is no number is ignored.",
            "600",
        ),
        _header(
            "x-client-request-id",
            "The caller's own id, kept on the record: 128 printable ASCII characters of it.",
            "order-4711",
        ),
        _header(
            "traceparent",
            "A W3C trace context, which the run's own spans continue. What is none is ignored.",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ]
}
