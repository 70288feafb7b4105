"""A router process's reports on the endpoints it uses (state/inflight.py), from a timer: never on a request's way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from schemas.records import EndpointRecord
from state.inflight import RedisInflight, Report


class Catalog(Protocol):
    """What the process's router chooses from: state/catalog.py."""

    async def known(self) -> Sequence[EndpointRecord]: ...


class Reporter:
    """used: endpoint -> requests now.

    An endpoint stays in the reports for one round after it left the catalog, because a choice may just be under way
    from a list that was read before."""

    def __init__(
        self, inflight: RedisInflight, catalog: Catalog, process: str, used: Callable[[], Mapping[str, int]]
    ) -> None:
        self._inflight, self._catalog, self._process, self._used = inflight, catalog, process, used
        self._before: tuple[str, ...] = ()

    async def report(self) -> None:
        """Say how things stand. Unavailable: the next round says it."""
        at_ms = await self._inflight.now_ms()
        present = tuple(item.endpoint for item in await self._catalog.known())
        known = tuple(dict.fromkeys((*present, *self._before)))
        self._before = present
        await self._inflight.report(self._process, Report(at_ms=at_ms, known=known, used=dict(self._used())))

    async def leave(self) -> None:
        """The process has no requests any more."""
        await self._inflight.leave(self._process)
