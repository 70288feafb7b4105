"""Turning the values of all runs into tables: text for a terminal, Markdown for the docs, plain data for a file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from bench.cells import Value
from bench.stats import Spread, spread

#: Peer -> the values of each run.
Runs = Mapping[str, Sequence[Sequence[Value]]]


def collect(runs: Runs) -> dict[tuple[str, str], dict[str, Spread]]:
    """(figure, unit) -> peer -> spread over the runs, in the order of the peer that has most figures."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for peer in sorted(runs, key=lambda name: -max(map(len, runs[name]), default=0)):
        for value in chain.from_iterable(runs[peer]):
            values.setdefault((value.figure, value.unit), {}).setdefault(peer, []).append(value.value)
    return {key: {peer: spread(found) for peer, found in peers.items()} for key, peers in values.items()}


def number(value: float) -> str:
    """Three or four significant digits, no exponent."""
    size = abs(value)
    if value == int(value) and size < 1000:
        return str(int(value))
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 100 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def shown(found: Spread | None) -> str:
    """`median (low..high)`; the brackets only when there are several runs that differ."""
    if found is None:
        return ""
    if found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}..{number(found.high)})"


def table(runs: Runs) -> list[list[str]]:
    """Rows of cells; the first row is the heading, the first peer `direct`."""
    peers = sorted(runs, key=lambda name: name != "direct")
    rows = [["figure", "unit", *peers]]
    for (figure, unit), found in collect(runs).items():
        rows.append([figure, unit, *(shown(found.get(peer)) for peer in peers)])
    return rows


def text(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal: columns aligned, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if at < 2 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """For the docs."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    rule = "|" + "---|" * 2 + "---:|" * (len(rows[0]) - 2)
    return "\n".join([lines[0], rule, *lines[1:]])


def plain(runs: Runs) -> list[dict[str, Any]]:
    """For a JSON file: every figure with its spread and the value of every run."""
    return [
        {"figure": figure, "unit": unit, "peer": peer, **asdict(found),
         "values": [value.value for run in runs[peer] for value in run if value.figure == figure]}
        for (figure, unit), peers in collect(runs).items()
        for peer, found in peers.items()
    ]  # fmt: skip


def put(page: str, name: str, words: str) -> str:
    """The page with the words between the marks of `name`; a page without them gets them at its end."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    whole = f"{begin}\n{words.strip()}\n\n{end}"
    if begin not in page or end not in page:
        return f"{page.rstrip()}\n\n{whole}\n".lstrip()
    head, _, rest = page.partition(begin)
    return head + whole + rest.partition(end)[2]
