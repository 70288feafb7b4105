"""A case: what it strikes at, under which load, and what its clients may see of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.faults.field import Field
from bench.faults.load import SHORT, Body

#: Nothing that fails may be seen; errors of a router that died in mid-answer.
NONE: frozenset[str] = frozenset()
BROKEN = frozenset({"upstream_interrupted"})


@dataclass(frozen=True, slots=True)
class Case:
    """codes: errors that clients may see; cuts: connections may be lost; share: of the usual rate of runs; continues:
    some answers must be put together from several engines' parts."""

    name: str
    family: str
    play: Callable[[Field], Awaitable[None]]
    codes: frozenset[str] = NONE
    cuts: bool = False
    body: Body = SHORT
    share: float = 1.0
    most: int = 300
    continues: bool = False
