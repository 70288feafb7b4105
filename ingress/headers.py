"""Header bytes of every answer, built once, and the few request headers the door understands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from ingress.errors import Header
from policy.disconnect import HEADER, PATTERN
from schemas.errors import Code, Refusal

JSON: Header = (b"content-type", b"application/json")
STREAM_HEAD: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
REPLAYED: Header = (b"idempotent-replayed", b"true")
CLOSE: Header = (b"connection", b"close")

_PUBLIC = ("x-ratelimit-", "x-headrace-")
_TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PRIORITY = re.compile(rb"-?(?:10|[0-9])")
_VALUE = re.compile(r"[\x20-\x7e]*")
_DISCONNECT = HEADER.encode()
_WISHES = frozenset(
    {
        b"x-stainless-read-timeout",
        b"x-headrace-priority",
        b"x-headrace-durability",
        _DISCONNECT,
        b"traceparent",
        b"x-client-request-id",
    }
)
_LONGEST_ID = 128  # characters of a client's own request id that are kept


def own_headers(run: str, accepted: bool, seconds: float) -> list[Header]:
    """x-request-id and openai-processing-ms, on every answer; x-headrace-run once there is a run."""
    name = run.encode()
    headers = [(b"x-request-id", name), (b"openai-processing-ms", b"%d" % round(seconds * 1000))]
    if accepted:
        headers.append((b"x-headrace-run", name))
    return headers


def frame_headers(headers: Mapping[str, str]) -> list[Header]:
    """What a frame may tell the client: x-ratelimit-* and x-headrace-*, printable ASCII only."""
    return [
        (name.encode(), value.encode())
        for name, value in headers.items()
        if name.startswith(_PUBLIC) and _VALUE.fullmatch(name) and _VALUE.fullmatch(value)
    ]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a request's headers ask for beside its body, each as its function below says."""

    deadline_ms: int
    strict: bool = False
    priority: int | None = None
    disconnect: str = ""
    trace: str = ""
    client_request_id: str = ""


def wishes_of(headers: Mapping[bytes, bytes], unsaid: Wishes, most_s: float) -> Wishes:
    """unsaid: what holds where nothing is asked for, as in most requests. most_s: see deadline_ms. Refusal."""
    if _WISHES.isdisjoint(headers):
        return unsaid
    return Wishes(
        strict=wants_strict(headers),
        client_request_id=client_request_id(headers),
        priority=priority(headers),
        disconnect=disconnect_wish(headers),
        deadline_ms=deadline_ms(headers, unsaid.deadline_ms / 1000, most_s),
        trace=traceparent(headers),
    )


def deadline_ms(headers: Mapping[bytes, bytes], default_s: float, most_s: float) -> int:
    """The budget of a run: the client's announced read timeout (x-stainless-read-timeout, seconds) within (0, most_s],
    else the default."""
    given = headers.get(b"x-stainless-read-timeout")
    try:
        wanted = default_s if given is None else float(given)
    except ValueError:
        wanted = default_s
    if not math.isfinite(wanted) or wanted <= 0:
        wanted = default_s
    return max(1, round(min(wanted, most_s) * 1000))


def priority(headers: Mapping[bytes, bytes]) -> int | None:
    """x-headrace-priority, a whole number from -10 to 10: the place among the tenant's waiting requests; the key's own
    is the most it can have. None when it is not there; Refusal(invalid_request) for anything else."""
    text = headers.get(b"x-headrace-priority")
    if text is None:
        return None
    if not _PRIORITY.fullmatch(text.strip()):
        words = "Invalid value for header 'x-headrace-priority': it must be a whole number from -10 to 10."
        raise Refusal.of(Code.invalid_request, words, param="x-headrace-priority")
    return int(text)


def wants_strict(headers: Mapping[bytes, bytes]) -> bool:
    """x-headrace-durability: strict. It can ask for more than the operator decided, never for less, so that is its only
    value; Refusal(invalid_request) for any other."""
    text = headers.get(b"x-headrace-durability")
    if text is not None and text.strip() != b"strict":
        words = "Invalid value for header 'x-headrace-durability': it can only be `strict`; leave it out otherwise."
        raise Refusal.of(Code.invalid_request, words, param="x-headrace-durability")
    return text is not None


def disconnect_wish(headers: Mapping[bytes, bytes]) -> str:
    """x-headrace-on-disconnect: what becomes of the run when its client leaves, "" when it is not there. Whether it may
    be asked for is authorization's to say; Refusal(invalid_request) for what is no policy at all."""
    given = headers.get(_DISCONNECT)
    if given is None:
        return ""
    text = given.decode("latin1").strip()
    if not re.fullmatch(PATTERN, text):
        words = f"Invalid value for header '{HEADER}': it must be cancel, grace:SECONDS or finish."
        raise Refusal.of(Code.invalid_request, words, param=HEADER)
    return text


def traceparent(headers: Mapping[bytes, bytes]) -> str:
    """The W3C trace context, or "" when there is none that is valid."""
    text = headers.get(b"traceparent", b"").decode("latin1")
    return text if text and _TRACE.fullmatch(text) else ""


def client_request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own X-Client-Request-Id for the record, or "" when it is not printable ASCII."""
    text = headers.get(b"x-client-request-id", b"").decode("latin1")[:_LONGEST_ID]
    return text if text and _VALUE.fullmatch(text) else ""
