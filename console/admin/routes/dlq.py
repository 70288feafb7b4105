"""/dlq: dead letters. Listing tells why; showing opens one; replay puts it back; purge is for good."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query
from pydantic import Field

from base import logs
from base.settings import Section
from console.admin.parts import Given
from schemas.errors import Code, Refusal

routes = APIRouter(prefix="/dlq")
log = logs.room("console")


class Ids(Section):
    """Which letters."""

    ids: tuple[str, ...] = Field(min_length=1, max_length=10_000)


@routes.get("")
async def list_letters(parts: Given, after: str = "", count: int = Query(100, ge=1, le=1000)) -> dict[str, Any]:
    """Newest first."""
    found = await parts.dead_letters.list(after=_id(after) if after else "", count=count)
    return {"data": [asdict(letter) for letter in found]}


@routes.post("/purge")
async def purge(wanted: Ids, parts: Given) -> dict[str, Any]:
    gone = await parts.dead_letters.purge([_id(id) for id in wanted.ids])
    log.warning("dead letters purged", count=gone)
    return {"purged": gone}


@routes.get("/{id}")
async def show(id: str, parts: Given) -> dict[str, Any]:
    letter = await parts.dead_letters.show(_id(id))
    if letter is None:
        raise _no_letter()
    return asdict(letter)


@routes.post("/{id}/replay")
async def replay(id: str, parts: Given) -> dict[str, Any]:
    """Put the entry back on its stream and drop the letter."""
    entry = await parts.dead_letters.replay(_id(id))
    if entry is None:
        raise _no_letter()
    log.info("dead letter replayed", letter=id, entry=entry)
    return {"id": id, "entry": entry}


def _id(text: str) -> str:
    """An id of the form <partition or stream>:<milliseconds>-<number>."""
    where, _, entry = text.partition(":")
    milliseconds, _, number = entry.partition("-")
    if not (where and milliseconds.isdecimal() and number.isdecimal() and len(text) < 200):
        raise Refusal.of(
            Code.invalid_request, "A dead letter's id looks like 0:1700000000000-0; the list has them.", param="id"
        )
    return text


def _no_letter() -> Refusal:
    return Refusal.of(Code.not_found, "There is no such dead letter. `headrace dlq list` shows all.", param="id")
