"""How one of several fit endpoints is chosen. One pure file each; the table is the registry.

A strategy is `choose(weights, in_use, turn) -> index` over endpoints with a free slot: two lists of the same length,
never empty; weights >= 1; in_use: requests this process has there. `turn` counts the choices made for the pool in this
process. Every strategy respects weights and passes the one suite in tests/contract/test_strategies.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workers.router.strategies.least_inflight import least_inflight
from workers.router.strategies.round_robin import round_robin

Strategy = Callable[[Sequence[int], Sequence[int], int], int]

STRATEGIES: dict[str, Strategy] = {"least_inflight": least_inflight, "round_robin": round_robin}
