"""The tables, the pictures' contents, and the page they stand in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.growth.axes import Axis, Measured
from bench.growth.chart import Line, Panel, picture
from bench.report import markdown, number, shown
from bench.stats import Spread, spread

#: What each run found, run by run; an axis that broke has fewer points.
Runs = Sequence[Sequence[Measured]]

#: Share of a core that others may take before it is said with the figures.
BESIDE = 0.1

_LATENCY = {"request": "latency", "token": "relay lag"}


def labels(axis: Axis, runs: Runs) -> list[str]:
    """The places that any run has come to, in the axis' order."""
    seen = {one.label for run in runs for one in run}
    return [point.label for point in axis.points if point.label in seen]


def groups(runs: Runs) -> list[str]:
    """Processes, in the order in which they are first met."""
    return list(dict.fromkeys(name for run in runs for one in run for name in one.cpu))


def at(runs: Runs, label: str) -> list[Measured]:
    """One place in all runs."""
    return [one for run in runs for one in run if one.label == label]


def cpu(found: Sequence[Measured], group: str = "") -> Spread | None:
    """Over the runs; of all processes without a name."""
    if group:
        values = [one.cpu[group] for one in found if group in one.cpu]
    else:
        values = [one.total for one in found if one.total is not None]
    return spread(values) if values else None


def waited(found: Sequence[Measured], which: str) -> Spread | None:
    """p50 or p99 over the runs."""
    values = [value for one in found if (value := getattr(one, which)) is not None]
    return spread(values) if values else None


def table(axis: Axis, runs: Runs) -> str:
    """A row for each place."""
    names = groups(runs)
    head = [axis.what, f"CPU per {axis.unit}, {axis.measure}", *names,
            f"{_LATENCY[axis.unit]} p50, ms", "p99, ms", "did not hold"]  # fmt: skip
    rows = []
    for label in labels(axis, runs):
        found = at(runs, label)
        parts = [cpu(found, name) for name in names]
        rows.append([label, shown(cpu(found)), *(number(part.median) if part else "" for part in parts),
                     shown(waited(found, "p50")), shown(waited(found, "p99")), _broken(found, len(runs))])  # fmt: skip
    left = [point.label for point in axis.points if point.label not in labels(axis, runs)]
    words = f"\n\nNot driven any more: {', '.join(left)}." if left else ""
    return _ruled(markdown([head, *rows])) + words


def _ruled(text: str) -> str:
    """The first column to the left, all others to the right."""
    lines = text.split("\n")
    lines[1] = "|---" + "|---:" * (lines[0].count("|") - 3) + "|---|"
    return "\n".join(lines)


def _broken(found: Sequence[Measured], runs: int) -> str:
    reasons = [one.broke for one in found if one.broke]
    return f"{len(reasons)} of {runs} runs: {reasons[0]}" if reasons else ""


def svg(axis: Axis, runs: Runs) -> str:
    """CPU by process on the left, what was waited for on the right."""
    places = labels(axis, runs)
    found = [at(runs, label) for label in places]
    named = [name for name in groups(runs) if all(name in one.cpu for each in found for one in each)]
    costs = Panel(f"CPU per {axis.unit}, {axis.measure}",
                  [Line("all", [_ends(cpu(each)) for each in found]),
                   *(Line(name, [_ends(cpu(each, name)) for each in found]) for name in named)])  # fmt: skip
    waits = Panel(f"{_LATENCY[axis.unit]}, ms",
                  [Line(which, [_ends(waited(each, which)) for each in found]) for which in ("p50", "p99")],
                  log=True)  # fmt: skip
    broken = [place for place, each in enumerate(found) if any(one.broke for one in each)]
    return picture(axis.title, places, axis.what, [costs, waits], broken)


def _ends(found: Spread | None) -> tuple[float, float, float] | None:
    return (found.low, found.median, found.high) if found else None


def part(axis: Axis, runs: Runs, about: str) -> str:
    """What stands between the marks of an axis."""
    head = f"### {axis.title}\n\n![{axis.title}](growth-{axis.name}.svg)"
    return f"{head}\n\n{about} {company(runs)}\n\n{table(axis, runs)}\n"


def company(runs: Runs) -> str:
    """What else the machine did meanwhile."""
    shares = spread([one.others for run in runs for one in run])
    return (
        f"Other processes took {shares.median:.0%} of a core in the median window, {shares.high:.0%} in the worst"
        f"{': figures beside other load' * (shares.high > BESIDE)}."
    )
