"""An engine that breaks the protocol: on every second run, alone in its pool or beside a well one, for both clients.

Before its first token a run is tried elsewhere; after it, it ends with an error that has a code, never with a clean
end; a run that meets no fault is not touched by its neighbours'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.faults.bad_engine import KINDS, UNARY
from bench.faults.cases import Case
from bench.faults.field import Field
from bench.faults.load import FRAIL, Body, chat
from bench.faults.said import Said

#: Errors that a failing engine may cause.
CODES = frozenset(
    {"upstream_interrupted", "upstream_timeout", "upstream_error", "server_is_overloaded", "deadline_exceeded"}
)
ALONE, PAIR = "alone", "pair"
#: Faults that strike before the first token: with another endpoint beside, the client never hears of them.
_BEFORE = ("refuse", "silent", "html", "s429", "s500", "s503")
#: Faults under which an answer is whole all the same.
_HARMLESS = ("good", "split", "nodone")
#: One byte each so many milliseconds, in the full form a second, where the deadline ends it.
_SLOW_MS, _SLOWEST_MS = 1, 1000
_TOKENS = 8
#: Faults inside an answer after which it is continued where the pool's engines can.
BREAKS = ("reset", "hang", "half", "noend", "malformed")


def quick() -> list[Case]:
    """All faults in one load."""
    kinds = [kind for kind in KINDS if kind not in ("good", "huge")]
    return [Case("engines", "engines", _judged(kinds), CODES, body=_body(kinds, _SLOW_MS)), _goes_on("reset")]


def full() -> list[Case]:
    """A case for each fault."""
    found = []
    for kind in KINDS:
        if kind != "good":
            share = 0.1 if kind == "huge" else 1.0
            body = _body([kind], _SLOWEST_MS)
            found.append(Case(f"engine.{kind}", "engines", _judged([kind]), CODES, body=body, share=share))
    return [*found, *(_goes_on(kind) for kind in BREAKS)]


def _goes_on(kind: str) -> Case:
    """Every stream breaks off inside its answer, and another endpoint of its pool continues it."""

    def body(number: int, said: Said) -> dict[str, Any]:
        at = number * 37 % 1400 if kind == "reset" else number % _TOKENS
        return chat(FRAIL, lambda number: _TOKENS, f"@@fault={kind}.{at}o")(number, said)

    return Case(f"engine.{kind}.continued", "engines", _all_whole, body=body, continues=True)


async def _all_whole(field: Field) -> None:
    await field.load.until(max(field.wanted, 160))


def fault_of(number: int, kinds: Sequence[str]) -> tuple[str, str]:
    """(model, kind) of a run: by fours a well one alone, a fault alone, a fault beside a well engine, a well one so."""
    place = number // 4
    kind = kinds[place // 4 % len(kinds)]
    return ((ALONE, "good"), (ALONE, kind), (PAIR, kind), (PAIR, "good"))[place % 4]


def _body(kinds: Sequence[str], slow_ms: int) -> Body:
    def body(number: int, said: Said) -> dict[str, Any]:
        model, kind = fault_of(number, kinds)
        at = number * 37 % 1400 if kind == "reset" else slow_ms if kind == "slowly" else number % _TOKENS
        once = "o" if model == PAIR else ""
        return chat(model, lambda number: _TOKENS, f"@@fault={kind}.{at}{once}")(number, said)

    return body


def _judged(kinds: Sequence[str]) -> Callable[[Field], Any]:
    async def play(field: Field) -> None:
        """Enough runs that every fault is met in both pools by both clients; then what each had to come to."""
        await field.load.until(max(field.wanted, 40 * len(kinds)))
        await field.load.stop()
        for number, said in enumerate(field.load.said):
            model, kind = fault_of(number, kinds)
            kind = kind if said.stream or kind in UNARY else "good"
            if (kind in _HARMLESS or (model == PAIR and kind in _BEFORE)) and not said.whole:
                field.notes.append(f"{said.name}: {kind} in pool {model} ended with {said.code or 'a cut'}")

    return play
