"""/keys: create, list, show, rotate, revoke. A token is in the answer of create and rotate and never again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from base.settings import Section
from console.admin.parts import Given
from console.admin.shapes import example, like, listed
from console.desks import KeyWish, NewToken
from ingress.documents.openapi import answer, asks, fails, operation
from schemas.errors import Code, Refusal
from schemas.records import KeyRecord
from storage.access import OPERATOR

routes = APIRouter(prefix="/keys", tags=["keys"])

_SECRET = ("secret_mac", "mac_kid", "previous_mac", "previous_mac_kid")
_State = Literal["active", "expired", "revoked"]
Key = like("Key", KeyRecord, without=_SECRET, state=_State)
NewKey = like("NewKey", KeyRecord, without=_SECRET, state=_State, token=str)
KeyId = Annotated[str, Path(description="The public part of a key: hr_<key_id>_...", examples=["71208818d7d76c52"])]

_KEY = example(
    KeyRecord,
    Key,
    state="active",
    key_id="71208818d7d76c52",
    tenant="default",
    name="team-a",
    models=["hosted-*"],
    requests_per_minute=600,
    concurrency=20,
    created_ms=1_760_000_000_000,
)
_NEW = {**_KEY, "token": "hr_71208818d7d76c52_<secret>_<check>"}
_WISH = {"name": "team-a", "models": ["hosted-*"], "requests_per_minute": 600, "concurrency": 20}


class Rotation(Section):
    """How long the old secret goes on. None: the house's setting."""

    overlap_s: int | None = Field(None, strict=True, ge=0, le=31_536_000)


@routes.post(
    "",
    status_code=201,
    response_model=NewKey,
    summary="Create a key",
    openapi_extra=operation(asks(_WISH), answer(_NEW, "The key; its token is shown this once.", status=201)),
)
async def create(wish: KeyWish, parts: Given) -> dict[str, Any]:
    """A new key of a tenant. Doors know it at once."""
    return _with_token(await parts.key_desk.create(wish), parts.clock.now_ms())


@routes.get("", response_model=listed(Key), summary="List the keys", openapi_extra=operation(answer({"data": [_KEY]})))
async def list_keys(
    parts: Given, all: Annotated[bool, Query(description="Also the ended ones.")] = False
) -> dict[str, Any]:
    """Keys in use; with `all` also the ended ones."""
    now = parts.clock.now_ms()
    shown = [shape(record, now) for record in await parts.store.keys.list(OPERATOR)]
    return {"data": [row for row in shown if all or row["state"] == "active"]}


@routes.get(
    "/{key_id}",
    response_model=Key,
    summary="Show a key",
    openapi_extra=operation(answer(_KEY), fails(Code.not_found)),
)
async def show(key_id: KeyId, parts: Given) -> dict[str, Any]:
    """In use or ended. Its secret is stored nowhere."""
    record = await parts.store.keys.find(key_id)
    if record is None:
        raise Refusal.of(Code.not_found, "There is no such key. `headrace keys list --all` shows all.", param="key_id")
    return shape(record, parts.clock.now_ms())


@routes.post(
    "/{key_id}/rotate",
    response_model=NewKey,
    summary="Give a key a new secret",
    openapi_extra=operation(
        asks({"overlap_s": 3600}, required=False),
        answer(_NEW, "The key; its new token is shown this once."),
        fails(Code.not_found),
    ),
)
async def rotate(key_id: KeyId, parts: Given, wanted: Rotation | None = None) -> dict[str, Any]:
    """The new token works at once, the old one until the overlap is over."""
    given = wanted.overlap_s if wanted else None
    overlap = parts.rotation_overlap_s if given is None else given
    return _with_token(await parts.key_desk.rotate(key_id, overlap), parts.clock.now_ms())


@routes.delete(
    "/{key_id}",
    response_model=Key,
    summary="Revoke a key",
    openapi_extra=operation(answer({**_KEY, "state": "revoked"}), fails(Code.not_found)),
)
async def revoke(key_id: KeyId, parts: Given) -> dict[str, Any]:
    """End it everywhere, for good. 503: it is recorded but could not be announced; repeat."""
    return shape(await parts.key_desk.revoke(key_id), parts.clock.now_ms())


def shape(record: KeyRecord, now_ms: int) -> dict[str, Any]:
    """A key as operators see it: nothing that its secret could be guessed from."""
    state = "active"
    if record.revoked_ms:
        state = "revoked"
    elif record.expires_ms and record.expires_ms <= now_ms:
        state = "expired"
    names = (
        "key_id",
        "tenant",
        "name",
        "scopes",
        "models",
        "requests_per_minute",
        "concurrency",
        "weight",
        "priority",
        "lane",
    )
    times = ("on_disconnect", "created_ms", "expires_ms", "revoked_ms", "previous_until_ms")
    return {"state": state, **{name: getattr(record, name) for name in (*names, *times)}}


def _with_token(new: NewToken, now_ms: int) -> dict[str, Any]:
    return {**shape(new.record, now_ms), "token": new.token}
