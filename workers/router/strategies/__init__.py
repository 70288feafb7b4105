"""How one of several fit endpoints is chosen. One pure file each; the table is the registry.

A strategy is `choose(candidates, draw) -> index` over endpoints that may be called and have a free slot, never an empty
list. The same candidates and the same draw give the same index. Every strategy respects weights as far as its own rule
leaves a choice, and passes the one suite in tests/contract/test_strategies.py.

least_inflight   the fewest requests for its weight
round_robin      each in turn, as often as its weight says
weighted         by chance, in proportion to the weights
power_of_two     the less loaded of two that chance has drawn by weight
latency          the fewest requests among those that are quick to the first byte
peak_ewma        the smallest expected time x (requests + 1) / weight
cost             the cheapest, then the fewest requests
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workers.router.strategies.candidate import Candidate, Draw
from workers.router.strategies.cost import cost
from workers.router.strategies.latency import latency
from workers.router.strategies.least_inflight import least_inflight
from workers.router.strategies.peak_ewma import peak_ewma
from workers.router.strategies.power_of_two import power_of_two
from workers.router.strategies.round_robin import round_robin
from workers.router.strategies.weighted import weighted

Strategy = Callable[[Sequence[Candidate], Draw], int]

STRATEGIES: dict[str, Strategy] = {
    "least_inflight": least_inflight,
    "round_robin": round_robin,
    "weighted": weighted,
    "latency": latency,
    "peak_ewma": peak_ewma,
    "cost": cost,
    "power_of_two": power_of_two,
}
