"""An entry in hand of an engine, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from runtime.group_spec import Spec
from runtime.groups import Row
from runtime.scripts import Held
from schemas.envelope import Envelope
from schemas.outcomes import Decided, Delivery


class Acts(Protocol):
    """What the engine cannot do by itself: carrying out verdicts and writing dead letters."""

    async def decided(self, pairs: Sequence[tuple[Delivery, Decided]]) -> None: ...

    async def dead(self, row: Row, spec: Spec, consumer: str, starts: int, reason: str) -> None: ...


class Item(msgspec.Struct):
    """One entry, what works on it and who hears of it. key: its stream and id. counted: this start is in the server's
    count of starts."""

    key: tuple[str, str]
    row: Row
    delivery: Delivery
    counted: bool = False
    task: asyncio.Task[None] | None = None
    held: Held | None = None
    on_state: Callable[[str], None] | None = None


def delivery_of(row: Row, envelope: Envelope, event: object, starts: int) -> Delivery:
    """An entry as its handler gets it."""
    return Delivery(
        stream=row.stream,
        entry=row.entry,
        envelope=envelope,
        event=event,
        starts=starts,
        fields=row.fields,
        body=row.body,
    )
