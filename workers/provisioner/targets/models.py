"""Asking an OpenAI-compatible server which models it serves: GET <base>/models. The probe of every target.

200, one model or ours among them    up
200, several, none of them ours      final: say which one with upstream_model
401, 403                             final: the credential is refused
404, 405, 501                        up when the upstream model is named (some servers have no listing)
anything else, no answer             down
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from schemas.errors import HeadraceError
from workers.provisioner.ports import Health, Spec

_MOST = 4 * 1024 * 1024  # bytes of a listing
_NO_LISTING = (404, 405, 501)


class Fetch(Protocol):
    """One GET: the status and the body. Raises HeadraceError when there is no answer."""

    async def __call__(self, url: str, headers: dict[str, str], *, private: bool, most: int) -> tuple[int, bytes]: ...


async def probe(fetch: Fetch, url: str, spec: Spec, *, private: bool) -> Health:
    """One look at the server at base address `url`. Never raises for its sake."""
    headers = {"accept": "application/json"}
    if spec.credential:
        headers["authorization"] = f"Bearer {spec.credential}"
    try:
        status, body = await fetch(f"{url}/models", headers, private=private, most=_MOST)
    except HeadraceError as error:
        return Health(up=False, reason=str(error))
    return judge(status, body, spec)


def judge(status: int, body: bytes, spec: Spec) -> Health:
    """What an answer means. Pure."""
    if status in (401, 403):
        hint = "is refused" if spec.credential else "is missing: add the model with --api-key-env VAR"
        return Health(up=False, reason=f"the engine's credential {hint} (status {status})", final=True)
    if status in _NO_LISTING and spec.upstream_model:
        return Health(up=True, upstream_model=spec.upstream_model)
    if status != 200:
        return Health(up=False, reason=f"GET /models answered {status}")
    listed = _names(body)
    if spec.upstream_model:
        return Health(up=True, upstream_model=spec.upstream_model)
    if spec.name in listed:
        return Health(up=True, upstream_model=spec.name)
    if len(listed) == 1:
        return Health(up=True, upstream_model=listed[0])
    shown = ", ".join(listed[:5]) or "none"
    return Health(up=False, reason=f"name the engine's model with --upstream; it lists: {shown}", final=bool(listed))


def _names(body: bytes) -> list[str]:
    try:
        found: Any = json.loads(body)
        rows = found["data"] if isinstance(found, dict) else found
        return [str(row["id"]) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
