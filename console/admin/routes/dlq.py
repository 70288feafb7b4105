"""/dlq: dead letters. Listing tells why; showing opens one; replay puts it back; purge is for good."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from base import logs
from base.settings import Section
from console.admin.parts import Given
from console.admin.shapes import Shape, like, listed
from ingress.documents.openapi import answer, asks, fails, operation
from runtime.dlq import Letter
from schemas.errors import Code, Refusal

routes = APIRouter(prefix="/dlq", tags=["dlq"])
log = logs.room("console")


class Ids(Section):
    """Which letters."""

    ids: tuple[str, ...] = Field(min_length=1, max_length=10_000)


DeadLetter = like("DeadLetter", Letter)
Id = Annotated[str, Path(description="`id` of the list.", examples=["0:1700000000000-0"])]


class Purged(Shape):
    """How many letters there were."""

    purged: int


class Replayed(Shape):
    """The letter, and the id of the new entry on its stream."""

    id: str
    entry: str


_LETTER = {
    "id": "0:1700000000000-0",
    "stream": "{0.178}:facts",
    "group": "audit",
    "entry": "1699999999000-0",
    "starts": 3,
    "reason": "started 3 times and never finished",
    "run": "",
    "fields": {},
}


@routes.get(
    "",
    response_model=listed(DeadLetter),
    summary="List the dead letters",
    openapi_extra=operation(answer({"data": [_LETTER]})),
)
async def list_letters(
    parts: Given,
    after: Annotated[str, Query(description="Only older ones than this id, of the same partition.")] = "",
    count: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Newest first, with the reason; an entry itself is opened by its own path only."""
    found = await parts.dead_letters.list(after=_id(after) if after else "", count=count)
    return {"data": [asdict(letter) for letter in found]}


@routes.post(
    "/purge",
    response_model=Purged,
    summary="Drop dead letters",
    openapi_extra=operation(asks({"ids": ["0:1700000000000-0"]}), answer({"purged": 1})),
)
async def purge(wanted: Ids, parts: Given) -> dict[str, Any]:
    """For good. Ids that are no longer there are not counted."""
    gone = await parts.dead_letters.purge([_id(id) for id in wanted.ids])
    log.warning("dead letters purged", count=gone)
    return {"purged": gone}


@routes.get(
    "/{id}",
    response_model=DeadLetter,
    summary="Open a dead letter",
    openapi_extra=operation(answer({**_LETTER, "fields": {"e": "..."}}), fails(Code.not_found)),
)
async def show(id: Id, parts: Given) -> dict[str, Any]:
    """The entry as it was; `error` among its fields when it cannot be opened."""
    letter = await parts.dead_letters.show(_id(id))
    if letter is None:
        raise _no_letter()
    return asdict(letter)


@routes.post(
    "/{id}/replay",
    response_model=Replayed,
    summary="Replay a dead letter",
    openapi_extra=operation(answer({"id": "0:1700000000000-0", "entry": "1700000000500-0"}), fails(Code.not_found)),
)
async def replay(id: Id, parts: Given) -> dict[str, Any]:
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
    if not (where and _counts(milliseconds) and _counts(number) and len(text) < 200):
        raise Refusal.of(
            Code.invalid_request, "A dead letter's id looks like 0:1700000000000-0; the list has them.", param="id"
        )
    return text


def _counts(text: str) -> bool:
    """Whether it is one half of a stream's id: 64 bits."""
    return text.isascii() and text.isdecimal() and int(text) < 2**64


def _no_letter() -> Refusal:
    return Refusal.of(Code.not_found, "There is no such dead letter. `headrace dlq list` shows all.", param="id")
