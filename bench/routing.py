"""How long a router takes to choose an endpoint: `python -m bench.routing`, or `scripts/bench --only routing`.

Microseconds of one decision as the router makes it (Pools.pick: the endpoints that may be called, then the strategy),
and with the record of what it was chosen from (pick + explain), for pools of 1, 10 and 100 endpoints in use. One
process, no I/O; CPU time, the best of several rounds, because everything else on the machine only adds to it.
"""

import sys
from collections.abc import Callable, Sequence
from time import process_time

from base.clock import SystemClock
from base.ids import SystemRandom
from schemas.records import EndpointRecord
from workers.router.app import make_pools
from workers.router.choice import Place
from workers.router.pools import Pools
from workers.router.settings import RouterSettings
from workers.router.strategies import STRATEGIES

SIZES = (1, 10, 100)
_ROUNDS, _SECONDS = 5, 0.05
NOBODY: frozenset[str] = frozenset()


def endpoints(count: int) -> tuple[EndpointRecord, ...]:
    """A pool with weights."""
    return tuple(
        EndpointRecord(endpoint=f"e{n}", deployment=f"e{n}", pool="p", model="m", url="", slots=64, weight=1 + n % 4)
        for n in range(count)
    )


def busy_pools(strategy: str, pool: Sequence[EndpointRecord]) -> Pools:
    """A process that has used every endpoint and has requests at most of them."""
    settings = RouterSettings.model_validate({"strategy": strategy, "prices": {"e1*": 100, "e*": 200}})
    pools = make_pools(settings, SystemClock(), SystemRandom())
    for number, place in enumerate(pools.places("p", pool)):
        pools.measured(place, 0.02 + 0.001 * (number * 7 % 13))
        place.in_use = number * 5 % 7
    return pools


def microseconds(step: Callable[[], object]) -> float:
    """The best mean of several rounds."""
    best, times = float("inf"), 1
    for _ in range(_ROUNDS):
        while True:
            begun = process_time()
            for _ in range(times):
                step()
            took = process_time() - begun
            if took >= _SECONDS:
                break
            times *= 2
        best = min(best, took / times)
    return best * 1e6


def measured() -> dict[str, list[tuple[float, float]]]:
    """Strategy -> for each size: a decision, a decision with its record; microseconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for strategy in STRATEGIES:
        found[strategy] = []
        for size in SIZES:
            pool = endpoints(size)
            pools = busy_pools(strategy, pool)

            def decide(pools: Pools = pools, pool: Sequence[EndpointRecord] = pool) -> object:
                return pools.pick("p", pool, NOBODY)

            def record(pools: Pools = pools, pool: Sequence[EndpointRecord] = pool) -> object:
                place = pools.pick("p", pool, NOBODY)
                assert isinstance(place, Place)
                return pools.explain("p", pool, NOBODY, place)

            found[strategy].append((microseconds(decide), microseconds(record)))
    return found


def table(found: dict[str, list[tuple[float, float]]], markdown: bool = False) -> str:
    """The figures, a strategy a row."""
    head = ["us per decision (with its record)", *(f"{size} endpoints" for size in SIZES)]
    rows = [[name, *(f"{plain:.1f} ({full:.1f})" for plain, full in cells)] for name, cells in found.items()]
    if markdown:
        return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    )


def main(markdown: bool = False) -> int:
    """Measure and print. Time never decides the exit code."""
    print(table(measured(), markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
