"""What the durable path may cost on two cores, beside what was seen: the table under a run of `scripts/bench`.

Pure. A budget is judged by the median; none of them decides an exit code.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.report import number, shown
from bench.stats import Spread

#: (figure, unit) -> its spread, of one peer.
Found = Mapping[tuple[str, str], Spread]


@dataclass(frozen=True, slots=True)
class Budget:
    """`figure` is the whole name of a figure as an expression; at_least turns the limit round."""

    figure: str
    limit: float
    at_least: bool = False

    def holds(self, seen: float) -> bool:
        return seen >= self.limit if self.at_least else seen <= self.limit


_ROOMS = r"(ingress|supervisor|.*(router|rules|audit).*)"  # the processes that are Python

BUDGETS = (
    Budget(r"CPU per request sustained, all", 1.2),
    Budget(r"CPU per request at 800/s, all", 1.2),
    Budget(r"short requests/s sustained, 0 errors", 800, at_least=True),
    Budget(r"added TTFT at 100/s p50", 2.5),
    Budget(r"added TTFT at 100/s p99", 8),
    Budget(r"CPU per token, 500 streams x 20/s flowing, all", 75),
    Budget(r"CPU per token, 500 streams x 20/s, all", 75),
    Budget(r"CPU per token, 50 streams x 333/s, all", 35),
    Budget(r"CPU per token, 64 streams unpaced, all", 35),
    Budget(r"relay lag, 1000 streams x 10/s p99", 50),
    Budget(r"streams dropped, .*", 0),
    Budget(rf"PSS under load: {_ROOMS}", 100),
    Budget(r"ready after start", 10),
)


def table(found: Found, bare: Found | None = None) -> list[list[str]]:
    """Rows of cells, the first is the heading; a budget whose figure was not measured has none. bare: what the same
    passages cost with nothing in them (bench/bare), a column of its own when it was measured."""
    heading = ["budget", "unit", "limit", *(["bare"] if bare else []), "seen", ""]
    return [heading, *(row for budget in BUDGETS for row in _rows(budget, found, bare))]


def _rows(budget: Budget, found: Found, bare: Found | None) -> Iterator[list[str]]:
    limit = f"{'>=' if budget.at_least else '<='} {number(budget.limit)}"
    for key, seen in found.items():
        if re.fullmatch(budget.figure, key[0]):
            floor = [shown(bare.get(key))] if bare else []
            yield [*key, limit, *floor, shown(seen), "held" if budget.holds(seen.median) else "missed"]
