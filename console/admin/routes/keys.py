"""/keys: create, list, show, rotate, revoke. A token is in the answer of create and rotate and never again."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from base.settings import Section
from console.admin.parts import Given
from console.desks import KeyWish, NewToken
from schemas.errors import Code, Refusal
from schemas.records import KeyRecord
from storage.access import OPERATOR

routes = APIRouter(prefix="/keys")


class Rotation(Section):
    """How long the old secret goes on. None: the house's setting."""

    overlap_s: int | None = Field(None, ge=0, le=31_536_000)


@routes.post("", status_code=201)
async def create(wish: KeyWish, parts: Given) -> dict[str, Any]:
    return _with_token(await parts.key_desk.create(wish), parts.clock.now_ms())


@routes.get("")
async def list_keys(parts: Given, all: bool = False) -> dict[str, Any]:
    """Keys in use; with `all` also the ended ones."""
    now = parts.clock.now_ms()
    shown = [shape(record, now) for record in await parts.store.keys.list(OPERATOR)]
    return {"data": [row for row in shown if all or row["state"] == "active"]}


@routes.get("/{key_id}")
async def show(key_id: str, parts: Given) -> dict[str, Any]:
    record = await parts.store.keys.find(key_id)
    if record is None:
        raise Refusal.of(Code.not_found, "There is no such key. `headrace keys list --all` shows all.", param="key_id")
    return shape(record, parts.clock.now_ms())


@routes.post("/{key_id}/rotate")
async def rotate(key_id: str, parts: Given, wanted: Rotation | None = None) -> dict[str, Any]:
    given = wanted.overlap_s if wanted else None
    overlap = parts.rotation_overlap_s if given is None else given
    return _with_token(await parts.key_desk.rotate(key_id, overlap), parts.clock.now_ms())


@routes.delete("/{key_id}")
async def revoke(key_id: str, parts: Given) -> dict[str, Any]:
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
